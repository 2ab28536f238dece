"""The times of one request, and what follows from them: TTFT, gaps, TPOT, end to end, queue.

Names and definitions are vLLM's. What was not measured is None, never 0. This file must not know any engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llmlab.trace.records import FinishReason, ScheduledRequest, Step

if TYPE_CHECKING:
    from llmlab.trace.recording import Trace


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """When one request was sent, when each of its tokens came out, and how it ended."""

    request_id: str
    arrival_s: float
    # One for each output token that the trace shows; tokens of one step have one time.
    token_times_s: tuple[float, ...] = ()
    # None while it runs, and when the record broke off.
    finish_reason: FinishReason | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    # Start of the first step that computed one of its tokens; None when steps carry no durations.
    first_scheduled_s: float | None = None

    @property
    def is_complete(self) -> bool:
        """It ended by itself: its last token, or the length asked for."""
        return self.finish_reason in ("stop", "length")

    @property
    def is_cut(self) -> bool:
        """Its first tokens came out before the trace begins."""
        return len(self.token_times_s) < self.num_output_tokens


def request_times(trace: Trace) -> dict[str, RequestTimes]:
    """request_id -> its times, in order of arrival.

    For each request record, but those that had ended before the trace begins and only left KV behind.

    >>> from llmlab.trace import Header, Request, Step, Token, Trace
    >>> asked = Request(request_id="a", arrival_s=0.25, prompt_token_ids=(5, 6))
    >>> step = Step(step=0, t_s=1.0, tokens=(Token(request_id="a", token_id=7),), finished={"a": "length"})
    >>> times = request_times(Trace(Header(engine="simulated"), (asked,), (step,)))["a"]
    >>> times.token_times_s, times.finish_reason, times.num_prompt_tokens, times.num_output_tokens
    ((1.0,), 'length', 2, 1)
    """
    token_times_s: dict[str, list[float]] = {request.request_id: [] for request in trace.request_records}
    first_share: dict[str, _FirstShare] = {}
    finish_reason: dict[str, FinishReason] = {}
    for step in trace.step_records:
        for row in step.scheduled:
            if row.request_id not in first_share:
                first_share[row.request_id] = _FirstShare.of(row, step)
        for token in step.tokens:
            if token.request_id in token_times_s:
                token_times_s[token.request_id].append(step.t_s)
        finish_reason.update(step.finished)
    times = {}
    over = _ended_before(trace)
    for request in trace.request_records:
        if request.request_id in over:
            continue
        seen = token_times_s[request.request_id]
        first = first_share.get(request.request_id, _FirstShare(0, 0, None))
        times[request.request_id] = RequestTimes(
            request.request_id,
            request.arrival_s,
            tuple(seen),
            finish_reason.get(request.request_id),
            len(request.prompt_token_ids) or first.num_prompt_tokens,
            first.num_output_tokens + len(seen),
            first.start_s,
        )
    return times


def _ended_before(trace: Trace) -> set[str]:
    """Requests that hold KV when the trace begins and take no part in it."""
    left = set(trace.header.kv_at_start.receivers if trace.header.kv_at_start else ())
    for step in trace.step_records:
        if not left:
            break
        left -= {row.request_id for row in step.scheduled}
        left.difference_update(step.waiting, step.preempted, step.finished)
    return left


class _FirstShare(NamedTuple):
    """What the first step that the trace shows of a request says about the time before."""

    num_prompt_tokens: int
    num_output_tokens: int
    # None when this was not its admission, or the step carries no durations.
    start_s: float | None

    @classmethod
    def of(cls, row: ScheduledRequest, step: Step) -> _FirstShare:
        num_hit = step.prefix_hits.get(row.request_id, 0)
        is_admission = row.num_computed_tokens == num_hit and not row.num_output_tokens
        return cls(row.num_prompt_tokens, row.num_output_tokens, start_s(step) if is_admission else None)


def start_s(step: Step) -> float | None:
    """When the scheduling of a step began, in seconds; None when the step carries no durations."""
    if step.schedule_s is None or step.forward_s is None or step.update_s is None:
        return None
    return step.t_s - step.schedule_s - step.forward_s - step.update_s


def nobody_left(steps: Iterable[Step]) -> Iterator[bool]:
    """For each step: whether all requests have ended with it, so that the engine idles until the next.

    >>> from llmlab.trace.example import two_requests
    >>> list(nobody_left(two_requests().step_records))
    [False, False, True]
    """
    open_ids: set[str] = set()
    for step in steps:
        open_ids.update(row.request_id for row in step.scheduled)
        open_ids.difference_update(step.finished)
        yield not open_ids and not step.num_waiting


def ttft_s(times: RequestTimes) -> float | None:
    """Time to first token, in seconds: from when the request was sent to the end of the step that gave it.

    None when no token came out, or the first came before the trace begins.

    >>> ttft_s(RequestTimes("a", 0.25, (0.75, 1.0), num_output_tokens=2))
    0.5

    Source: vllm/benchmarks/serve.py calculate_metrics (commit 009e6d4).
    """
    if not times.token_times_s or times.is_cut:
        return None
    return times.token_times_s[0] - times.arrival_s


def itl_s(times: RequestTimes) -> tuple[float, ...]:
    """Inter-token latencies, in seconds: the gap before each token after the first that the trace shows.

    Tokens of one step, as with speculative decoding, have gaps of 0 between them.

    >>> itl_s(RequestTimes("a", 0.0, (0.5, 0.75, 1.25), num_output_tokens=3))
    (0.25, 0.5)

    Source: vllm/benchmarks/serve.py calculate_metrics (commit 009e6d4).
    """
    return tuple(b - a for a, b in zip(times.token_times_s, times.token_times_s[1:], strict=False))


def tpot_s(times: RequestTimes) -> float | None:
    """Mean time per output token after the first, in seconds.

    None when fewer than two tokens came out: there is no gap to average.

    >>> tpot_s(RequestTimes("a", 0.0, (0.5, 0.75, 1.25), num_output_tokens=3))
    0.375

    Source: vllm/benchmarks/serve.py calculate_metrics (commit 009e6d4).
    """
    if len(times.token_times_s) < 2 or times.is_cut:
        return None
    return (times.token_times_s[-1] - times.token_times_s[0]) / (len(times.token_times_s) - 1)


def e2e_s(times: RequestTimes) -> float | None:
    """End-to-end latency, in seconds: from when the request was sent to its last token.

    None when no token came out, or the request did not end by itself (stop or length).

    >>> e2e_s(RequestTimes("a", 0.25, (0.75, 1.0), "stop", num_output_tokens=2))
    0.75

    Source: vllm/benchmarks/serve.py BenchmarkMetrics, e2el (commit 009e6d4).
    """
    if not times.token_times_s or not times.is_complete:
        return None
    return times.token_times_s[-1] - times.arrival_s


def queue_s(times: RequestTimes) -> float | None:
    """Time in the queue, in seconds: from when the request was sent to the start of the first step that served it.

    None when it was never served, was being served when the trace begins, or the steps carry no durations.

    >>> queue_s(RequestTimes("a", 0.25, first_scheduled_s=0.375))
    0.125

    Source: vllm/v1/metrics/stats.py FinishedRequestStats.queued_time.
    """
    return None if times.first_scheduled_s is None else times.first_scheduled_s - times.arrival_s
