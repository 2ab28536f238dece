"""A folder of submissions graded: in parallel, each kept on the disk as soon as it is done, then one table.

Each submission has FOLDER/STUDENT.json with all that was found and STUDENT.html to read; a run that was cut off goes on
where it was. This file must not know how a question is checked.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmlab.engines.threads import default_threads
from llmlab.errors import LlmlabError
from llmlab.labs.description import Lab
from llmlab.labs.exported import has_hidden_checks, hidden_checks_missing
from llmlab.labs.figures import recorded_figures
from llmlab.labs.files import used_by_checks
from llmlab.labs.finding import all_labs, find_lab
from llmlab.labs.graded_page import page
from llmlab.labs.handed_in import HandedIn, read
from llmlab.labs.judging import Judge
from llmlab.labs.record import SUFFIX, Record
from llmlab.labs.reflection import to_be_read
from llmlab.labs.report_page import predicted_in_time
from llmlab.labs.results import Results
from llmlab.labs.scores import score_for
from llmlab.labs.sentences import say
from llmlab.labs.submissions import Handin, lab_meant, submissions_in

# What was found about a submission, as it is kept on the disk.
Graded = dict[str, Any]
LONGEST_NAME = 200  # bytes; a file system allows 255


@dataclass(frozen=True, slots=True)
class Grading:
    lab: Lab
    table: Path
    graded: tuple[Graded, ...]
    # How many of them an earlier run had done.
    num_before: int

    @property
    def is_complete(self) -> bool:
        return all(one["score"] is not None for one in self.graded)

    def __repr__(self) -> str:
        return (
            f"{len(self.graded)} submissions of {self.lab.lab_id} are in {self.table}, {self.num_before} of them from "
            f"an earlier run; pages: {folder_of(self.table)}"
        )


def grade(
    folder: Path,
    table: Path,
    *,
    lab_id: str | None = None,
    jobs: int | None = None,
    seed: int = 0,
    tell: Callable[[str], object] = lambda line: None,
) -> Grading:
    """Grade what is new in a folder of submissions, and write the table of all.

    `jobs`: how many at a time, as many as there are cores when nothing is given. Raises: LlmlabError.
    """
    lab = find_lab(lab_id or lab_meant(folder, [lab.lab_id for lab in all_labs()]))
    if not has_hidden_checks(lab):
        raise hidden_checks_missing(lab)
    if find_spec("PIL") is None:
        raise LlmlabError("The pages need pillow for their pictures. Type `pip install 'llmlab-kit[views]'`.")
    handins, kept = submissions_in(folder, lab), _Kept(lab, table, seed)
    before = {handin.student: found for handin in handins if (found := kept.found(handin)) is not None}
    done = dict(before)
    lock = threading.Lock()

    def one(handin: Handin) -> None:
        graded = _graded(lab, handin, seed, kept)
        with lock:
            done[handin.student] = graded
            shown = "not scored" if graded["score"] is None else f"{graded['score']:.1f}"
            tell(f"{len(done)} of {len(handins)}  {handin.student}: {shown}")
            _write_table(table, lab, [done[h.student] for h in handins if h.student in done])

    with ThreadPoolExecutor(jobs or default_threads()) as pool:
        list(pool.map(one, [handin for handin in handins if handin.student not in before]))
    graded = tuple(done[handin.student] for handin in handins)
    _write_table(table, lab, graded)
    return Grading(lab, table, graded, len(before))


def _graded(lab: Lab, handin: Handin, seed: int, kept: _Kept) -> Graded:
    try:
        graded, results, source = _checked(lab, handin, seed)
        kept.keep(handin, graded, _page(lab, graded, results, source))
    except Exception as error:  # of ours: the others are graded, and this one when it is repaired
        reason = f"grading itself failed ({type(error).__name__}: {error}); the next run tries again"
        return {"student": handin.student, "file": _name(handin), "score": None, "notes": [reason], "checks": []}
    return graded


def _checked(lab: Lab, handin: Handin, seed: int) -> tuple[Graded, Results, str]:
    """What was found, and the source that was checked."""
    code = HandedIn() if handin.file is None else read(handin.file)
    source, twice = code.source_for(sorted({name for question in lab.questions for name in question.needs}))
    figures = [] if handin.record is None else recorded_figures(Record(handin.record))
    judge = Judge(lab, seed=seed, with_hidden=True, figures=figures)
    results = judge.source(source) if source.strip() else judge.names({}, lab.questions)
    earned = {q.question_id: sum(check.earned for check in results.of(q.question_id)) for q in lab.questions}
    predicted, about_record = _predicted(lab, handin.record)
    score = score_for(lab, predicted, earned, with_hidden=True)
    graded = {
        "student": handin.student,
        "file": _name(handin),
        "lab": lab.lab_id,
        "score": round(score.total, 2),
        "predictions": round(score.predictions, 2),
        "reflection": score.reflection,
        "code": round(score.raw, 2),
        "notes": [
            *handin.notes,
            *code.notes,
            *twice,
            *about_record,
            *to_be_read(results, lab.questions, figures),
        ],
        "checks": [{"question": c.question_id, **c.values(), "earned": c.earned} for c in results.checks],
        "output": results.output,
    }
    return graded, results, source


def _predicted(lab: Lab, record: Path | None) -> tuple[list[str], list[str]]:
    """Questions predicted in time, and what is to be said about the record."""
    if record is None:
        return [], [say("no_record", file=f"{lab.name}{SUFFIX}")] if lab.predictions else []
    try:
        return predicted_in_time(lab, Record(record)), []
    except Exception as error:  # anything may be in it
        return [], [say("file_unreadable", file=record.name, error=f"{type(error).__name__}: {error}")]


def _page(lab: Lab, graded: Graded, results: Results, source: str) -> str:
    try:
        return page(lab, graded, results, source)
    except Exception:  # a picture of values that nobody thought of
        plain = tuple(replace(check, picture=None) for check in results.checks)
        return page(lab, graded, replace(results, checks=plain), source)


def _name(handin: Handin) -> str:
    return "" if handin.file is None else handin.file.name


class _Kept:
    """Results on the disk: there when they are whole, and only for the same submission, lab and seed."""

    def __init__(self, lab: Lab, table: Path, seed: int) -> None:
        self._folder = folder_of(table)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lab_digest = hashlib.sha256(f"{lab.name} {seed}".encode())
        for path in (lab.folder / "checks.py", *used_by_checks(lab.folder)):
            self._lab_digest.update(path.read_bytes())

    def found(self, handin: Handin) -> Graded | None:
        try:
            graded = json.loads(self._path(handin, ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return graded if graded.get("digest") == self._digest(handin) else None

    def keep(self, handin: Handin, graded: Graded, html: str) -> None:
        _write_whole(self._path(handin, ".html"), html)
        _write_whole(self._path(handin, ".json"), json.dumps({**graded, "digest": self._digest(handin)}, indent=1))

    def _path(self, handin: Handin, suffix: str) -> Path:
        name = handin.student
        if len(os.fsencode(name)) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME // 4]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
        return self._folder / f"{name}{suffix}"

    def _digest(self, handin: Handin) -> str:
        found = self._lab_digest.copy()
        found.update(handin.digest().encode())
        return found.hexdigest()


def _write_table(table: Path, lab: Lab, graded: Iterable[Graded]) -> None:
    """A row for each student; of each question its points, and why some are missing."""
    questions = [question for question in lab.questions if question.checks]
    points = {q.question_id: sum(check.points for check in q.checks) for q in questions}
    head = ["student", "file", "score", "code of 90", "predictions of 6", "reflection of 4", "notes"]
    head += [name for q, most in points.items() for name in (f"{q} of {most}", f"{q} why")]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    for one in graded:
        values = [one.get(name) for name in ("student", "file", "score", "code", "predictions", "reflection")]
        writer.writerow(map(_cell, [*values, " ".join(one["notes"]), *_of_questions(one, points)]))
    _write_whole(table, text.getvalue())


def _of_questions(graded: Graded, points: Mapping[str, int]) -> Iterator[object]:
    for question in points:
        checks = [check for check in graded["checks"] if check["question"] == question]
        yield sum(check["earned"] for check in checks) if checks else None
        yield " | ".join(f"{check['name']}: {check['reason']}" for check in checks if check["reason"])


def _cell(value: object) -> object:
    """A spreadsheet takes a text that begins with = for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _write_whole(path: Path, text: str) -> None:
    """All of it or nothing."""
    half = path.with_name(f".{path.name}.half")
    with half.open("wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def folder_of(table: Path) -> Path:
    """Where the pages and results of single students are."""
    return table.with_name(f"{table.stem}.students")
