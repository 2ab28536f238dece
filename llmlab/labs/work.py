"""A student's work on a lab: start, predict, check, hint, report. One notebook and one record, in a folder.

This file must not know how a question is checked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.errors import LlmlabError, unknown
from llmlab.labs import master
from llmlab.labs.description import CheckFailed, Lab, Prediction, Question
from llmlab.labs.figures import keep_figures, own_figures
from llmlab.labs.finding import all_labs, find_lab
from llmlab.labs.judging import Judge
from llmlab.labs.record import SUFFIX, Event, Record, shown_time
from llmlab.labs.recordings import recorded_elsewhere
from llmlab.labs.reflection import to_be_read
from llmlab.labs.results import Results, Said
from llmlab.labs.sentences import say
from llmlab.language import tr

# A guess of something measured is close within this share; something counted must be exact.
CLOSE = 0.20


@dataclass(frozen=True, slots=True)
class Work:
    lab: Lab
    folder: Path

    @property
    def notebook(self) -> Path:
        return self.folder / f"{self.lab.name}.ipynb"

    @property
    def record(self) -> Record:
        return Record(self.folder / f"{self.lab.name}{SUFFIX}")

    def question(self, question_id: str) -> Question:
        """Raises: LlmlabError with the nearest one."""
        try:
            return self.lab.question(question_id.upper())
        except KeyError:
            known = [question.question_id for question in self.lab.questions]
            raise LlmlabError(unknown("question", question_id, known)) from None


_current: Work | None = None


def current_work() -> Work:
    """What start() named last; else the one lab whose record is in this folder.

    Raises: LlmlabError when there is none, or several.
    """
    if _current is not None:
        return _current
    here = Path.cwd()
    found = [lab for lab in all_labs() if (here / f"{lab.name}{SUFFIX}").exists()]
    if not found:
        raise LlmlabError(say("not_started", folder=here))
    if len(found) > 1:
        raise LlmlabError(say("several", folder=here, labs=", ".join(lab.lab_id for lab in found)))
    return Work(found[0], here)


def start(lab_id: str, folder: str | Path = ".") -> Said:
    """Copy the student's notebook of a lab into a folder, and make it the lab that the other calls mean.

    A notebook that is there is never overwritten. Raises: LlmlabError for an unknown lab.
    """
    global _current
    work = Work(find_lab(lab_id), Path(folder).expanduser().resolve())
    work.folder.mkdir(parents=True, exist_ok=True)
    is_new = not work.notebook.exists()
    if is_new:
        text = (work.lab.folder / "lab.py").read_text(encoding="utf-8")
        with work.notebook.open("x", encoding="utf-8") as file:
            file.write(master.notebook(master.without_solutions(text)))
    if not work.record.path.exists():
        work.record.add("start", lab=work.lab.name)
    _current = work
    return Said(say("started" if is_new else "kept", notebook=work.notebook))


def predict(question: str, value: Any, *, names: Mapping[str, Any] | None = None) -> Said:
    """Write a prediction down, with its time, before the cell that shows the truth runs. A second one is kept as well.

    `names`: see check(). Raises: LlmlabError for a question that asks for none.
    """
    work = current_work()
    asked = work.question(question)
    question_id = asked.question_id
    if asked.prediction is None:
        known = ", ".join(work.lab.predictions)
        raise LlmlabError(say("no_prediction_asked", question=question_id, known=known))
    before = work.record.predictions(question_id)
    has_run = asked.prediction.variable in _names(names)
    line = work.record.add("predict", question=question_id, value=_plain(value), has_run=has_run)
    values = {"question": question_id, "value": line["value"], "at": shown_time(line["at"])}
    if not work.record.predictions(question_id)[-1]["in_time"]:
        return Said(say("predicted_late", **values))
    if before:
        return Said(say("predicted_again", **values, before=before[-1]["value"]))
    return Said(say("predicted", **values))


def check(question: str | None = None, *, names: Mapping[str, Any] | None = None, seed: int = 0) -> Results:
    """Check a question, or all: points, reasons and pictures; and how the predictions fared.

    `names`: where to find what was written; the variables of the notebook when nothing is given.
    """
    work = current_work()
    asked = [work.question(question)] if question is not None else list(work.lab.questions)
    mine = _names(names)
    figures = keep_figures(work.record, own_figures(work.lab, mine))
    results = Judge(work.lab, seed=seed, figures=figures).names(mine, asked)
    for one in asked:
        if found := results.of(one.question_id):
            work.record.add("check", question=one.question_id, checks=[result.values() for result in found])
    notes = [note for one in asked for note in _notes(work, one, results, mine, is_alone=question is not None)]
    notes += to_be_read(results, asked, figures)
    return Results(results.lab_title, results.checks, tuple(notes), results.hidden_points, results.output)


def hint(question: str) -> Said:
    """The next hint to a question: where to look, the idea, the critical line. Each is counted in the report.

    Raises: LlmlabError for a question without hints.
    """
    work = current_work()
    asked = work.question(question)
    if not asked.hints:
        known = ", ".join(one.question_id for one in work.lab.questions if one.hints)
        raise LlmlabError(say("no_hints", question=asked.question_id, known=known))
    taken = len(work.record.events("hint", asked.question_id))
    number, count = min(taken + 1, len(asked.hints)), len(asked.hints)
    if taken < count:
        work.record.add("hint", question=asked.question_id, number=number)
    text = say("hint", question=asked.question_id, number=number, count=count, text=tr(asked.hints[number - 1]))
    more = say("more_hints", question=asked.question_id) if number < count else say("last_hint")
    return Said(f"{text}\n{more}")


def report() -> Path:
    """Write one HTML page with predictions, results, hints used and pictures, beside the notebook; its path."""
    from llmlab.labs.report_page import page

    work = current_work()
    path = work.folder / f"{work.lab.name}.report.html"
    path.write_text(page(work.lab, work.record), encoding="utf-8")
    return path


def _names(names: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(vars(sys.modules["__main__"]) if names is None else names)


def _notes(
    work: Work, question: Question, results: Results, names: Mapping[str, Any], *, is_alone: bool
) -> Sequence[str]:
    """What a question reveals and observes beside its checks. Of all questions at once: only what can be shown."""
    notes = []
    found = results.of(question.question_id)
    is_right = all(result.passed for result in found)
    if question.prediction is not None and is_right:
        note = _reveal(work.record, question.question_id, question.prediction, names)
        if is_alone or note.is_revealed:
            notes.append(note.text)
    if question.observe is not None and is_right:
        variable = "" if question.prediction is None else question.prediction.variable
        try:
            text = question.observe(names)
            is_reported = recorded_elsewhere(names.get(variable))
            values = {"question": question.question_id, "text": text}
            notes.append(say("observed_reported", **values) if is_reported else f"{question.question_id}: {text}")
        except CheckFailed as error:
            notes.append(f"{question.question_id}: {error}")
    return notes


@dataclass(frozen=True, slots=True)
class _Note:
    text: str
    is_revealed: bool = False


def _reveal(record: Record, question_id: str, prediction: Prediction, names: Mapping[str, Any]) -> _Note:
    """The truth beside the prediction. Without a prediction it is not told."""
    made = record.predictions(question_id)
    if not made:
        return _Note(say("predict_first", question=question_id, asks=tr(prediction.asks)))
    if prediction.variable not in names:
        return _Note(say("run_first", question=question_id, variable=prediction.variable))
    truth = _plain(prediction.truth(names[prediction.variable]))
    record.add("reveal", question=question_id, truth=truth, number=len(made))
    value = _counted(made)["value"]
    sign = "✓" if is_close(value, truth) else "≠"
    key = "revealed_reported" if recorded_elsewhere(names[prediction.variable]) else "revealed"
    return _Note(
        f"{sign} " + say(key, question=question_id, value=value, truth=truth, because=tr(prediction.because)),
        True,
    )


def _counted(made: Sequence[Event]) -> Event:
    """The last one before the truth was shown; else the last."""
    in_time = [one for one in made if one["in_time"]]
    return (in_time or list(made))[-1]


def is_close(value: Any, truth: Any) -> bool:
    """Counted things must be equal, measured ones within 20 %.

    >>> is_close([2, 5], [2, 5]), is_close(7, 8), is_close(8.5, 10.0)
    (True, False, True)
    """
    if isinstance(truth, list):
        same_length = isinstance(value, list) and len(value) == len(truth)
        return same_length and all(is_close(v, t) for v, t in zip(value, truth, strict=True))
    if isinstance(truth, float) and isinstance(value, int | float):
        return abs(value - truth) <= CLOSE * abs(truth)
    return bool(value == truth)


def _plain(value: Any) -> Any:
    """As a record keeps it: numbers, texts and lists."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        return value.item()
    return value if isinstance(value, int | float | str | None) else str(value)
