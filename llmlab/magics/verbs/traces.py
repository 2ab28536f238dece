"""%llm trace save, load, replay, export: the record of what an engine did, in a file and back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

import llmlab
from llmlab.language import tr
from llmlab.magics.line import Line
from llmlab.magics.verbs.batch import follow
from llmlab.magics.verbs.targets import current

if TYPE_CHECKING:
    from llmlab.engines.handle import EngineHandle
    from llmlab.engines.run import Run
    from llmlab.trace import Trace


def save(line: Line) -> object:
    """The path that was written is the value."""
    path = line.call("llmlab.current().trace.save", current().trace.save, line.args.file)
    size_kb = path.stat().st_size / 1000
    print(
        tr(
            "{path}: {size:.0f} kB. `%llm trace load {path}` reads it, also without the engine.",
            path=path,
            size=size_kb,
        )
    )
    return line.shown(path)


def load(line: Line) -> object:
    return line.show(line.call("llmlab.Trace.load", llmlab.Trace.load, line.args.file))


def replay(line: Line) -> object:
    """Play the whole trace as it was; the Run is the value. With --as, the replay stays loaded under that name.

    With --what-if the same requests run on a simulated engine; the trace of that is the value.
    """
    if line.args.what_if is not None:
        return _what_if(line, line.args.what_if)
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


def _what_if(line: Line, changes: dict[str, Any]) -> object:
    """Before is simulated too: what differs then is the change, not what the simulator gets wrong."""
    from llmlab.engines.what_if import SHORT

    args = line.args
    if args.speed is not None or getattr(args, "as") is not None:
        raise UsageError(tr("--what-if simulates in a clock of its own: leave --speed and --as out."))
    changes = {SHORT.get(name, name): value for name, value in changes.items()}
    trace = llmlab.Trace.load(args.file)
    after = line.call(f"llmlab.Trace.load({args.file!r}).replay", trace.replay, **changes)
    if not args.quiet:
        same = ("cost", "machine", "model", "arrival_scale", "seed", "jitter")
        before = trace.replay(**{name: value for name, value in changes.items() if name in same})
        if trace.header.source == "measured":
            print(_accuracy(trace, before))
        line.show(llmlab.before_after(before, after))
    if args.out:
        line.assign(args.out, after)
    return line.shown(after)


def _accuracy(trace: Trace, again: Trace) -> str:
    """What the simulator makes of the run as it was, beside what was measured."""
    measured, simulated = llmlab.metrics.throughput_tps(trace), llmlab.metrics.throughput_tps(again)
    if not measured or simulated is None:
        return tr("The recorded run shows too little to compare the simulator with.")
    return tr(
        "Without changes the simulator gives {simulated:.0f} tok/s; the recorded engine gave {measured:.0f} "
        "(measured). Before and after are both simulated: their difference is the change.",
        simulated=simulated,
        measured=measured,
    )


def export(line: Line) -> object:
    """The path that was written is the value. Perfetto is the only format so far."""
    path = line.call("llmlab.current().trace.to_perfetto", current().trace.to_perfetto, line.args.file)
    size_kb = path.stat().st_size / 1000
    print(tr("{path}: {size:.0f} kB. Open it in ui.perfetto.dev or in chrome://tracing.", path=path, size=size_kb))
    return line.shown(path)


def _forget(handle: EngineHandle, before: EngineHandle | None) -> None:
    """End the replay; who answered before answers again."""
    handle.unload()
    if before is not None:
        llmlab.use(before.name)
