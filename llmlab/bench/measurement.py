"""Measurement: one plan on one engine, in figures. What was not measured is None, never 0.

Times are those of the engine's steps. On the way to the notebook a token takes 0.3 to 0.6 ms more
(benchmarks/results/host_cost.md), which are not in them. This file must not know engines or clocks.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llmlab import metrics
from llmlab.bench.meters import Spent
from llmlab.bench.schedule import lateness_s
from llmlab.bench.slo import Slo
from llmlab.trace import Trace


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat at one load. Not `is_complete`: stopped, or not all requests ended; the figures are of what came."""

    engine: str
    # requests at once, requests a second, or users: Workload.load_unit
    load: float
    repeat: int
    is_complete: bool
    num_requests: int
    # ended by themselves
    num_ended: int
    num_prompt_tokens: int
    num_output_tokens: int
    duration_s: float
    # One value a request (itl_s: one a gap), in ascending order.
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    itl_s: tuple[float, ...]
    e2e_s: tuple[float, ...]
    throughput_tps: float | None
    total_throughput_tps: float | None
    request_throughput_rps: float | None
    # None when no limit was given
    goodput_rps: float | None
    max_batch_size: int | None
    kv_peak: float | None
    num_preemptions: int | None
    prefix_hit_rate: float | None
    rss_peak_bytes: int | None
    # all memory in use on the GPUs, whoever uses it
    gpu_peak_bytes: int | None
    cpu_s: float | None
    # of the whole machine
    energy_j: float | None
    # The notebook's process: sending, receiving, and this measurement.
    notebook_cpu_s: float | None
    # How late a request was in the engine's hands, at most; see schedule.py.
    schedule_error_s: float | None

    @property
    def cpu_s_per_token(self) -> float | None:
        return _per(self.cpu_s, self.num_output_tokens)

    @property
    def energy_j_per_token(self) -> float | None:
        return _per(self.energy_j, self.num_output_tokens)

    def percentile_s(self, latency: str, q: float) -> float | None:
        """The q-th percentile of "ttft", "tpot", "itl" or "e2e"; None when nobody has one."""
        return metrics.percentile(getattr(self, f"{latency}_s"), q)


def measurement_of(
    trace: Trace, spent: Spent, *, engine: str, load: float, repeat: int, num_requests: int, slo: Slo, stopped: bool
) -> Measurement:
    """The figures of a trace that holds one plan and nothing else."""
    times = metrics.request_times(trace).values()
    num_ended = sum(request.is_complete for request in times)
    late_s = lateness_s(trace)
    use = [share for share in metrics.kv_use(trace) if share is not None]
    return Measurement(
        engine=engine,
        load=load,
        repeat=repeat,
        is_complete=not stopped and num_ended == num_requests,
        num_requests=num_requests,
        num_ended=num_ended,
        num_prompt_tokens=sum(request.num_prompt_tokens for request in times),
        num_output_tokens=sum(request.num_output_tokens for request in times),
        duration_s=spent.duration_s,
        ttft_s=_sorted(map(metrics.ttft_s, times)),
        tpot_s=_sorted(map(metrics.tpot_s, times)),
        itl_s=_sorted(gap for request in times for gap in metrics.itl_s(request)),
        e2e_s=_sorted(map(metrics.e2e_s, times)),
        throughput_tps=metrics.throughput_tps(trace),
        total_throughput_tps=metrics.total_throughput_tps(trace),
        request_throughput_rps=metrics.request_throughput_rps(trace),
        goodput_rps=metrics.goodput_rps(trace, **slo.limits) if slo else None,
        max_batch_size=max(metrics.batch_size(trace), default=None),
        kv_peak=max(use, default=None),
        num_preemptions=metrics.num_preemptions(trace),
        prefix_hit_rate=metrics.prefix_hit_rate(trace),
        rss_peak_bytes=spent.rss_peak_bytes,
        gpu_peak_bytes=spent.gpu_peak_bytes,
        cpu_s=spent.cpu_s,
        energy_j=spent.energy_j,
        notebook_cpu_s=spent.notebook_cpu_s,
        schedule_error_s=max(late_s, default=None),
    )


def _sorted(values: Iterable[float | None]) -> tuple[float, ...]:
    """What is known, to the microsecond."""
    return tuple(sorted(round(value, 6) for value in values if value is not None))


def _per(amount: float | None, count: int) -> float | None:
    return amount / count if amount is not None and count else None
