"""The knee of a throughput-latency curve: from which load on an engine gives little more, and takes much longer for it.

This file must not know engines or requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Knee:
    """The load with the most throughput per latency. `place`: where in the sweep it lies; at an end, look further."""

    load: float
    throughput_tps: float
    latency_s: float
    place: Literal["inside", "first", "last"]

    @property
    def sentence(self) -> str:
        """What it means, and what to do when the sweep did not go far enough."""
        at = f"{self.throughput_tps:.0f} tok/s at load {self.load:g}"
        if self.place == "last":
            return f"No knee within this sweep: {at} is its highest load, and still the best. Sweep higher."
        if self.place == "first":
            return f"The knee lies at {at} or below: that is the lowest load of this sweep. Sweep lower."
        return f"The knee lies at {at}: more load gives less for each second of waiting."


def knee_of(points: Sequence[tuple[float, float, float]]) -> Knee | None:
    """Of points (load, tokens/s, median end-to-end seconds), the one with the most "power": throughput / latency.

    None with fewer than three points: two make no curve.

    >>> knee_of([(1, 50, 1.0), (2, 95, 1.1), (4, 120, 2.0), (8, 121, 4.0)]).load
    2

    Source: Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in computer communications",
    ICC 1979: the knee is where throughput over response time has its maximum.
    """
    curve = sorted(point for point in points if point[1] > 0 and point[2] > 0)
    if len(curve) < 3:
        return None
    best = max(range(len(curve)), key=lambda i: curve[i][1] / curve[i][2])
    place: Literal["inside", "first", "last"] = "first" if best == 0 else "last" if best == len(curve) - 1 else "inside"
    return Knee(*curve[best], place)
