"""Each question is checked in a process of its own, with limits: whatever happens there, the other questions go on.

Limits of a question: 3 s and 20 times what the reference takes in the same process, 20 s at most; 1 GiB of memory;
64 kB of output are kept. A submission has 30 s for all questions; when they are used up, each has 3 s left.
This file must not know what is asked.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil

from llmlab.labs.description import Lab, Question
from llmlab.labs.figures import Own
from llmlab.labs.order import MEMORY_BYTES, MEMORY_TEXT, Order, missing_text, selected
from llmlab.labs.results import CheckResult, Results
from llmlab.labs.sentences import say
from llmlab.labs.submission import Submission, forbidden_import, from_names, from_source

START_S = 60.0  # to import, and to time the reference
END_S = 1.0
LEAST_S, MOST_S, TIMES_REFERENCE = 3.0, 20.0, 20
SUBMISSION_S = 30.0
OUTPUT_BYTES = 64_000
_POLL_S = 0.1
_FRAME = re.compile(r'File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>\S+)')


class Judge:
    """Checks the questions of one submission."""

    def __init__(self, lab: Lab, *, seed: int = 0, with_hidden: bool = False, figures: Sequence[Own] = ()) -> None:
        """`figures`: of the student's own runs, as far as they are known."""
        self._lab, self._seed, self._with_hidden, self._figures = lab, seed, with_hidden, tuple(figures)
        self._left_s = SUBMISSION_S
        self.output = ""

    def source(self, text: str, questions: Sequence[Question] | None = None) -> Results:
        """Check a source text: all questions, or these."""
        submission = from_source(text)
        asked = self._lab.questions if questions is None else questions
        return self._results(asked, [c for q in asked for c in self._question(q, submission)])

    def names(self, names: dict[str, Any], questions: Sequence[Question]) -> Results:
        """Check what a notebook has defined."""
        checks: list[CheckResult] = []
        for question in questions:
            missing = [name for name in question.needs if name not in names]
            if missing:
                checks += self._all_fail(question, missing_text(question.question_id, missing))
                continue
            try:
                submission = from_names(names, question.needs)
            except Exception as error:
                reason = say("not_sent", name=", ".join(question.needs), error=f"{type(error).__name__}: {error}")
                checks += self._all_fail(question, reason)
                continue
            checks += self._question(question, submission)
        return self._results(questions, checks)

    def _results(self, questions: Sequence[Question], checks: list[CheckResult]) -> Results:
        hidden = 0 if self._with_hidden else sum(c.points for q in questions for c in q.checks if c.is_hidden)
        return Results(self._lab.title, tuple(checks), hidden_points=hidden, output=self.output)

    def _all_fail(self, question: Question, reason: str) -> list[CheckResult]:
        return [_result(question, check, reason) for check in selected(question, self._with_hidden)]

    def _question(self, question: Question, submission: Submission) -> list[CheckResult]:
        checks = selected(question, self._with_hidden)
        if not checks:
            return []
        if module := forbidden_import(submission, self._lab.forbidden):
            return self._all_fail(question, say("forbidden", module=module, question=question.question_id))
        order = Order(self._lab.folder, question.question_id, submission, self._seed, self._with_hidden, self._figures)
        process = _Process(order, self._left_s)
        process.run()
        self._left_s -= process.took_s
        self.output = (self.output + process.output.decode(errors="replace"))[:OUTPUT_BYTES]
        results = []
        ended = process.ended(question.question_id)
        for check in checks:
            told = process.told.get(check.name)
            if told is not None:
                results.append(_result(question, check, told["reason"], told["picture"]))
            else:  # the one that was under way says why; those after it were not reached
                results.append(_result(question, check, ended))
                ended = say("not_run", question=question.question_id)
        return results


def _result(question: Question, check: Any, reason: str, picture: Any = None) -> CheckResult:
    return CheckResult(question.question_id, check.name, check.points, reason, check.is_hidden, picture)


class _Process:
    """One question on its way."""

    def __init__(self, order: Order, left_s: float) -> None:
        self._order, self._left_s = order, left_s
        self.told: dict[str, dict[str, Any]] = {}
        self.output = b""
        self.took_s = self._limit_s = 0.0
        self._stopped = ""  # "time" or "memory"
        self._is_done = False
        self._ready_s: float | None = None
        self._base_bytes = 0
        self._lines = b""

    def run(self) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llmlab.labs.judge", str(writing)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(writing,), start_new_session=True,
        )  # fmt: skip
        os.close(writing)
        try:
            with suppress(BrokenPipeError):
                assert self._process.stdin is not None
                self._process.stdin.write(pickle.dumps(self._order))
                self._process.stdin.close()
            self._follow(reading)
            self._ask_where()
            if not self._stopped:
                with suppress(subprocess.TimeoutExpired):  # its exit status says how it ended
                    self._process.wait(END_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            os.close(reading)
        if self._ready_s is not None:
            self.took_s = time.monotonic() - self._ready_s

    def _follow(self, reading: int) -> None:
        """Until all is told, the process has ended, or a limit is reached."""
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        deadline_s = time.monotonic() + START_S
        with selectors.DefaultSelector() as ready:
            ready.register(reading, selectors.EVENT_READ)
            ready.register(out, selectors.EVENT_READ)
            while not self._is_done and ready.get_map():
                left_s = (deadline_s if self._ready_s is None else self._ready_s + self._limit_s) - time.monotonic()
                if left_s <= 0 or self._is_too_big():
                    self._stopped = "time" if left_s <= 0 else "memory"
                    return
                has_ended = self._process.poll() is not None  # asked first: then all that it told is there to be read
                found = ready.select(min(left_s, _POLL_S))
                for key, _ in found:
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        ready.unregister(key.fd)
                    elif key.fd == out:
                        self.output = (self.output + chunk)[:OUTPUT_BYTES]
                    else:
                        self._take(chunk)
                if not found and has_ended:  # a child of it may hold the pipes open
                    return

    def _take(self, chunk: bytes) -> None:
        *lines, self._lines = (self._lines + chunk).split(b"\n")
        for line in map(json.loads, lines):
            if line["event"] == "ready":
                wanted_s = MOST_S if line["reference_s"] is None else LEAST_S + TIMES_REFERENCE * line["reference_s"]
                self._limit_s = max(LEAST_S, min(wanted_s, MOST_S, self._left_s))
                self._ready_s, self._base_bytes = time.monotonic(), self._used_bytes()
            elif line["event"] == "check":
                self.told[line["name"]] = line
            else:
                self._is_done = True

    def _used_bytes(self) -> int:
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def _is_too_big(self) -> bool:
        return self._ready_s is not None and self._used_bytes() > self._base_bytes + MEMORY_BYTES

    def _ask_where(self) -> None:
        """Let a process that was stopped print where it is (faulthandler, see judge.py)."""
        if not self._stopped or self._process.poll() is not None:
            return
        assert self._process.stdout is not None
        self.output = b""  # what it printed in its loop says nothing
        os.set_blocking(self._process.stdout.fileno(), False)
        os.kill(self._process.pid, signal.SIGUSR1)
        until_s = time.monotonic() + 0.3
        while time.monotonic() < until_s:
            with suppress(BlockingIOError):
                self.output = (self.output + os.read(self._process.stdout.fileno(), 1 << 16))[-OUTPUT_BYTES:]
            time.sleep(0.02)

    def _where(self) -> str:
        """The innermost line of the student's own that faulthandler printed."""
        for frame in _FRAME.finditer(self.output.decode(errors="replace")):
            if frame["file"] in self._order.submission.files:
                text = self._order.submission.files[frame["file"]].splitlines()
                number = int(frame["line"])
                code = f": {text[number - 1].strip()}" if number <= len(text) else ""
                return say("where", function=frame["function"], line=number, code=code)
        return ""

    def ended(self, question_id: str) -> str:
        """Why the process did not tell all."""
        if self._stopped == "memory":
            return say("stopped_memory", question=question_id, limit=MEMORY_TEXT, where=self._where())
        if self._stopped:
            return say("stopped_time", question=question_id, seconds=self._limit_s or START_S, where=self._where())
        status = self._process.returncode
        if status < 0 and not self._is_done:
            with suppress(ValueError):
                name = signal.Signals(-status).name
                return say("died", question=question_id, signal=name, where=self._where())
        return say("ended", question=question_id, status=status)
