"""Checking source texts in this process, without the start of another one: for code that is known to end."""

from __future__ import annotations

from pathlib import Path

from llmlab.labs.description import Lab
from llmlab.labs.judge import judged
from llmlab.labs.order import Order
from llmlab.labs.submission import from_source

WRONG = Path(__file__).resolve().parent / "wrong"


def reasons_of(lab: Lab, source: str, seed: int = 0) -> dict[str, str]:
    """`Q3 free` -> why it failed, "" when it passed; hidden checks too."""
    found = {}
    for question in lab.questions:
        for one in judged(Order(lab.folder, question.question_id, from_source(source), seed, with_hidden=True)):
            found[f"{question.question_id} {one['name']}"] = one["reason"]
    return found


def raw_points(lab: Lab, reasons: dict[str, str]) -> int:
    """Of what passed, without the reflection."""
    return sum(
        check.points
        for question in lab.questions
        if not question.is_reflection
        for check in question.checks
        if not reasons[f"{question.question_id} {check.name}"]
    )


def source_of(lab: Lab, name: str) -> str:
    return (lab.folder / name).read_text(encoding="utf-8")
