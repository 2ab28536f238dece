"""Data sheets of the workloads: what is in them, counted. `python -m llmlab.bench.sheets` writes them anew.

This file must not know engines.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from llmlab.bench.plan import Talk, plan_of
from llmlab.bench.workloads import PromptKind, Workload, workloads
from llmlab.shipped import shipped

FOLDER = shipped("workloads")
_ARRIVALS = {
    "burst": "all in the same moment",
    "poisson": "at random, exponential gaps, whatever the engine does (open loop)",
    "closed": "each user's next request after the last answer (closed loop)",
}


def sheet(workload: Workload) -> str:
    """The data sheet, as Markdown: of the plan with seed 0 at the workload's own load."""
    plan = plan_of(workload, load=workload.load, seed=0)
    arrivals = _ARRIVALS[workload.arrivals.kind]
    if workload.arrivals.think_s:
        arrivals += f", and {workload.arrivals.think_s:g} s to think between two turns"
    new = [len(_words(talk, number)) for talk in plan.talks for number in range(len(talk.turns))]
    answers = [turn.num_tokens for talk in plan.talks for turn in talk.turns]
    rows = [
        ("requests", str(plan.num_requests)),
        ("load", f"{workload.load:g} {workload.load_unit}"),
        ("arrivals", arrivals),
        ("prompts", "; ".join(map(_kind, workload.prompts))),
        ("words sent by a user in a turn, system prompt included", _range(new)),
        ("answer", f"{_range(answers)} tokens, fixed in advance: the end-of-text token does not end it, greedy"),
        ("distinct prompts", str(len({(talk.system, talk.turns) for talk in plan.talks}))),
        ("languages", "English"),
        ("people", "none: no text is by or about a real person"),
        ("origin and licence", "written for llmlab, Apache-2.0; texts in `datasets/texts/`"),
        ("made by", f"`plan_of(workload({workload.name!r}), load={workload.load:g}, seed=0)` (llmlab.bench.plan)"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"# {workload.title} (`{workload.name}`)\n\n{workload.about}\n\n| | with seed 0 |\n|---|---|\n{table}\n"


def _kind(kind: PromptKind) -> str:
    turns = f"{kind.turns} turns" if kind.turns > 1 else None
    return ", ".join(part for part in (kind.kind, kind.system, turns) if part)


def _words(talk: Talk, number: int) -> list[str]:
    return f"{talk.system if talk.system and not number else ''} {talk.turns[number].text}".split()


def _range(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)} (median {statistics.median(values):g})"


def main() -> None:
    for name, workload in workloads().items():
        (FOLDER / f"{name}.md").write_text(sheet(workload), encoding="utf-8")
        print(FOLDER / f"{name}.md")


if __name__ == "__main__":
    main()
