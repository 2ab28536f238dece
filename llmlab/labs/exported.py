"""One check of a lab as a test of another grader: what the cells that building writes for otter and nbgrader call.

The check runs as it does in the lab, in a process of its own with limits. This file must not know either grader.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llmlab.errors import LlmlabError
from llmlab.labs.description import Lab, Question, withheld
from llmlab.labs.figures import Own, own_figures, recorded_figures
from llmlab.labs.finding import find_lab, load_lab
from llmlab.labs.judging import Judge
from llmlab.labs.record import SUFFIX, Record
from llmlab.labs.reflection import to_be_read
from llmlab.labs.results import Results
from llmlab.labs.submission import from_names

# What was checked last, and its results: the checks of a question come one after another.
_last: tuple[tuple[Path, str, bytes | None], Results] | None = None


def check(lab_id: str, question_id: str, name: str, names: Mapping[str, Any], hidden_in: str = "") -> None:
    """Run one check of a question on what a notebook defined. Nothing is returned: it passed.

    Figures of a run are looked for in its variables, and in a record beside it. `hidden_in`: a file with the hidden
    checks, where the installation has none. Raises: AssertionError with the reason.
    """
    lab = find_lab(lab_id)
    is_hidden = _check_named(lab.question(question_id), name).is_hidden
    if is_hidden and not has_hidden_checks(lab):
        if not hidden_in:
            raise hidden_checks_missing(lab)
        lab = _unpacked(Path(hidden_in).resolve())
    question = lab.question(question_id)
    figures: list[Own] = []
    if question.is_reflection:
        figures = [*recorded_figures(Record(Path(f"{lab.name}{SUFFIX}"))), *own_figures(lab, names)]
    results = _results(lab, question, dict(names), is_hidden, figures)
    [found] = [one for one in results.checks if one.name == name]
    if not found.passed:
        raise AssertionError(found.reason)
    for note in to_be_read(results, [question], figures):
        print(note)


def has_hidden_checks(lab: Lab) -> bool:
    return not any(one.run is withheld for question in lab.questions for one in question.checks)


def hidden_checks_missing(lab: Lab) -> LlmlabError:
    return LlmlabError(
        f"The hidden checks of {lab.lab_id} are not in this installation. Grade in a checkout of the repository."
    )


def _check_named(question: Question, name: str) -> Any:
    return {one.name: one for one in question.checks}[name]


def _results(lab: Lab, question: Question, names: dict[str, Any], with_hidden: bool, figures: Sequence[Own]) -> Results:
    """Of all checks of a question; the same for the same names and figures."""
    global _last
    key = (lab.folder, f"{question.question_id} {with_hidden} {figures}", _pickled(question, names))
    if _last is None or key[2] is None or _last[0] != key:
        _last = (key, Judge(lab, with_hidden=with_hidden, figures=figures).names(names, [question]))
    return _last[1]


def _pickled(question: Question, names: dict[str, Any]) -> bytes | None:
    try:
        return from_names(names, question.needs).pickled
    except Exception:  # the judge says why
        return None


@cache
def _unpacked(file: Path) -> Lab:
    folder = Path(tempfile.mkdtemp(prefix="llmlab-checks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(file) as packed:
        packed.extractall(folder)
    return load_lab(next(folder.glob("lab*")))
