"""%llm trace save, load, replay: the record of what an engine did, in a file and back."""

from __future__ import annotations

import llmlab
from llmlab.magics.line import Line
from llmlab.magics.verbs.engines import loaded_card
from llmlab.magics.verbs.targets import current


def save(line: Line) -> object:
    """The path that was written is the value."""
    path = line.call("llmlab.current().trace.save", current().trace.save, line.args.file)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB. `%llm trace load {path}` reads it, also without the engine.")
    return line.shown(path)


def load(line: Line) -> object:
    return line.show(line.call("llmlab.Trace.load", llmlab.Trace.load, line.args.file))


def replay(line: Line) -> object:
    """The handle of the replay is the value."""
    options = None if line.args.speed is None else {"speed": line.args.speed}
    name = getattr(line.args, "as")
    handle = line.call("llmlab.load", llmlab.load, line.args.file, engine="replay", name=name, options=options)
    return line.show(loaded_card(handle), handle)
