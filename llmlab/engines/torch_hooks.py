"""What a lesson looks at inside the model: attention weights, hidden states, the logit lens.

This file must not know requests or scheduling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmlab.engines.base import Floats
from llmlab.engines.torch_attention import Batch, PagedKv, Span, make_batch
from llmlab.engines.torch_model import Decoder

NUM_LENS_TOKENS = 5


@dataclass(slots=True)
class Probe:
    """Given to the engine (`engine.probe`), it keeps what the next steps compute. Layers: None = all.

    `steps` has one dict for each step: request_id -> {"attention": {layer: [num_heads, num_new, num_context]},
    "hidden": [num_layers + 1, num_new, hidden_size]}, all float32.
    """

    layers: frozenset[int] | None = None
    steps: list[dict[str, dict[str, Any]]] = field(default_factory=list)


class Look:
    """One forward pass under a probe."""

    def __init__(self, probe: Probe, names: Iterable[str], batch: Batch) -> None:
        self._probe, self._names, self._batch = probe, list(names), batch
        self._found: dict[str, dict[str, Any]] = {name: {"attention": {}} for name in self._names}
        self.states: list[Tensor] = []

    def watch(self, layer: int, i: int, weights: Callable[[], Tensor]) -> None:
        """Keep the attention weights of the i-th sequence, where somebody wants them."""
        if self._probe.layers is None or layer in self._probe.layers:
            of_seq = weights()[:, :, : self._batch.spans[i].num_context]
            self._found[self._names[i]]["attention"][layer] = of_seq.cpu().numpy()

    def done(self) -> None:
        states = torch.stack(self.states).float().cpu().numpy()
        for name, first, span in zip(self._names, self._batch.first_rows, self._batch.spans, strict=True):
            self._found[name]["hidden"] = states[:, first : first + len(span.token_ids)]
        self._probe.steps.append(self._found)


def inside(model: Decoder, token_ids: list[int], layers: frozenset[int] | None, block_size: int) -> dict[str, Any]:
    """One text through the model, on KV of its own.

    "attention": {layer: [num_heads, num_tokens, num_tokens]}; "hidden": [num_layers + 1, num_tokens, hidden_size];
    "lens": for each hidden state and token the most likely next tokens [(token_id, probability), ...] if that state
    were the last; "logits": [num_tokens, vocab_size].

    Source of the lens: nostalgebraist, interpreting GPT: the logit lens, 2020.
    """
    kv, batch = own_kv(model, token_ids, block_size)
    look = Look(probe := Probe(layers), ["it"], batch)
    logits = model.logits(model.forward(batch, kv, watch=look.watch, keep=look.states))
    look.done()
    found: dict[str, Any] = probe.steps[0]["it"]
    found["lens"] = [_best(model, state) for state in look.states]
    found["logits"] = logits.cpu().numpy()
    return found


def logits_of(model: Decoder, token_ids: list[int], block_size: int) -> Floats:
    """Logits at every position of a text, [num_tokens, vocab_size], on KV of its own."""
    kv, batch = own_kv(model, token_ids, block_size)
    return model.logits(model.forward(batch, kv)).cpu().numpy()


def own_kv(model: Decoder, token_ids: list[int], block_size: int) -> tuple[PagedKv, Batch]:
    """Blocks for one text beside those of the engine, and the batch that computes it."""
    num_blocks = -(-len(token_ids) // block_size)
    return model.new_kv(num_blocks, block_size), make_batch(
        [Span(token_ids, 0, range(num_blocks))], block_size, model.device
    )


def _best(model: Decoder, state: Tensor) -> list[list[tuple[int, float]]]:
    probs = model.logits(model.final_norm(state)).softmax(dim=-1).topk(NUM_LENS_TOKENS)
    pairs = zip(probs.indices.tolist(), probs.values.tolist(), strict=True)
    return [list(zip(ids, values, strict=True)) for ids, values in pairs]
