"""A peer of a benchmark in a process of its own, which loads once and sleeps until it is asked.

So all peers are there at once and can take turns round by round: on machines that change their speed within minutes,
only neighbours in time are compared. The process is this script again, with arguments that say which peer it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ANSWER = "answer: "  # a line of a worker that begins so is its answer; libraries print what they like


class Worker:
    """Starts `script` with `arguments`, where answer_questions() must run."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", f"benchmarks.{Path(script).stem}", *arguments]
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parent.parent,
        )

    def ask(self, question: Any) -> Any:
        """The answer, when it comes. Question and answer are JSON."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith(ANSWER):
            if not line:
                raise RuntimeError(f"{' '.join(self._command)} has died: run it by hand, and write [] to it")
        return json.loads(line.removeprefix(ANSWER))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()


def answer_questions(answer: Callable[[Any], Any]) -> None:
    """What the process of a Worker does until it is closed."""
    for line in sys.stdin:
        print(f"{ANSWER}{json.dumps(answer(json.loads(line)))}", flush=True)
