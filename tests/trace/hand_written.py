"""Sound traces small enough to check by hand, and ways to break them in one place."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from llmlab.trace import (
    BlockDelta,
    Capabilities,
    CellDelta,
    Header,
    Incident,
    KvDelta,
    Phase,
    Request,
    ScheduledRequest,
    Step,
    Token,
    Trace,
)
from llmlab.trace.kv_state import state_for


def share(
    request_id: str, phase: Phase, num_tokens: int, num_computed: int, num_prompt: int, num_output: int, **more: int
) -> ScheduledRequest:
    return ScheduledRequest(
        request_id=request_id,
        phase=phase,
        num_tokens=num_tokens,
        num_computed_tokens=num_computed,
        num_prompt_tokens=num_prompt,
        num_output_tokens=num_output,
        **more,
    )


def step(number: int, shares: list[ScheduledRequest], kv: KvDelta | None, tokens: dict[str, int], **more: Any) -> Step:
    return Step(
        step=number,
        t_s=number + 1.0,
        scheduled=tuple(shares),
        num_scheduled_tokens=sum(s.num_tokens for s in shares),
        num_running=len(shares),
        tokens=tuple(Token(request_id=r, token_id=t) for r, t in tokens.items()),
        kv=kv,
        **more,
    )


def cells(
    written: dict[str, Any], num_used: int, *, shared: dict[str, Any] | None = None, freed: dict[str, Any] | None = None
) -> CellDelta:
    return CellDelta(
        written=written, shared=shared or {}, freed=freed or {}, num_used=num_used, num_cells=16, num_attended=16
    )


def prefix_sharing_in_cells() -> Trace:
    """a and b share 4 cells; both end and are kept; c shares 6 cells of a, and b is evicted."""
    header = Header(
        engine="llamacpp",
        capabilities=Capabilities(kv="cells", prefix_caching=True),
        num_cells=16,
        max_model_len=16,
        max_num_seqs=2,
        token_budget=8,
    )
    requests = (
        Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1, 2, 3, 4, 5)),
        Request(request_id="b", arrival_s=0.5, prompt_token_ids=(1, 2, 3, 4, 9)),
        Request(request_id="c", arrival_s=3.5, prompt_token_ids=(1, 2, 3, 4, 5, 6, 3)),
    )
    steps = (
        step(0, [share("a", "prefill", 5, 0, 5, 0)], cells({"a": ((0, 0, 5),)}, 5), {"a": 6}),
        step(
            1,
            [share("a", "decode", 1, 5, 5, 1), share("b", "prefill", 1, 4, 5, 0)],
            cells({"a": ((5, 5, 1),), "b": ((6, 4, 1),)}, 7, shared={"b": ((0, 4),)}),
            {"a": 7, "b": 7},
            prefix_hits={"b": 4},
        ),
        step(
            2,
            [share("a", "decode", 1, 6, 5, 2), share("b", "decode", 1, 5, 5, 1)],
            cells({"a": ((7, 6, 1),), "b": ((8, 5, 1),)}, 9),
            {"a": 8, "b": 8},
            finished={"a": "length", "b": "length"},
        ),
        step(
            3,
            [share("c", "prefill", 1, 6, 7, 0)],
            cells({"c": ((9, 6, 1),)}, 8, shared={"c": ((0, 6),)}, freed={"b": ((0, 4), (6, 1), (8, 1))}),
            {"c": 2},
            prefix_hits={"c": 6},
            finished={"c": "stop"},
        ),
    )
    return Trace(header, requests, steps)


def blocks(num_free: int, **changes: Any) -> BlockDelta:
    return BlockDelta(num_free=num_free, num_blocks=3, **changes)


def preemption_in_blocks() -> Trace:
    """p and q on 3 blocks of 4 tokens: p needs a second block, q is preempted and recomputes."""
    header = Header(
        engine="simulated",
        capabilities=Capabilities(kv="blocks", block_table=True, preemption=True),
        block_size=4,
        num_blocks=3,
        max_model_len=12,
        max_num_seqs=2,
        token_budget=8,
    )
    requests = (
        Request(request_id="p", arrival_s=0.0, prompt_token_ids=(1, 2, 3, 4)),
        Request(request_id="q", arrival_s=0.0, prompt_token_ids=(5, 6, 7, 8)),
    )
    steps = (
        step(
            0,
            [share("p", "prefill", 4, 0, 4, 0), share("q", "prefill", 4, 0, 4, 0)],
            blocks(1, allocated={"p": (0,), "q": (1,)}, ref_counts={0: 1, 1: 1}),
            {"p": 5, "q": 5},
        ),
        step(
            1,
            [share("p", "decode", 1, 4, 4, 1)],
            blocks(1, allocated={"p": (2,)}, freed={"q": (1,)}, ref_counts={1: 0, 2: 1}),
            {"p": 5},
            preempted=("q",),
        ),
        step(
            2,
            [share("p", "decode", 1, 5, 4, 2)],
            blocks(3, freed={"p": (0, 2)}, ref_counts={0: 0, 2: 0}),
            {"p": 5},
            finished={"p": "length"},
        ),
        step(
            3,
            [share("q", "recompute", 5, 0, 4, 1)],
            blocks(1, allocated={"q": (1, 0)}, ref_counts={1: 1, 0: 1}),
            {"q": 5},
        ),
        step(
            4,
            [share("q", "decode", 1, 5, 4, 2)],
            blocks(3, freed={"q": (1, 0)}, ref_counts={0: 0, 1: 0}),
            {"q": 5},
            finished={"q": "stop"},
        ),
    )
    return Trace(header, requests, steps)


def drafts_accepted_and_rejected() -> Trace:
    """Speculative decoding on an engine that shows no KV: two drafts, of which one is accepted; then two, and none."""
    header = Header(engine="simulated", capabilities=Capabilities(speculative=True), token_budget=8)
    steps = (
        step(0, [share("a", "prefill", 3, 0, 3, 0)], None, {"a": 4}),
        with_tokens(step(1, [share("a", "decode", 3, 3, 3, 1, num_draft_tokens=2)], None, {}), "a", 5, 6),
        with_tokens(step(2, [share("a", "decode", 3, 5, 3, 3, num_draft_tokens=2)], None, {}), "a", 7),
        step(3, [share("a", "decode", 1, 6, 3, 4)], None, {"a": 8}, finished={"a": "length"}),
    )
    return Trace(header, (Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1, 2, 3)),), steps)


def died_in_the_middle() -> Trace:
    """a runs, b waits, the host dies: an incident ends both."""
    trace = prefix_sharing_in_cells()
    died = Incident(incident="died", t_s=1.5, requests=("a", "b"), text="SIGKILL")
    return Trace(trace.header, trace.request_records[:2], trace.step_records[:1], (died,))


# ---- ways to break them


def with_tokens(one: Step, request_id: str, *token_ids: int) -> Step:
    return replace(one, tokens=tuple(Token(request_id=request_id, token_id=t) for t in token_ids))


def with_step(trace: Trace, number: int, **changes: Any) -> Trace:
    steps = list(trace.step_records)
    steps[number] = replace(steps[number], **changes)
    return Trace(trace.header, trace.request_records, tuple(steps), trace.incidents)


def with_share(trace: Trace, number: int, request_id: str, **changes: Any) -> Trace:
    """Another share of a request in a step; the sum of the step follows."""
    rows = [
        replace(row, **changes) if row.request_id == request_id else row for row in trace.step_records[number].scheduled
    ]
    return with_step(trace, number, scheduled=tuple(rows), num_scheduled_tokens=sum(row.num_tokens for row in rows))


def with_kv(trace: Trace, number: int, **changes: Any) -> Trace:
    kv = trace.step_records[number].kv
    assert kv is not None
    return with_step(trace, number, kv=replace(kv, **changes))


def with_header(trace: Trace, **changes: Any) -> Trace:
    return Trace(replace(trace.header, **changes), trace.request_records, trace.step_records, trace.incidents)


def with_request(trace: Trace, request_id: str, **changes: Any) -> Trace:
    requests = tuple(replace(r, **changes) if r.request_id == request_id else r for r in trace.request_records)
    return Trace(trace.header, requests, trace.step_records, trace.incidents)


def without_request(trace: Trace, request_id: str) -> Trace:
    kept = tuple(r for r in trace.request_records if r.request_id != request_id)
    return Trace(trace.header, kept, trace.step_records, trace.incidents)


def from_step(trace: Trace, first: int, kv_at_start: KvDelta) -> Trace:
    """The rest of a trace, as it is cut out of a longer one."""
    return Trace(
        replace(trace.header, kv_at_start=kv_at_start),
        trace.request_records,
        trace.step_records[first:],
        trace.incidents,
    )


def state_after(trace: Trace, num_steps: int) -> KvDelta:
    """The KV cache after the first steps, as a change of an empty one."""
    deltas = [one.kv for one in trace.step_records[:num_steps] if one.kv is not None]
    state = state_for(deltas[0])
    for delta in deltas:
        assert state.apply(delta) == []  # type: ignore[arg-type]
    last = deltas[-1]
    return state.snapshot(last.num_cells if isinstance(last, CellDelta) else last.num_blocks)
