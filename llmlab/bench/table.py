"""The table of a measurement, and the sentences beside it. This file must not know how they look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmlab.bench.result import Bench, Point

if TYPE_CHECKING:
    import pandas as pd

# A repeat this far from another, as a share of their median, is worth a word.
WIDE = 0.15


def table_of(result: Bench) -> pd.DataFrame:
    """One row for each engine and load. Figures are medians over the repeats; NaN: not measured.

    load: see Workload.load_unit. repeats: complete ones. throughput_tps, with its lowest and highest repeat. *_p50_s,
    *_p99_s: percentiles over requests (itl: over gaps). goodput_rps: NaN without limits. kv_peak, prefix_hit_rate:
    shares. cpu_s_per_token: of the engine. energy_j_per_token: of the whole machine.
    """
    import pandas as pd

    return pd.DataFrame([_row(point) for point in result.points])


def notes_of(result: Bench) -> tuple[str, ...]:
    """Stopped, failed, limits nobody met, knees, wide spread: in this order."""
    return tuple(_notes(result))


def _notes(result: Bench) -> Iterator[str]:
    if result.is_stopped:
        yield "Stopped before the end: what was measured until then is shown."
    yield from result.problems
    for point in result.points:
        if not point.is_complete:
            yield f"{point.engine} at {point.load:g}: not all requests ended, so knees and verdicts leave it out."
    yield from _missed(result)
    for facts in result.engines:
        if (knee := result.knee(facts.name)) is not None:
            yield f"{facts.name}: {knee.sentence}"
    for point in result.points:
        spread, middle = point.spread(lambda m: m.throughput_tps), point.throughput_tps
        if spread and middle and (spread[1] - spread[0]) / middle > WIDE:
            low, high = spread
            yield (
                f"{point.engine} at {point.load:g}: the repeats lie {(high - low) / middle:.0%} apart "
                f"({low:.0f} to {high:.0f} tok/s). Something else used the machine, or the run is short."
            )


def _missed(result: Bench) -> Iterator[str]:
    """Where no request met the limits: said, with the best that there was."""
    if not result.slo:
        return
    for point in result.points:
        if point.goodput_rps != 0:
            continue
        best = [
            f"best {name.removesuffix('_s').upper()} {value:.3g} s"
            for name in result.slo.limits
            if (value := point.latency_s(name.removesuffix("_s"), 0)) is not None
        ]
        yield f"{point.engine} at {point.load:g}: no request met {result.slo}, so goodput is 0 ({', '.join(best)})."


def _row(point: Point) -> dict[str, object]:
    low, high = point.spread(lambda m: m.throughput_tps) or (None, None)
    row: dict[str, object] = {
        "engine": point.engine,
        "load": point.load,
        "repeats": sum(m.is_complete for m in point.repeats),
        "throughput_tps": point.throughput_tps,
        "throughput_low_tps": low,
        "throughput_high_tps": high,
        "request_throughput_rps": point.median(lambda m: m.request_throughput_rps),
        "goodput_rps": point.goodput_rps,
    }
    for latency in ("ttft", "tpot", "itl", "e2e"):
        row |= {f"{latency}_p{q}_s": point.latency_s(latency, q) for q in (50, 90, 99)}
    return row | {
        "kv_peak": point.median(lambda m: m.kv_peak),
        "num_preemptions": point.median(lambda m: m.num_preemptions),
        "prefix_hit_rate": point.median(lambda m: m.prefix_hit_rate),
        "max_batch_size": point.median(lambda m: m.max_batch_size),
        "rss_peak_bytes": point.median(lambda m: m.rss_peak_bytes),
        "gpu_peak_bytes": point.median(lambda m: m.gpu_peak_bytes),
        "cpu_s_per_token": point.median(lambda m: m.cpu_s_per_token),
        "energy_j_per_token": point.median(lambda m: m.energy_j_per_token),
        "notebook_cpu_s": point.median(lambda m: m.notebook_cpu_s),
        "schedule_error_s": point.median(lambda m: m.schedule_error_s),
    }
