"""What a lesson looks at inside the model: attention weights, hidden states, the logit lens.

This file must not know requests or scheduling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmlab.engines.torch_attention import Batch, PagedKv, Span, causal_mask, make_batch
from llmlab.engines.torch_model import Decoder

NUM_LENS_TOKENS = 5


@dataclass(slots=True)
class Probe:
    """Given to the engine (`begin_probe`), it keeps what the next steps compute. Layers: None = all.

    `steps` has one dict for each step: request_id -> {"attention": {layer: [num_heads, num_new, num_context]},
    "hidden": [num_layers + 1, num_new, hidden_size]}, all float32.
    """

    layers: frozenset[int] | None = None
    steps: list[dict[str, dict[str, Any]]] = field(default_factory=list)

    def forward(self, model: Decoder, batch: Batch, kv: PagedKv, names: Sequence[str]) -> Tensor:
        """Decoder.forward() of one step under this probe. `names`: the requests of the spans of the batch."""
        found: dict[str, dict[str, Any]] = {name: {"attention": {}} for name in names}
        weights_of = getattr(model.attention, "weights", attention_weights)  # a student's may have others than ours

        def watch(layer: int, q: Tensor) -> None:
            if self.layers is None or layer in self.layers:
                for i, name in enumerate(names):
                    weights = weights_of(layer, q[batch.rows_of(i)], kv, batch.spans[i])
                    found[name]["attention"][layer] = weights.cpu().numpy()

        states: list[Tensor] = []
        out = model.forward(batch, kv, watch=watch, keep=states)
        hidden = torch.stack(states).float().cpu().numpy()
        for i, name in enumerate(names):
            found[name]["hidden"] = hidden[:, batch.rows_of(i)]
        self.steps.append(found)
        return out


def attention_weights(layer: int, q: Tensor, kv: PagedKv, span: Span) -> Tensor:
    """What scaled_dot_product_attention does not hand out, of one sequence: [num_heads, num_new, num_context], float32.

    q: [num_new, num_heads, head_dim], the queries of its new tokens.
    """
    k, _ = kv.of(layer, span)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # grouped-query attention
    scores = torch.einsum("qhd,khd->hqk", q.float(), k) * q.shape[-1] ** -0.5
    positions = torch.arange(span.first, span.num_context, device=q.device)
    return scores.masked_fill(~causal_mask(positions[None], len(k))[0], float("-inf")).softmax(dim=-1)


def inside(model: Decoder, token_ids: list[int], layers: frozenset[int] | None, block_size: int) -> dict[str, Any]:
    """One text through the model, on KV of its own.

    "attention": {layer: [num_heads, num_tokens, num_tokens]}; "hidden": [num_layers + 1, num_tokens, hidden_size];
    "lens": for each hidden state and token the most likely next tokens [(token_id, probability), ...] if that state
    were the last; "logits": [num_tokens, vocab_size].

    Source of the lens: nostalgebraist, interpreting GPT: the logit lens, 2020.
    """
    kv, batch = own_kv(model, token_ids, block_size)
    probe = Probe(layers)
    logits = model.logits(probe.forward(model, batch, kv, ["it"]))
    found: dict[str, Any] = probe.steps[0]["it"]
    states = torch.from_numpy(found["hidden"]).to(model.device, model.dtype)
    return {**found, "lens": [_best(model, state) for state in states], "logits": logits.cpu().numpy()}


def own_kv(model: Decoder, token_ids: list[int], block_size: int) -> tuple[PagedKv, Batch]:
    """Blocks for one text beside those of the engine, and the batch that computes it."""
    num_blocks = -(-len(token_ids) // block_size)
    spans = [Span(token_ids, 0, range(num_blocks))]
    return model.new_kv(num_blocks, block_size), make_batch(spans, block_size, model.device)


def _best(model: Decoder, state: Tensor) -> list[list[tuple[int, float]]]:
    probs = model.logits(model.final_norm(state)).softmax(dim=-1).topk(NUM_LENS_TOKENS)
    pairs = zip(probs.indices.tolist(), probs.values.tolist(), strict=True)
    return [list(zip(ids, values, strict=True)) for ids, values in pairs]
