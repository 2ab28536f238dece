"""Which engine to take. Every reason is a figure of this run; when the other would be right is said with its figure.

This file must not know pages or engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmlab.bench.result import Bench
from llmlab.report.criteria import Criterion


@dataclass(frozen=True, slots=True)
class Choice:
    """`engine` None: this run does not decide. `conditions`: when another engine would be the choice."""

    engine: str | None
    sentence: str
    reasons: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        lines = [self.sentence, *(f"  because {reason}" for reason in self.reasons)]
        return "\n".join([*lines, *(f"  but {condition}" for condition in self.conditions)])


def choice_of(result: Bench, criteria: Sequence[Criterion]) -> Choice:
    """The engine that is ahead in the first criterion that tells engines apart: goodput where limits were given, else
    throughput, then what is felt by one user, then memory, and so on.
    """
    names = [facts.name for facts in result.engines]
    if len(names) < 2:
        return _alone(names[0], criteria)
    if result.slo and criteria and not any(criteria[0].values.values()):
        return Choice(
            None,
            f"No engine met {result.slo} at any load of this run: none can be recommended for these limits.",
            conditions=tuple(_all_figures(names, criteria[1:4])),
        )
    for criterion in criteria:
        known = [name for name in names if criterion.values.get(name) is not None]
        leaders = [name for name in known if all(criterion.better(name, other) for other in known if other != name)]
        if leaders and len(known) == len(names):
            return _for(leaders[0], criterion, names, criteria)
    return Choice(None, "This run cannot tell these engines apart: no figure differs by more than its spread.")


def _for(winner: str, decided: Criterion, names: Sequence[str], criteria: Sequence[Criterion]) -> Choice:
    reasons, conditions = [], []
    for other in (name for name in names if name != winner):
        ordered = [decided, *(c for c in criteria if c is not decided)]
        reasons += [
            f"{c.name}: {c.shown[winner]}, {other} {c.shown[other]}" for c in ordered if c.better(winner, other)
        ]
        against = [c for c in criteria if c.better(other, winner)]
        conditions += [f"{other}, if {c.when}: {c.name} {c.shown[other]}, {winner} {c.shown[winner]}" for c in against]
        if not against:
            conditions.append(f"no figure of this run speaks for {other}")
    why = "the first figure that tells them apart" if decided is not criteria[0] else "what this run was about"
    return Choice(
        winner,
        f"Take {winner}. {decided.name[0].upper()}{decided.name[1:]} decided: {why}.",
        tuple(reasons),
        tuple(conditions),
    )


def _alone(name: str, criteria: Sequence[Criterion]) -> Choice:
    return Choice(
        None,
        f"Only {name} was measured: there is nothing to choose. What it does:",
        tuple(_all_figures([name], criteria)),
    )


def _all_figures(names: Sequence[str], criteria: Sequence[Criterion]) -> Iterator[str]:
    for criterion in criteria:
        told = ", ".join(f"{name} {criterion.shown[name]}" for name in names if name in criterion.shown)
        if told:
            yield f"{criterion.name}: {told}"
