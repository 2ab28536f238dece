"""%llm alone, %llm mem and %llm help: where things stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.error import UsageError

import llmlab
from llmlab import metrics
from llmlab.cards import Card, bytes_text
from llmlab.language import tr
from llmlab.magics import manual
from llmlab.magics.defaults import NAMES
from llmlab.magics.line import Line, Named
from llmlab.magics.verbs.targets import current

if TYPE_CHECKING:
    from llmlab.engines.registry import EngineStatus
    from llmlab.magics.llmlab_magics import LLMLab


def status(line: Line) -> object:
    """Engines, memory, queue, defaults and who set them, what to type next."""
    engines = line.call("llmlab.ps", llmlab.ps)
    rows = [(_engine_label(engine), _engine_text(engine, line.lab)) for engine in engines]
    rows += [(tr("free memory"), _free_memory())]
    set_defaults = tr("`%config LLMLab.max_tokens = 64` sets a default, `%config LLMLab` lists them.")
    rows += [_default_row(line.lab, name) for name in NAMES if line.lab.default(name) is not None]
    return line.show(Card("llmlab", (), tuple(rows), (_next(engines), set_defaults)))


def _engine_label(engine: EngineStatus) -> str:
    return f"→ {engine.name}" if engine.is_current else engine.name


def _engine_text(engine: EngineStatus, lab: LLMLab) -> str:
    model = " ".join(filter(None, [engine.model, engine.quant]))
    what = tr("{model} on {engine}", model=model, engine=engine.engine)
    if not engine.alive:
        return tr("{what}, ended: `%llm logs {name}` says why", what=what, name=engine.name)
    handle = llmlab.handles()[engine.name]
    turns = len(lab.chats[handle].turns) if handle in lab.chats else 0
    parts = [what, bytes_text(engine.rss_bytes), tr("{count} open requests", count=engine.num_open_requests)]
    parts += [tr("paused")] if handle.is_paused else []
    parts += [tr("conversation of {turns} turns (`-c`; `--reset` forgets it)", turns=turns)] if turns else []
    return tr(", ").join(parts)


def _default_row(lab: LLMLab, name: str) -> tuple[str, str]:
    """A default and who set it."""
    return name, f"{lab.default(name)} ({lab.origin(name)})"


def _next(engines: list[EngineStatus]) -> str:
    if not engines:
        return tr("Type `%llm load smollm2-135m`, or just a prompt: `%llm Why is the sky blue?`")
    return tr("→ answers prompts; `%llm use NAME` changes that. `%llm help` lists all that can be typed.")


def _free_memory() -> str:
    import psutil

    return bytes_text(psutil.virtual_memory().available)


def mem(line: Line) -> object:
    """Memory of the current engine, or of a run what its KV cache held."""
    if line.args.run:
        return _mem_of_run(line, line.args.run)
    handle = current()
    memory = line.call("llmlab.current().memory", handle.memory)
    names = _names_of_parts()
    rows = [_memory_row(*names.get(part, (part.replace("_", " "), tr("reported"))), memory.get(part)) for part in
            {**names, **memory}]  # fmt: skip
    free = (tr("free on this machine"), _free_memory(), tr("measured"))
    title = tr("Memory of {name}", name=handle.name)
    return line.show(Card(title, ("", tr("bytes"), tr("who says so")), (*rows, free)), memory)


def _names_of_parts() -> dict[str, tuple[str, str]]:
    """Part of an engine's memory -> what it is called, and who says so: the operating system, or the engine."""
    return {
        "rss": (tr("process of the engine"), tr("measured")),
        "weights": (tr("weights"), tr("reported")),
        "kv_cache": (tr("KV cache"), tr("reported")),
        "kv_used": (tr("KV cache in use"), tr("reported")),
    }


def _memory_row(name: str, who: str, num_bytes: int | None) -> tuple[object, ...]:
    return name, bytes_text(num_bytes), None if num_bytes is None else who


def _mem_of_run(line: Line, name: str) -> object:
    run = line.variable(name)
    trace = getattr(run, "trace", run)
    if not isinstance(trace, llmlab.Trace):
        kind = type(run).__name__
        raise UsageError(
            tr("mem: {name} is a {kind}; name a variable with a run, a result or a trace.", name=name, kind=kind)
        )
    code = name if trace is run else f"{name}.trace"
    used = line.call("llmlab.metrics.kv_use", metrics.kv_use, Named(code, trace))
    known = [share for share in used if share is not None]
    rows = (
        (tr("most of the KV cache in use"), f"{max(known):.0%}" if known else None),
        (tr("on average over its steps"), f"{sum(known) / len(known):.0%}" if known else None),
        (tr("preemptions"), metrics.num_preemptions(trace)),
        (tr("tokens computed twice"), metrics.recomputed_tokens(trace)),
    )
    return line.show(Card(tr("KV cache during {name}", name=name), (), rows), used)


def help(line: Line) -> object:
    """The table of all verbs, or the flags of one."""
    print(line.call("llmlab.magics.manual.help_of", manual.help_of, *([line.args.verb] if line.args.verb else [])))
    return None
