"""Checking source texts in this process, without the start of another one: for code that is known to end."""

from __future__ import annotations

import ast
from pathlib import Path

from llmlab.labs.description import Lab
from llmlab.labs.finding import LABS
from llmlab.labs.judge import judged
from llmlab.labs.master import definitions, with_solutions, without_solutions
from llmlab.labs.order import Order
from llmlab.labs.submission import from_source

# Without a look at what is in them: that costs time whenever tests are collected.
LAB_IDS = sorted(path.parent.name[:5] for path in LABS.glob("lab[0-9][0-9]_*/checks.py"))
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


def mistakes_of(lab: Lab) -> list[Path]:
    """The wrong solutions of a lab; each stands below its reference."""
    return sorted((WRONG / lab.lab_id).glob("*.py"))


def mistake_of(lab: Lab, name: str) -> Path:
    """Raises: StopIteration when the lab knows no such mistake."""
    return next(path for path in mistakes_of(lab) if path.stem == name)


def with_mistake(lab: Lab, path: Path) -> str:
    return f"{source_of(lab, 'reference.py')}\n\n{path.read_text(encoding='utf-8')}"


def assert_mistake_is_told(lab: Lab, path: Path, seeds: tuple[int, ...]) -> None:
    """It keeps LEFT raw points, and the first reason is SAYS, where {} stands for anything."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    wanted = {node.targets[0].id: ast.literal_eval(node.value) for node in assigned}  # type: ignore[attr-defined]
    before, _, after = wanted["SAYS"].partition("{}")
    for seed in seeds:
        reasons = reasons_of(lab, with_mistake(lab, path), seed)
        assert raw_points(lab, reasons) == wanted["LEFT"], reasons
        first = next(f"{name}: {reason}" for name, reason in reasons.items() if reason)
        assert first.startswith(before) and after in first, first


def assert_made_from_master(lab: Lab) -> None:
    """starter.py and reference.py hold the definitions of lab.py, and a student's notebook no solution."""
    master = source_of(lab, "lab.py")
    for made, file in ((without_solutions(master), "starter.py"), (with_solutions(master), "reference.py")):
        ours = ast.parse(source_of(lab, file)).body[1:]  # without its docstring
        assert [ast.dump(node) for node in ours] == [ast.dump(node) for node in ast.parse(definitions(made)).body]
    assert "SOLUTION" not in without_solutions(master)
