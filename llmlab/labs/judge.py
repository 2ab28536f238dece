"""The process that checks one question: `python -m llmlab.labs.judge FD` with an Order on stdin.

It tells what it found on the pipe FD, one JSON line at a time, so that what was found before a crash is not lost.
Time is watched from outside (judging.py): no signal stops a loop in C. This file must not know notebooks or records.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from llmlab.errors import PartFailed
from llmlab.labs.description import Check, CheckFailed, Lab, Names, Picture, Question
from llmlab.labs.finding import load_lab
from llmlab.labs.order import MEMORY_BYTES, MEMORY_TEXT, Order, missing_text, selected
from llmlab.labs.reflection import FIGURES
from llmlab.labs.sentences import say
from llmlab.labs.submission import Submission, forbidden_base, from_source

HIDDEN_SEED = 1000
MAX_REASON = 2000
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    _end_with_the_judge()
    order: Order = pickle.loads(sys.stdin.buffer.read())
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    pipe = open(fd, "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the process

    def tell(**values: Any) -> None:
        pipe.write(json.dumps(values) + "\n")
        pipe.flush()

    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    checks = selected(load_lab(order.folder).question(order.question_id), order.with_hidden)
    reference_s = _time_of_reference(order.folder, checks, order.seed)
    _limit_memory()
    tell(event="ready", reference_s=reference_s)
    for outcome in judged(order):
        tell(event="check", **outcome)
    tell(event="done")


def judged(order: Order) -> Iterator[dict[str, Any]]:
    """Name, reason ("": passed) and picture of each check, in this very process and without limits."""
    lab = load_lab(order.folder)
    question = lab.question(order.question_id)
    names = _load(lab, question, order)
    for check in selected(question, order.with_hidden):
        reason, picture = names if isinstance(names, tuple) else _judged(lab, question, check, names, order)
        yield {"name": check.name, "reason": reason, "picture": picture}


def _end_with_the_judge() -> None:
    """An endless loop must not outlive the process that watches its time. Only Linux can be told so."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _time_of_reference(folder: Path, checks: list[Check], seed: int) -> float | None:
    """How long the reference takes here and now; None where this installation has none."""
    reference = folder / "reference.py"
    if not reference.exists():
        return None
    names = from_source(reference.read_text(encoding="utf-8")).names()
    start_s = time.perf_counter()
    for check in checks:
        with suppress(CheckFailed):  # whatever it says of the reference, only its time is wanted
            check.run(names, seed)
    return time.perf_counter() - start_s


def _limit_memory() -> None:
    with suppress(OSError, ValueError):  # not every system has one; the memory is watched from outside as well
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def _load(lab: Lab, question: Question, order: Order) -> dict[str, Any] | tuple[str, None]:
    """What the student defined; or the reason why nothing can be checked."""
    names: dict[str, Any] = {}

    def load() -> None:
        names.update(order.submission.names())

    reason, _ = _outcome(load, question.question_id, order.submission)
    if reason:
        return say("not_loaded", error=reason), None
    missing = [name for name in question.needs if name not in names]
    if missing:
        return missing_text(question.question_id, missing), None
    for name in question.needs:
        if module := forbidden_base(names[name], lab.forbidden):
            return say("forbidden", module=module, question=question.question_id), None
    return {**names, FIGURES: order.figures}


def _judged(lab: Lab, question: Question, check: Check, names: Names, order: Order) -> tuple[str, Picture | None]:
    seed = order.seed + (HIDDEN_SEED if check.is_hidden else 0)
    reason, picture = _outcome(partial(check.run, names, seed), question.question_id, order.submission)
    if not reason or reason in [say("not_written", question=one.question_id) for one in lab.questions]:
        return reason, picture
    # Nothing is counted twice against a student: the first broken question is named.
    for earlier_id in question.builds_on:
        for earlier in selected(lab.question(earlier_id), with_hidden=False):
            cause, _ = _outcome(partial(earlier.run, names, order.seed), earlier_id, order.submission)
            if cause:
                return say("fix_first", reason=reason, question=earlier_id, cause=cause), picture
    return reason, picture


def _outcome(run: Callable[[], object], question_id: str, submission: Submission) -> tuple[str, Picture | None]:
    """Why it failed, and a picture; "" when it did not."""
    try:
        run()
    except CheckFailed as error:
        return str(error), error.picture
    except BaseException as error:
        return _reason(error, question_id, submission)[:MAX_REASON], None
    return "", None


def _reason(error: BaseException, question_id: str, submission: Submission) -> str:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    root = chain[-1]
    if isinstance(root, NotImplementedError):
        return say("not_written", question=str(root) if str(root).startswith("Q") else question_id)
    where = _where(root, submission)
    if isinstance(root, MemoryError):
        return say("stopped_memory", question=question_id, limit=MEMORY_TEXT, where=where)
    if isinstance(root, SystemExit):
        return say("called_exit", question=question_id, where=where)
    if isinstance(error, PartFailed):
        return str(error)
    return say("raised", error=f"{type(root).__name__}: {root}", where=where)


def _where(error: BaseException, submission: Submission) -> str:
    """The last line of the student's own on the way to the error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in submission.files]
    if not frames:
        return ""
    last = frames[-1]
    return say("where", function=last.name, line=last.lineno, code=f": {last.line}" if last.line else "")


if __name__ == "__main__":
    main()
