"""%llm alone, %llm mem and %llm help: where things stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.error import UsageError

import llmlab
from llmlab import metrics
from llmlab.cards import Card, bytes_text
from llmlab.magics import manual
from llmlab.magics.defaults import NAMES
from llmlab.magics.line import Line, Named
from llmlab.magics.verbs.targets import current

if TYPE_CHECKING:
    from llmlab.engines.registry import EngineStatus
    from llmlab.magics.llmlab_magics import LLMLab

# part of an engine's memory -> how it is called, and who says so: the operating system, or the engine of itself
_MEMORY = {
    "rss": ("process of the engine", "measured"),
    "weights": ("weights", "reported"),
    "kv_cache": ("KV cache", "reported"),
    "kv_used": ("KV cache in use", "reported"),
}
_SET_DEFAULTS = "`%config LLMLab.max_tokens = 64` sets a default, `%config LLMLab` lists them."


def status(line: Line) -> object:
    """Engines, memory, queue, defaults and who set them, what to type next."""
    engines = line.call("llmlab.ps", llmlab.ps)
    rows = [(_engine_label(engine), _engine_text(engine, line.lab)) for engine in engines]
    rows += [("free memory", _free_memory())]
    rows += [_default_row(line.lab, name) for name in NAMES if line.lab.default(name) is not None]
    return line.show(Card("llmlab", (), tuple(rows), (_next(engines), _SET_DEFAULTS)))


def _engine_label(engine: EngineStatus) -> str:
    return f"→ {engine.name}" if engine.is_current else engine.name


def _engine_text(engine: EngineStatus, lab: LLMLab) -> str:
    what = f"{' '.join(filter(None, [engine.model, engine.quant]))} on {engine.engine}"
    if not engine.alive:
        return f"{what}, ended: `%llm logs {engine.name}` says why"
    handle = llmlab.handles()[engine.name]
    turns = len(lab.chats[handle].turns) if handle in lab.chats else 0
    parts = [what, f"{bytes_text(engine.rss_bytes)}", f"{engine.num_open_requests} open requests"]
    parts += ["paused"] if handle.is_paused else []
    parts += [f"conversation of {turns} turns (`-c`; `--reset` forgets it)"] if turns else []
    return ", ".join(parts)


def _default_row(lab: LLMLab, name: str) -> tuple[str, str]:
    """A default and who set it."""
    return name, f"{lab.default(name)} ({lab.origin(name)})"


def _next(engines: list[EngineStatus]) -> str:
    if not engines:
        return "Type `%llm load smollm2-135m`, or just a prompt: `%llm Why is the sky blue?`"
    return "→ answers prompts; `%llm use NAME` changes that. `%llm help` lists all that can be typed."


def _free_memory() -> str:
    import psutil

    return bytes_text(psutil.virtual_memory().available)


def mem(line: Line) -> object:
    """Memory of the current engine, or of a run what its KV cache held."""
    if line.args.run:
        return _mem_of_run(line, line.args.run)
    handle = current()
    memory = line.call("llmlab.current().memory", handle.memory)
    rows = [_memory_row(name, memory.get(name)) for name in {**_MEMORY, **memory}]
    free = ("free on this machine", _free_memory(), "measured")
    return line.show(Card(f"Memory of {handle.name}", ("", "bytes", "who says so"), (*rows, free)), memory)


def _memory_row(name: str, num_bytes: int | None) -> tuple[object, ...]:
    label, who = _MEMORY.get(name, (name.replace("_", " "), "reported"))
    return label, bytes_text(num_bytes), None if num_bytes is None else who


def _mem_of_run(line: Line, name: str) -> object:
    run = line.variable(name)
    trace = getattr(run, "trace", run)
    if not isinstance(trace, llmlab.Trace):
        raise UsageError(f"mem: {name} is a {type(run).__name__}; name a variable with a run, a result or a trace.")
    code = name if trace is run else f"{name}.trace"
    used = line.call("llmlab.metrics.kv_use", metrics.kv_use, Named(code, trace))
    known = [share for share in used if share is not None]
    rows = (
        ("most of the KV cache in use", f"{max(known):.0%}" if known else None),
        ("on average over its steps", f"{sum(known) / len(known):.0%}" if known else None),
        ("preemptions", metrics.num_preemptions(trace)),
        ("tokens computed twice", metrics.recomputed_tokens(trace)),
    )
    return line.show(Card(f"KV cache during {name}", (), rows), used)


def help(line: Line) -> object:
    """The table of all verbs, or the flags of one."""
    print(line.call("llmlab.magics.manual.help_of", manual.help_of, *([line.args.verb] if line.args.verb else [])))
    return None
