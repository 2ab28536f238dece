"""What a run delivered per second, and to how many in time. What was not measured is None, never 0.

This file must not know any engine, clock or file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmlab.trace import Trace
from llmlab.trace import times as of_request
from llmlab.trace.times import RequestTimes


def throughput_tps(trace: Trace) -> float | None:
    """Output tokens per second, from when the first request was sent to the last token.

    vLLM counts the tokens of requests that succeeded; here each token counts that came out, so the figure of a run that
    was stopped is right too. In a trace that begins inside a run, time and tokens count from its first token on.
    None when no time passed.

    >>> from llmlab.trace.example import two_requests
    >>> throughput_tps(two_requests())  # 5 tokens in 4 s
    1.25

    Source: vllm/benchmarks/serve.py calculate_metrics, output_throughput (commit 009e6d4).
    """
    span = _span(trace)
    return span.num_output_tokens / span.duration_s if span else None


def total_throughput_tps(trace: Trace) -> float | None:
    """Prompt and output tokens per second; a prompt counts once its first token is out, cached or computed.

    >>> from llmlab.trace.example import two_requests
    >>> total_throughput_tps(two_requests())  # and 10 prompt tokens
    3.75

    Source: vllm/benchmarks/serve.py calculate_metrics, total_token_throughput (commit 009e6d4).
    """
    span = _span(trace)
    return (span.num_prompt_tokens + span.num_output_tokens) / span.duration_s if span else None


def request_throughput_rps(trace: Trace) -> float | None:
    """Requests per second that ended by themselves (stop or length).

    >>> from llmlab.trace.example import two_requests
    >>> request_throughput_rps(two_requests())
    0.5

    Source: vllm/benchmarks/serve.py calculate_metrics, request_throughput (commit 009e6d4).
    """
    return goodput_rps(trace)


def goodput_rps(
    trace: Trace, *, ttft_s: float | None = None, tpot_s: float | None = None, e2e_s: float | None = None
) -> float | None:
    """Requests per second that ended by themselves and met every limit given, in seconds.

    An answer of one token has no gap: it meets any tpot_s. A request that began before the trace has no known TTFT:
    it does not count as good when ttft_s or tpot_s is asked for.

    >>> from llmlab.trace.example import two_requests
    >>> trace = two_requests()  # TTFT 1 and 1.5 s, TPOT 1.5 and 2 s
    >>> goodput_rps(trace), goodput_rps(trace, ttft_s=1.2), goodput_rps(trace, ttft_s=1.2, tpot_s=1.0)
    (0.5, 0.25, 0.0)

    Source: vllm/benchmarks/serve.py calculate_metrics, request_goodput (commit 009e6d4). The idea is of DistServe
    (Zhong et al., OSDI 2024, arXiv 2401.09670), where goodput is the highest rate at which a share of requests meets
    the limits: read that off a sweep of this figure.
    """
    span = _span(trace)
    if span is None:
        return None
    good = [t for t in span.complete if _meets(t, ttft_s, tpot_s, e2e_s)]
    return len(good) / span.duration_s


def percentile(values: Iterable[float], q: float) -> float | None:
    """The q-th percentile (0 to 100), linear between the two nearest values; None without values.

    >>> percentile([1.0, 2.0, 4.0], 50), percentile([1.0, 2.0, 4.0], 75), percentile([], 99)
    (2.0, 3.0, None)

    Raises: ValueError when q is outside 0 to 100.

    Source: numpy.percentile, method "linear", which vllm/benchmarks/serve.py uses.
    """
    if not 0 <= q <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {q}")
    ordered = sorted(values)
    if not ordered:
        return None
    place = (len(ordered) - 1) * q / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, slots=True)
class _Span:
    """What a trace counts, and the seconds in which it did."""

    duration_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    complete: tuple[RequestTimes, ...]


def _span(trace: Trace) -> _Span | None:
    requests = of_request.request_times(trace).values()
    token_times_s = [t_s for times in requests for t_s in times.token_times_s]
    if not token_times_s:
        return None
    # What came before a trace that begins inside a run is not known: its first token starts the clock.
    is_cut = any(times.is_cut for times in requests)
    start_s = min(token_times_s) if is_cut else min(times.arrival_s for times in requests)
    duration_s = max(token_times_s) - start_s
    if duration_s <= 0:
        return None
    served = [times for times in requests if times.token_times_s and times.token_times_s[-1] > start_s]
    begun = [times for times in served if not times.is_cut and times.token_times_s[0] > start_s]
    return _Span(
        duration_s,
        sum(times.num_prompt_tokens for times in begun),
        sum(t_s > start_s for t_s in token_times_s),
        tuple(times for times in served if times.is_complete),
    )


def _meets(times: RequestTimes, max_ttft_s: float | None, max_tpot_s: float | None, max_e2e_s: float | None) -> bool:
    tpot_s = 0.0 if times.num_output_tokens == 1 else of_request.tpot_s(times)
    ttft_s, e2e_s = of_request.ttft_s(times), of_request.e2e_s(times)
    measured = ((ttft_s, max_ttft_s), (tpot_s, max_tpot_s), (e2e_s, max_e2e_s))
    return all(limit is None or (value is not None and value <= limit) for value, limit in measured)
