"""Every error a user of llmlab can meet. Each message says what failed and its value, what would do, what to type next.

This file must not know engines, models or notebooks: it is imported by all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from llmlab.language import tr

MAX_KNOWN = 40  # names that one sentence tells: not all of a class


class LlmlabError(Exception):
    """Something llmlab was asked for cannot be done; the message says what to do instead."""


class TraceError(LlmlabError):
    """A trace file or record is not what it should be; `line` is its line number, counted from 1."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line


class ModelError(LlmlabError):
    """A model name, file or conversion is at fault."""


class DoesNotFit(ModelError):
    """Weights and KV cache need more memory than is free."""


class NoFreeBlocks(LlmlabError):
    """The pool cannot serve this call; it was raised before anything changed."""


class BrokenContract(LlmlabError):
    """A part that was written in a notebook did what its contract forbids.

    `trace`: what the engine did before that step, when it was a run that was broken off.
    """

    trace: Any = None

    def _render_traceback_(self, *_: object) -> list[str]:
        """What IPython shows of it: a lesson is a sentence, and no stack of ours."""
        return [f"{type(self).__name__}: {self}"]


class PlanRefused(BrokenContract):
    """A scheduling policy asked for something impossible; the sentence names the step and the request."""


class PartFailed(BrokenContract):
    """A part that was written in a notebook broke its contract; the sentence names the step, the call and the block."""


class EngineError(LlmlabError):
    """An engine could not load, or refused a call."""


class SelfTestFailed(EngineError):
    """An engine has loaded and computes wrongly; the message names the path that is broken."""


class RequestError(LlmlabError):
    """One request cannot be served as asked (too long, empty, a sampling value out of range); others go on."""


class EngineDied(EngineError):
    """The engine host ended or stopped answering while it was needed; `results` keeps what had come until then."""

    def __init__(self, message: str, results: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.results = list(results)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for a name nobody knows: its value, what is known, the nearest match.

    >>> unknown("engine", "vlm", ["vllm", "llamacpp"])
    "Unknown engine 'vlm'. Known: llamacpp, vllm. Did you mean 'vllm'?"
    """
    names = sorted(known)
    shown = names if len(names) <= MAX_KNOWN else [*names[:MAX_KNOWN], tr("{n} more", n=len(names) - MAX_KNOWN)]
    near = difflib.get_close_matches(name, names, n=1)
    hint = tr(" Did you mean {name!r}?", name=near[0]) if near else ""
    return tr("Unknown {kind} {name!r}. Known: {known}.", kind=tr(kind), name=name, known=", ".join(shown)) + hint
