"""Bench: what bench() measured. A table, curves, a page; a file from which all of it can be made again.

This file must not know engines or how a page looks.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llmlab.bench.knee import Knee, knee_of
from llmlab.bench.measurement import Measurement
from llmlab.bench.slo import Slo
from llmlab.bench.workloads import Workload
from llmlab.errors import LlmlabError, unknown

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "llmlab.bench/1"


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Who was measured."""

    name: str
    engine: str
    version: str
    model: str
    quant: str | None = None
    dtype: str | None = None
    device: str | None = None
    num_threads: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    kv: str = "none"
    kv_cache_bytes: int | None = None
    # as the engine reports them
    weights_bytes: int | None = None
    # before the first request of this measurement
    rss_idle_bytes: int | None = None
    # as it was loaded in this session
    load_s: float | None = None


class Point(msgspec.Struct, frozen=True):
    """All repeats of one engine at one load; complete ones, unless there is none."""

    engine: str
    load: float
    repeats: tuple[Measurement, ...]

    @property
    def is_complete(self) -> bool:
        return all(m.is_complete for m in self.repeats)

    def median(self, figure: Callable[[Measurement], float | None]) -> float | None:
        """The median over the repeats that have it; None when none has."""
        values = self._values(figure)
        return statistics.median(values) if values else None

    def spread(self, figure: Callable[[Measurement], float | None]) -> tuple[float, float] | None:
        """Lowest and highest; None with fewer than two values, which have no spread."""
        values = self._values(figure)
        return (min(values), max(values)) if len(values) > 1 else None

    def latency_s(self, latency: str, q: float) -> float | None:
        """The median over the repeats of a percentile of "ttft", "tpot", "itl" or "e2e"."""
        return self.median(lambda m: m.percentile_s(latency, q))

    @property
    def throughput_tps(self) -> float | None:
        return self.median(lambda m: m.throughput_tps)

    @property
    def goodput_rps(self) -> float | None:
        return self.median(lambda m: m.goodput_rps)

    def _values(self, figure: Callable[[Measurement], float | None]) -> list[float]:
        return [value for m in self.repeats if (value := figure(m)) is not None]


def best_point(points: Sequence[Point], figure: Callable[[Point], float | None]) -> Point | None:
    """Where a figure is highest, the last of equals; None where no point has it."""
    known = [(value, i) for i, point in enumerate(points) if (value := figure(point)) is not None]
    return points[max(known)[1]] if known else None


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements of one workload on one or more engines. Engines took turns, so their speeds compare."""

    workload: Workload
    seed: int
    engines: tuple[EngineFacts, ...]
    measurements: tuple[Measurement, ...]
    slo: Slo = msgspec.field(default_factory=Slo)
    machine: dict[str, str] = {}
    # unix time of the start
    started_at: float | None = None
    # Somebody pressed Stop before all was measured.
    is_stopped: bool = False
    # What went wrong, in sentences.
    problems: tuple[str, ...] = ()
    schema: str = SCHEMA

    @property
    def points(self) -> tuple[Point, ...]:
        """One for each engine and load, loads in order."""
        return tuple(self._points())

    def points_of(self, engine: str) -> tuple[Point, ...]:
        """Raises: LlmlabError for an engine that was not measured."""
        names = [facts.name for facts in self.engines]
        if engine not in names:
            raise LlmlabError(unknown("engine of this measurement", engine, names))
        return tuple(point for point in self.points if point.engine == engine)

    def complete_points_of(self, engine: str) -> tuple[Point, ...]:
        """Those of points_of() at which every request was served."""
        return tuple(point for point in self.points_of(engine) if point.is_complete)

    def knee(self, engine: str | None = None) -> Knee | None:
        """Where more load stops paying, for an engine (the first, if none is named); None with fewer than 3 loads."""
        points = self.complete_points_of(engine or self.engines[0].name)
        known = ((p.load, p.throughput_tps, p.latency_s("e2e", 50)) for p in points)
        return knee_of([(load, tps, e2e_s) for load, tps, e2e_s in known if tps is not None and e2e_s is not None])

    def table(self) -> pd.DataFrame:
        """One row for each engine and load: medians over the repeats, and how far the repeats were apart."""
        from llmlab.bench.table import table_of

        return table_of(self)

    def notes(self) -> tuple[str, ...]:
        """What a reader has to know beside the figures: stopped, failed, limits nobody met, knees."""
        from llmlab.bench.table import notes_of

        return notes_of(self)

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON; Bench.load(path) reads it back."""
        path = Path(path)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Bench:
        """Raises: LlmlabError for a file that save() did not write."""
        try:
            return msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            raise LlmlabError(f"{path} holds no measurement of llmlab.bench: {error}.") from None

    def to_html(self, path: str | Path) -> Path:
        """Write table and curves as one page that needs nothing else."""
        from llmlab.bench.page import page

        path = Path(path)
        path.write_text(page(self), encoding="utf-8")
        return path

    def _points(self) -> Iterator[Point]:
        loads = sorted({m.load for m in self.measurements})
        for facts in self.engines:
            for load in loads:
                here = [m for m in self.measurements if m.engine == facts.name and m.load == load]
                complete = [m for m in here if m.is_complete]
                if here:
                    yield Point(facts.name, load, tuple(complete or here))

    def __repr__(self) -> str:
        from llmlab.bench.page import text

        return text(self)

    def _repr_html_(self) -> str:
        from llmlab.bench.page import html

        return html(self)
