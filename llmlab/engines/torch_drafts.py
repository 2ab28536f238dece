"""Speculative decoding: a small model drafts tokens, the large one looks at all of them in one forward pass.

A draft is kept while it equals the token that the large model draws at that place itself: the answer is the very one
that it gives without drafts, sampled ones included, only sooner. The drafting model keeps its KV in the same blocks,
under the same block tables, so that preemption and prefix hits hold for both.
This file must not know policies.

Source: Leviathan et al., Fast Inference from Transformers via Speculative Decoding, ICML 2023 (there, drafts are drawn
and accepted by a ratio of probabilities, which accepts more of them at high temperatures).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from llmlab.engines.torch_attention import PagedKv, Span, make_batch
from llmlab.engines.torch_model import Decoder
from llmlab.engines.torch_room import Room
from llmlab.engines.torch_sampling import Generation
from llmlab.errors import EngineError
from llmlab.models import get
from llmlab.models.config import ModelConfig
from llmlab.scheduling.contracts import BlockCopy
from llmlab.scheduling.drafts import draft_room
from llmlab.scheduling.plan import StepPlan

NUM_DRAFT_TOKENS = 4


class Drafter:
    """The small model and its KV.

    Raises: EngineError when its vocabulary is another one, ModelError when there is no such model.
    """

    def __init__(self, name: str, num_draft_tokens: int, config: ModelConfig, large: Decoder, kv: PagedKv) -> None:
        model, self._num_draft_tokens = get(name), num_draft_tokens
        if model.config.vocab_size != config.vocab_size:
            raise EngineError(
                f"{name} has {model.config.vocab_size} tokens, the model has {config.vocab_size}: "
                "a draft must have the same vocabulary. Take a smaller model of the same family."
            )
        self._model = Decoder(Path(model.hf_dir), model.config, device=large.device, dtype=large.dtype)
        self._kv = self._model.new_kv(kv.num_blocks, kv.block_size)
        self.max_model_len = model.config.max_model_len

    @property
    def num_bytes(self) -> int:
        kv = self._kv
        return self._model.weights.num_bytes + (kv.num_blocks + 1) * kv.bytes_per_block

    def room(self, plan: StepPlan, pool: object, generations: Mapping[str, Generation], room: Room) -> dict[int, int]:
        """Index of a share -> tokens to draft for it. Takes their blocks."""
        return draft_room(
            plan, pool, self._num_draft_tokens,
            token_budget=room.token_budget, max_len=min(room.max_model_len, self.max_model_len),
            num_left=lambda seq: generations[seq.request_id].params.max_tokens - seq.num_output_tokens,
        )  # fmt: skip

    def draft(self, spans: list[Span], wanted: dict[int, int], copies: Iterable[BlockCopy]) -> dict[int, list[int]]:
        """Reads the spans of a step as the large model does. Index of a span -> so many tokens to go on with.

        The last draft is read too: its KV must exist when it is kept. A block table has room for all of them.
        """
        self._kv.copy(copies)
        device, size = self._model.device, self._kv.block_size
        batch = make_batch(spans, size, device)
        rows = [batch.rows_of(i).stop - 1 for i in wanted]
        hidden = self._model.forward(batch, self._kv)[rows]
        drafts: dict[int, list[int]] = {i: [] for i in wanted}
        for done in range(max(wanted.values(), default=0)):
            left = [i for i in wanted if wanted[i] > done]
            best = self._model.logits(hidden).argmax(dim=-1).tolist()
            for i, token_id in zip(left, best, strict=True):
                drafts[i].append(token_id)
            more = [Span(drafts[i][-1:], spans[i].num_context + done, spans[i].block_table) for i in left]
            hidden = self._model.forward(make_batch(more, size, device), self._kv)
            keep = [n for n, i in enumerate(left) if wanted[i] > done + 1]
            hidden = hidden[torch.tensor(keep, dtype=torch.long, device=device)]
        return drafts
