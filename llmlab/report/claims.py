"""Rows of a widely read comparison of vLLM with Ollama (llama.cpp inside) that a run settles, each with its figure.

The rows are data: datasets/claims/claims.json. A row that this run says nothing about is not listed.
This file must not know pages or engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from llmlab.bench.result import Bench, EngineFacts, Point, best_point
from llmlab.cards import bytes_text, seconds_text
from llmlab.quality import Perplexity
from llmlab.report.load_times import LoadTimes
from llmlab.shipped import shipped

Verdict = Literal["holds here", "does not hold here", "measured"]
Kind = Literal["vllm", "llamacpp"]
KINDS: tuple[Kind, ...] = ("vllm", "llamacpp")
_GB = 1_000_000_000
SLOW_S = 5.0  # "seconds to initialise" against "second-level"


class Claim(msgspec.Struct, frozen=True):
    """One row: what is claimed about either engine."""

    row: int
    topic: str
    vllm: str
    llamacpp: str


@dataclass(frozen=True, slots=True)
class Settled:
    """A claim about one engine, and what this run says of it."""

    claim: Claim
    about: Kind
    verdict: Verdict
    figure: str

    @property
    def text(self) -> str:
        return getattr(self.claim, self.about)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules below look at."""

    result: Bench
    load_times: Mapping[str, LoadTimes]
    perplexities: Mapping[str, Perplexity]
    cost: Mapping[str, float]
    currency: str

    def of(self, engine: str) -> list[EngineFacts]:
        """The measured engines of one kind."""
        return [facts for facts in self.result.engines if facts.engine == engine]

    def best(self, facts: EngineFacts) -> Point | None:
        """Where it wrote most tokens a second."""
        return best_point(self.result.complete_points_of(facts.name), lambda p: p.throughput_tps)


Finding = tuple[Kind, Verdict, str]


def settled(evidence: Evidence) -> tuple[Settled, ...]:
    """The rows that this run settles, in the order of the comparison."""
    claims = msgspec.json.decode(shipped("claims/claims.json").read_bytes(), type=list[Claim])
    return tuple(Settled(claim, *finding) for claim in claims for finding in _RULES[claim.row](evidence))


def _batching(evidence: Evidence) -> Iterator[Finding]:
    for kind in KINDS:
        for facts in evidence.of(kind):
            points = evidence.result.complete_points_of(facts.name)
            sizes = [size for p in points if (size := p.median(lambda m: m.max_batch_size)) is not None]
            if not sizes or max(sizes) < 2:
                continue
            speeds = [p.throughput_tps for p in points if p.throughput_tps]
            grown = (
                f"; {speeds[0]:.0f} tok/s at load {points[0].load:g}, {max(speeds):.0f} at most"
                if len(speeds) > 1
                else ""
            )
            verdict: Verdict = "holds here" if kind == "vllm" else "does not hold here"
            yield kind, verdict, f"{facts.name} ran up to {max(sizes):.0f} requests in one step{grown}"


def _warm_start(evidence: Evidence) -> Iterator[Finding]:
    for kind in KINDS:
        for facts in evidence.of(kind):
            times = evidence.load_times.get(facts.name)
            if times and times.warm_s is not None:
                told = f"{facts.name} was ready after {seconds_text(times.warm_s)}"
                cold = f", {seconds_text(times.cold_s)} with its weights on the disk only" if times.cold_s else ""
                yield kind, _verdict(times.warm_s >= SLOW_S if kind == "vllm" else times.warm_s < SLOW_S), told + cold


def _quants(evidence: Evidence) -> Iterator[Finding]:
    quants = [facts for facts in evidence.of("llamacpp") if facts.quant]
    if len({facts.quant for facts in quants}) < 2:
        return
    told = []
    for facts in quants:
        point, surprise = evidence.best(facts), evidence.perplexities.get(facts.name)
        speed = f"{point.throughput_tps:.0f} tok/s" if point and point.throughput_tps else None
        parts = (bytes_text(facts.weights_bytes), speed, f"perplexity {float(surprise):.1f}" if surprise else None)
        told.append(f"{facts.quant} {', '.join(part for part in parts if part)}")
    yield "llamacpp", "measured", "; ".join(told)


def _gpu_need(evidence: Evidence) -> Iterator[Finding]:
    for kind in KINDS:
        for facts in evidence.of(kind):
            point = evidence.best(facts)
            if point and point.throughput_tps and (facts.device or "").lower().startswith("cpu"):
                verdict: Verdict = "does not hold here" if kind == "vllm" else "holds here"
                yield kind, verdict, f"{facts.name} ran on a CPU: {point.throughput_tps:.0f} tok/s"


def _memory(evidence: Evidence) -> Iterator[Finding]:
    for kind in KINDS:
        for facts in evidence.of(kind):
            point = evidence.best(facts)
            peak = point.median(lambda m: m.rss_peak_bytes) if point else None
            if peak is not None:
                yield (
                    kind,
                    _verdict(peak > 16 * _GB if kind == "vllm" else 8 * _GB <= peak <= 16 * _GB),
                    f"{facts.name}: {bytes_text(peak)} at most, with {facts.model}",
                )


def _throughput(evidence: Evidence) -> Iterator[Finding]:
    for kind in KINDS:
        for facts in evidence.of(kind):
            point = evidence.best(facts)
            if point and point.throughput_tps:
                told = f"{facts.name}: {point.throughput_tps:.0f} tok/s at load {point.load:g}, with {facts.model}"
                is_claimed = point.throughput_tps >= 1000 if kind == "vllm" else 20 <= point.throughput_tps <= 50
                yield kind, _verdict(is_claimed), told


def _cost(evidence: Evidence) -> Iterator[Finding]:
    for kind in KINDS:
        for facts in evidence.of(kind):
            if facts.name in evidence.cost:
                cost = f"{evidence.cost[facts.name]:.3g} {evidence.currency}".strip()
                yield kind, "measured", f"{facts.name}: {cost} per million tokens"


def _verdict(is_claimed: bool) -> Verdict:
    return "holds here" if is_claimed else "does not hold here"


_RULES: dict[int, Callable[[Evidence], Iterator[Finding]]] = {
    7: _batching,
    13: _warm_start,
    17: _quants,
    24: _gpu_need,
    25: _memory,
    26: _throughput,
    27: _cost,
}


def rows_of(claims: Sequence[Settled]) -> list[tuple[str, str, str, str]]:
    """As a table: number and topic, the claim, the verdict, the figure."""
    who = {"vllm": "vLLM", "llamacpp": "llama.cpp"}
    return [(f"{s.claim.row} {s.claim.topic}", f"{who[s.about]}: {s.text}", s.verdict, s.figure) for s in claims]
