"""%llm lab list, start, predict, check, hint, report: the exercises."""

from __future__ import annotations

from functools import partial

import llmlab
from llmlab.labs.sentences import say
from llmlab.magics.line import Line


def list_labs(line: Line) -> object:
    return line.show(line.call("llmlab.labs.list", llmlab.labs.list))


def start(line: Line) -> object:
    places = [line.args.folder] if line.args.folder else []
    return line.show(line.call("llmlab.labs.start", llmlab.labs.start, line.args.id, *places))


def predict(line: Line) -> object:
    function = partial(llmlab.labs.predict, names=line.names)
    return line.show(line.call("llmlab.labs.predict", function, line.args.q, line.args.value))


def check(line: Line) -> object:
    """The results are the value. The call finds the variables of the notebook by itself."""
    function = partial(llmlab.labs.check, names=line.names)
    asked = [line.args.q] if line.args.q else []
    return line.show(line.call("llmlab.labs.check", function, *asked))


def hint(line: Line) -> object:
    return line.show(line.call("llmlab.labs.hint", llmlab.labs.hint, line.args.q))


def report(line: Line) -> object:
    """The path that was written is the value."""
    path = line.call("llmlab.labs.report", llmlab.labs.report)
    print(say("report_written", path=path))
    return line.shown(path)
