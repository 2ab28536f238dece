"""%llm trace save, load, replay, export: the record of what an engine did, in a file and back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import llmlab
from llmlab.magics.line import Line
from llmlab.magics.verbs.batch import follow
from llmlab.magics.verbs.targets import current

if TYPE_CHECKING:
    from llmlab.engines.handle import EngineHandle
    from llmlab.engines.run import Run


def save(line: Line) -> object:
    """The path that was written is the value."""
    path = line.call("llmlab.current().trace.save", current().trace.save, line.args.file)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB. `%llm trace load {path}` reads it, also without the engine.")
    return line.shown(path)


def load(line: Line) -> object:
    return line.show(line.call("llmlab.Trace.load", llmlab.Trace.load, line.args.file))


def replay(line: Line) -> object:
    """Play the whole trace as it was; the Run is the value. With --as, the replay stays loaded under that name."""
    args, name, before = line.args, getattr(line.args, "as"), llmlab.current()
    options = None if args.speed is None else {"speed": args.speed}

    def load_and_play(file: str, **wanted: Any) -> Run:
        with ExitStack() as stack:
            handle = llmlab.load(file, **wanted)
            if name is None:
                stack.callback(_forget, handle, before)
            run = handle.replay()
            follow(run, (), line)
        return run

    wanted = {"engine": "replay", "name": name, "options": options}
    return line.shown(line.call("llmlab.load({}).replay()", load_and_play, args.file, **wanted))


def export(line: Line) -> object:
    """The path that was written is the value. Perfetto is the only format so far."""
    path = line.call("llmlab.current().trace.to_perfetto", current().trace.to_perfetto, line.args.file)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB. Open it in ui.perfetto.dev or in chrome://tracing.")
    return line.shown(path)


def _forget(handle: EngineHandle, before: EngineHandle | None) -> None:
    """End the replay; who answered before answers again."""
    handle.unload()
    if before is not None:
        llmlab.use(before.name)
