"""Exercises: predict, run a real engine, see the picture, write the code, be checked on the real thing.

    llmlab.labs.list()                  which labs there are
    llmlab.labs.start("lab03")          copy the notebook of one into this folder
    llmlab.labs.predict("Q1", 5)        write a guess down before the cell that shows the truth
    llmlab.labs.check("Q2")             points, reasons, two pictures
    llmlab.labs.hint("Q2")              the next hint
    llmlab.labs.report()                one HTML page of all that
    llmlab.labs.play(engine, requests)  serve requests that arrive at given steps
    llmlab.labs.recorded("q1")          a run of the notebook, recorded: for who has no engine

The labs themselves are folders labs/labNN_name/ beside this package; `%llm lab` has the same verbs. Names are loaded on
first use: the process that checks a question imports this package, too.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {"list": "finding:labs"} | {name: f"work:{name}" for name in ("start", "predict", "check", "hint", "report")}
_EXPORTS |= {"play": "arrivals:play", "after_interrupt": "arrivals:after_interrupt", "recorded": "recordings:recorded"}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'llmlab.labs' has no attribute {name!r}")
    module, _, attribute = _EXPORTS[name].partition(":")
    return getattr(import_module(f"llmlab.labs.{module}"), attribute)


def __dir__() -> "list[str]":
    return sorted(_EXPORTS)
