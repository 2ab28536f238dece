"""The limits a request has to meet to count as good: TTFT, TPOT, E2E, in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmlab.errors import RequestError, unknown

_NAMES = ("ttft", "tpot", "e2e")


@dataclass(frozen=True, slots=True)
class Slo:
    """None: no limit."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    @classmethod
    def of(cls, limits: Slo | Mapping[str, float] | str | None) -> Slo:
        """From a dict or a text, both in seconds.

        >>> Slo.of("ttft=1,tpot=0.1")
        Slo(ttft_s=1.0, tpot_s=0.1, e2e_s=None)

        Raises: RequestError for an unknown name, or a limit that is not above 0.
        """
        if isinstance(limits, Slo):
            return limits
        if isinstance(limits, str):
            limits = {name: _seconds(name, text) for name, text in pairs_of(limits)}
        values = {}
        for name, limit in (limits or {}).items():
            short = name.removesuffix("_s")
            if short not in _NAMES:
                raise RequestError(unknown("limit", name, _NAMES))
            if not limit > 0:
                raise RequestError(f"The limit {name} is {limit!r}; it must be above 0 (seconds).")
            values[f"{short}_s"] = float(limit)
        return cls(**values)

    @property
    def limits(self) -> dict[str, float]:
        """As keyword arguments of metrics.goodput_rps."""
        known = {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "e2e_s": self.e2e_s}
        return {name: limit for name, limit in known.items() if limit is not None}

    def __bool__(self) -> bool:
        return bool(self.limits)

    def __str__(self) -> str:
        return ", ".join(f"{name.removesuffix('_s').upper()} ≤ {limit:g} s" for name, limit in self.limits.items())


def pairs_of(text: str) -> Iterator[tuple[str, str]]:
    """Name and value of each NAME=value, with commas between them.

    >>> list(pairs_of("ttft=1, tpot=0.1"))
    [('ttft', '1'), ('tpot', '0.1')]
    """
    for part in text.split(","):
        if part.strip():
            name, _, value = part.partition("=")
            yield name.strip(), value


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"The limit {name} is {text!r}; give seconds: {name}=0.5.") from None
