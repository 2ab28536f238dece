"""What a run did with the KV cache: use, hits, preemptions, waste. What was not measured is None, never 0.

This file must not know any engine, clock or file.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmlab.trace import BlockDelta, CellDelta, Step, Trace


def kv_use(trace: Trace) -> tuple[float | None, ...]:
    """Share of the KV blocks or cells in use after each step; None for a step that does not say.

    >>> from llmlab.trace.example import two_requests
    >>> kv_use(two_requests())
    (0.25, 0.375, 0.0)

    Source: vllm/v1/core/block_pool.py BlockPool.get_usage.
    """
    return tuple(_use(step) for step in trace.step_records)


def batch_size(trace: Trace) -> tuple[int, ...]:
    """Sequences in each step.

    >>> from llmlab.trace.example import two_requests
    >>> batch_size(two_requests())
    (1, 2, 2)
    """
    return tuple(len(step.scheduled) for step in trace.step_records)


def prefix_hit_rate(trace: Trace) -> float | None:
    """Share of the tokens asked for at first admission that the prefix cache had.

    None when nobody was admitted, or the engine has no prefix cache.

    >>> from llmlab.trace.example import two_requests
    >>> prefix_hit_rate(two_requests())  # 4 of 10 tokens
    0.4

    Source: vllm/v1/metrics/stats.py PrefixCacheStats (hits / queries, in tokens; preempted requests apart).
    """
    lookups = prefix_lookups(trace)
    num_asked = sum(lookup.num_asked for lookup in lookups)
    return sum(lookup.num_found for lookup in lookups) / num_asked if num_asked else None


@dataclass(frozen=True, slots=True)
class PrefixLookup:
    """What a request asked of the prefix cache at its first admission, and what was there; in tokens."""

    request_id: str
    num_asked: int
    num_found: int


def prefix_lookups(trace: Trace) -> tuple[PrefixLookup, ...]:
    """One for each request that was admitted, in order of admission; empty for an engine without a prefix cache.

    >>> from llmlab.trace.example import two_requests
    >>> [(lookup.request_id, lookup.num_found) for lookup in prefix_lookups(two_requests())]
    [('a', 0), ('b', 4)]
    """
    if not trace.header.capabilities.prefix_caching:
        return ()
    lookups = []
    seen: set[str] = set()
    for step in trace.step_records:
        for row in step.scheduled:
            num_found = step.prefix_hits.get(row.request_id, 0)
            # Else it ran already when the trace begins.
            if row.request_id not in seen and row.num_computed_tokens == num_found and not row.num_output_tokens:
                lookups.append(PrefixLookup(row.request_id, row.num_prompt_tokens, num_found))
            seen.add(row.request_id)
    return tuple(lookups)


def num_preemptions(trace: Trace) -> int | None:
    """How often a running request lost its place; None without steps.

    >>> from llmlab.trace.example import two_requests
    >>> num_preemptions(two_requests())
    0

    Source: vllm/v1/metrics/stats.py IterationStats.num_preempted_reqs.
    """
    return sum(len(step.preempted) for step in trace.step_records) if trace.step_records else None


def recomputed_tokens(trace: Trace) -> int | None:
    """Tokens computed a second time after a preemption; None without steps.

    >>> from llmlab.trace.example import two_requests
    >>> recomputed_tokens(two_requests())
    0
    """
    if not trace.step_records:
        return None
    rows = (row for step in trace.step_records for row in step.scheduled)
    return sum(row.num_tokens for row in rows if row.phase == "recompute")


@dataclass(frozen=True, slots=True)
class Waste:
    """Shares of KV memory that hold no token of a running sequence, over all steps."""

    # Of the blocks held: the empty rest of last blocks. 0.0 with cells, each of which holds one token.
    last_block: float | None
    # Of what contiguous reservation would hold for the same sequences.
    contiguous: float | None


def waste(trace: Trace) -> Waste:
    """What paging wastes, and what the same run would waste if each running sequence reserved max_model_len slots.

    With n(s, t) the computed tokens of sequence s after step t, and S(t) the sequences that run then:
    last_block = sum over t, s of (ceil(n / block_size) * block_size - n) / sum over t of held blocks * block_size
    contiguous = 1 - sum over t, s of n / sum over t of |S(t)| * max_model_len

    None where the header or the steps do not tell what the formula needs.

    >>> from llmlab.trace.example import two_requests
    >>> w = waste(two_requests())  # 8 of 20 slots in blocks; 16 tokens in 48 slots, if 16 were reserved for each
    >>> w.last_block, round(w.contiguous, 3)
    (0.4, 0.667)

    Source: Kwon et al., SOSP 2023, arXiv 2309.06180, section 3.1 (reserved slots, internal fragmentation).
    """
    block_size, max_model_len = trace.header.block_size, trace.header.max_model_len
    num_tokens: dict[str, int] = {}  # of the sequences that run
    tokens = slots = held_slots = empty_slots = 0
    has_cells = False
    for step in trace.step_records:
        for request_id in step.preempted:
            num_tokens.pop(request_id, None)
        for row in step.scheduled:
            num_tokens[row.request_id] = row.num_computed_tokens + row.num_tokens
        for request_id in step.finished:
            num_tokens.pop(request_id, None)
        tokens += sum(num_tokens.values())
        slots += len(num_tokens) * (max_model_len or 0)
        has_cells = has_cells or isinstance(step.kv, CellDelta)
        if isinstance(step.kv, BlockDelta) and block_size:
            held_slots += (step.kv.num_blocks - step.kv.num_free) * block_size
            empty_slots += sum(-n % block_size for n in num_tokens.values())
    without_blocks = 0.0 if has_cells else None
    return Waste(empty_slots / held_slots if held_slots else without_blocks, 1 - tokens / slots if slots else None)


def _use(step: Step) -> float | None:
    kv = step.kv
    if isinstance(kv, BlockDelta):
        return (kv.num_blocks - kv.num_free) / kv.num_blocks if kv.num_blocks else None
    if isinstance(kv, CellDelta):
        return kv.num_used / kv.num_cells if kv.num_cells else None
    return None
