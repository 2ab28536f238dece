"""%llm load, ps, use, unload, logs, models, doctor: which engines there are."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from IPython.display import display

import llmlab
from llmlab.cards import Card, bytes_text, seconds_text
from llmlab.language import tr
from llmlab.magics.line import Line
from llmlab.magics.verbs.targets import current, loaded

if TYPE_CHECKING:
    from llmlab.engines.handle import EngineHandle
    from llmlab.engines.registry import EngineStatus
    from llmlab.engines.unloaded import Unloaded

LOG_LINES = 40


def load(line: Line) -> object:
    """The handle is the value, with -e both the pair; with --dry-run, what it would take.

    Running the cell again replaces its own engines.
    """
    args = line.args
    wanted = {
        "engine": args.engine, "name": getattr(args, "as"), "quant": args.quant, "dtype": args.dtype, "ctx": args.ctx,
        "seqs": args.seqs, "kv_tokens": args.kv_tokens, "step_tokens": args.step_tokens, "block_size": args.block_size,
        "lora": args.lora, "seed": args.seed, "options": args.opt, "dry_run": args.dry_run or None,
    }  # fmt: skip
    if args.dry_run or args.show_code:
        return line.show(line.call("llmlab.load", llmlab.load, args.model, **wanted))
    return load_own(line, args.model, wanted)


def load_own(line: Line, model: str, wanted: dict[str, Any]) -> object:
    """Load, after the engines that this very line of this cell loaded when it ran before were unloaded."""
    cell, asked = line.lab.cells.next(), (model, repr(wanted))
    asked_before, handles_of = line.lab.loads.get(cell, (None, ()))
    before = [handle_of() for handle_of in handles_of] if asked_before == asked else []
    for handle in before:
        if handle is not None:
            handle.unload()
    loaded = line.call("llmlab.load", llmlab.load, model, **wanted)
    handles = loaded if isinstance(loaded, tuple) else (loaded,)
    line.lab.loads[cell] = (asked, tuple(map(weakref.ref, handles)))
    for handle in handles:
        display(loaded_card(handle))
    if len(handles) == 2:
        display(llmlab.parity(*handles))
    return line.shown(loaded)


def loaded_card(handle: EngineHandle) -> Card:
    header = handle.header
    room = [tr("{count} tokens a sequence", count=header.max_model_len)] if header.max_model_len else []
    room += [tr("{count} at once", count=header.max_num_seqs)] if header.max_num_seqs else []
    room += [tr("KV cache of {count} cells", count=header.num_cells)] if header.num_cells else []
    room += [tr("KV cache of {count} blocks", count=header.num_blocks)] if header.num_blocks else []
    engine = f"{header.engine} {header.engine_version}".strip()
    rows = (
        (tr("model"), " ".join(filter(None, [header.model or handle.model, header.quant]))),
        (tr("engine"), tr("{engine}, process {pid}", engine=engine, pid=handle.pid)),
        (tr("room"), tr(", ").join(room) or None),
        (tr("loaded in"), seconds_text(handle.load_s)),
    )
    return Card(tr("{name} is loaded", name=handle.name), (), rows, handle.notes)


def ps(line: Line) -> object:
    return line.show(engines_card(line.call("llmlab.ps", llmlab.ps)))


def engines_card(engines: list[EngineStatus]) -> Card:
    if not engines:
        return Card(tr("No engine is loaded"), (), (), (tr("Type `%llm load smollm2-135m`."),))
    columns = ("", tr("name"), tr("model"), tr("engine"), tr("state"), tr("requests"), tr("process memory"))
    return Card("", columns, tuple(_engine_row(engine) for engine in engines))


def _engine_row(engine: EngineStatus) -> tuple[object, ...]:
    state = tr("ended") if not engine.alive else tr("runs") if engine.num_open_requests else tr("idle")
    return (
        "→" if engine.is_current else "",
        engine.name,
        " ".join(filter(None, [engine.model, engine.quant])),
        engine.engine,
        state,
        engine.num_open_requests,
        bytes_text(engine.rss_bytes),
    )


def use(line: Line) -> object:
    """The handle is the value."""
    loaded(line.args.name)  # a sentence when there is none
    handle = line.call("llmlab.use", llmlab.use, line.args.name)
    print(tr("{name} answers from here on.", name=handle.name))
    return line.shown(handle)


def unload(line: Line) -> object:
    """What was given back is the value."""
    args = line.args
    if not args.all:
        loaded(args.name) if args.name else current()  # a sentence when there is none
    unloaded = line.call("llmlab.unload", llmlab.unload, *([args.name] if args.name else []), all=args.all or None)
    return line.show(unloaded_card(unloaded), unloaded)


def unloaded_card(unloaded: list[Unloaded]) -> Card:
    if not unloaded:
        return Card(tr("No engine was loaded"))
    columns = [
        tr("unloaded"), tr("took"), tr("process before"), tr("process after"), tr("free here before"),
        tr("free here after"),
    ]  # fmt: skip
    if has_gpu := any(one.gpu_free_after_bytes is not None for one in unloaded):
        columns += [tr("GPU free before"), tr("GPU free after")]
    return Card("", tuple(columns), tuple(_unloaded_row(one, has_gpu) for one in unloaded))


def _unloaded_row(one: Unloaded, has_gpu: bool) -> tuple[object, ...]:
    sizes = [one.rss_before_bytes, one.rss_after_bytes, one.available_before_bytes, one.available_after_bytes]
    if has_gpu:
        sizes += [one.gpu_free_before_bytes, one.gpu_free_after_bytes]
    return (one.name, seconds_text(one.ended_in_s), *map(bytes_text, sizes))


def logs(line: Line) -> object:
    name = line.args.name
    handle, code = (loaded(name), f"llmlab.handles()[{name!r}]") if name else (current(), "llmlab.current()")
    text = line.call(f"{code}.logs", handle.logs, line.args.lines or LOG_LINES)
    print(text or tr("{name} has printed nothing.", name=handle.name))
    return None


def models(line: Line) -> object:
    known = line.call("llmlab.models.known", llmlab.models.known)
    rows = tuple((m.name, m.where, bytes_text(m.size_bytes), ", ".join(m.quants) or None) for m in known)
    notes = (tr("Also: a model folder, a .gguf file, a Hub repo id. `-q` makes another quant, once."),)
    return line.show(Card("", (tr("model"), tr("from"), tr("size"), tr("GGUF made")), rows, notes))


def doctor(line: Line) -> object:
    return line.show(line.call("llmlab.doctor", llmlab.doctor))
