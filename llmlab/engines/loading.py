"""load(): from the name of a model to an engine that answers. The model is found, made and weighed here, in the
notebook's process; the engine is loaded in its own.

This file must not know what an engine does.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

from llmlab.engines import messages as wire
from llmlab.engines.base import ENGINES, EngineConfig
from llmlab.engines.both import Both, load_both
from llmlab.engines.connection import Connection, error_of
from llmlab.engines.handle import EngineHandle
from llmlab.engines.host_link import HostLink
from llmlab.engines.limits import check_limits
from llmlab.engines.links import InlineLink, Link
from llmlab.engines.order import Isolation, Order
from llmlab.engines.packages import missing, packages
from llmlab.engines.registry import current, free_name, handles, ps, register, unload, use
from llmlab.errors import EngineDied, EngineError, SelfTestFailed, unknown
from llmlab.models import Fit, Model, check_gguf, fits, get
from llmlab.models.fit import DEFAULT_CTX_TOKENS, DTYPES
from llmlab.models.lora import adapter_gguf, peft_folder
from llmlab.trace.jsonl import is_trace_file

__all__ = ["current", "handles", "load", "ps", "unload", "use"]

# Engines that load the folder of a model, and choose a dtype where llama.cpp chooses a quant.
WITH_DTYPE = ("vllm", "torch")
# A first load reads all weights once for their fingerprint, 1 s for 135 M; of larger models only who asks for it waits.
MAX_FINGERPRINTED = 500_000_000
# How a process ends that uses instructions which its CPU only claims to have.
CPU_DEATHS = ("SIGSEGV", "SIGILL", "SIGABRT", "SIGBUS")
# engine -> options with which it is then tried once more, and what to say of it
SECOND_TRIES: dict[str, tuple[dict[str, Any], str]] = {
    "llamacpp": (
        {"extra_bufts": False},
        "Loading died once, and works with extra_bufts=False: this CPU advertises AMX, but this machine cannot use it. "
        "Some quants are slower for it; `--opt extra_bufts=false` skips the first try.",
    )
}
# What always computes rightly, where an engine can choose: taken when its self-test fails in another dtype.
SAFE_DTYPE = "float32"


@overload
def load(model: str, engine: Literal["both"], *, dry_run: Literal[False] = False, **options: Any) -> Both: ...
@overload
def load(model: str, engine: str = "auto", *, dry_run: Literal[False] = False, **options: Any) -> EngineHandle: ...
@overload
def load(model: str, engine: str = "auto", *, dry_run: Literal[True], **options: Any) -> Fit: ...
def load(  # type: ignore[misc]  # the overloads tell what comes back, not every option
    model: str,
    engine: str = "auto",
    *,
    name: str | None = None,
    quant: str | None = None,
    dtype: str | None = None,
    ctx: int | None = None,
    seqs: int | None = None,
    kv_tokens: int | None = None,
    step_tokens: int | None = None,
    block_size: int | None = None,
    lora: str | None = None,
    seed: int = 0,
    isolation: Isolation | None = None,
    policy: Any = None,
    sampler: Any = None,
    block_pool: Any = None,
    attention: Any = None,
    options: dict[str, Any] | None = None,
    dry_run: bool = False,
    timeout: float = 600.0,
) -> EngineHandle | Both | Fit:
    """Load a model in an engine; the handle is the current engine from then on.

    `model`: an embedded one, a folder, a .gguf file, a Hub repo id, or a saved trace (engine "replay"). `engine`: a
    name of ENGINES, "auto" for the first that runs here, "both" for vLLM and llama.cpp (the value is the pair: see
    both.py), or "module:class". `ctx`: limit of one sequence, `kv_tokens`: room of the whole KV cache, `step_tokens`:
    budget of one step, all in tokens. `policy`, `sampler`, `block_pool`, `attention`: a name, a class or an object (a
    function, for attention), as far as the engine takes them; they run inline unless isolation="host". `dry_run`: only
    say whether it fits.

    >>> eng = llmlab.load("smollm2-135m", engine="llamacpp", quant="Q4_1")    # doctest: +SKIP

    Raises: ModelError for the model, DoesNotFit with what would fit, EngineError for the engine, EngineDied when its
    process dies while it loads.
    """
    if engine == "both":
        return load_both(
            model, name=name, quant=quant, dtype=dtype, ctx=ctx, seqs=seqs, kv_tokens=kv_tokens, lora=lora, seed=seed,
            step_tokens=step_tokens, block_size=block_size, isolation=isolation, policy=policy, sampler=sampler,
            options=options, dry_run=dry_run, timeout=timeout,
        )  # fmt: skip
    check_limits(ctx=ctx, seqs=seqs, kv_tokens=kv_tokens, step_tokens=step_tokens, block_size=block_size)
    engine = _chosen(engine, model)
    config = EngineConfig(
        engine=engine,
        model=model,
        model_path=model,
        quant=quant,
        dtype=dtype,
        max_model_len=ctx,
        max_num_seqs=seqs,
        kv_tokens=kv_tokens,
        token_budget=step_tokens,
        block_size=block_size,
        lora=lora,
        seed=seed,
        options=dict(options or {}),
    )
    load_name = model
    if engine in packages():
        found = get(model)
        load_name = found.load_name
        config = replace(config, model=found.name, quant=_quant(engine, quant, found), dtype=_dtype(engine, dtype))
        fit = _fit(config, found)
        if dry_run:
            return fit
        fit.require()
        config = _with_files(config, found)
    elif dry_run:
        raise EngineError(f"dry_run weighs a model against free memory; {engine} loads none.")
    config, parts = _with_parts(config, policy=policy, sampler=sampler, block_pool=block_pool, attention=attention)
    order = Order(
        config=config,
        parts=parts,
        isolation=isolation or ("inline" if parts else "host"),
        load_name=load_name,
        lora=lora,
        name=free_name(name, Path(config.model).name.partition(".jsonl")[0]),
        timeout=timeout,
    )
    return register(_loaded(order))


def load_again(handle: EngineHandle, *, model_path: str | None = None) -> EngineHandle:
    """One more engine like that of `handle`, in a process of its own, not among the loaded ones; the caller ends it.

    `model_path`: other files with the same weights. Raises: as load() does.
    """
    config = handle.config if model_path is None else replace(handle.config, model_path=model_path)
    order = Order(
        config=config, parts={}, isolation="host", load_name=config.model, lora=config.lora,
        name=f"{handle.name}-again", timeout=600.0,
    )  # fmt: skip
    return _load_once(order)


def _chosen(engine: str, model: str) -> str:
    """Raises: EngineError for an unknown engine, or when none runs here."""
    if engine == "auto":
        if is_trace_file(model):
            return "replay"
        here = [name for name in packages() if missing(name) is None]
        if not here:
            raise EngineError("No engine is installed here. Install one: pip install 'llmlab-kit[llamacpp]'")
        return here[0]
    if engine not in ENGINES and ":" not in engine:
        raise EngineError(unknown("engine", engine, ["auto", "both", *ENGINES]))
    if (lack := missing(engine)) is not None:
        raise EngineError(lack)
    return engine


def _quant(engine: str, quant: str | None, model: Model) -> str | None:
    """Raises: EngineError for a quant where there is none to choose."""
    if engine not in WITH_DTYPE:
        return (quant or model.default_quant).upper()
    if quant is None:
        return None
    dtype = DTYPES.get(quant.upper())
    raise EngineError(
        f"{engine} takes the weights as they are, so there is no quant {quant!r} to choose. "
        f"Use `-e llamacpp -q {quant}`" + (f", or compute in another type: `--dtype {dtype}`." if dtype else ".")
    )


def _dtype(engine: str, dtype: str | None) -> str | None:
    """ "F32" and "float32" are one dtype, where it is that of the weights."""
    return DTYPES.get(dtype.upper(), dtype) if dtype and engine in WITH_DTYPE else dtype


def _fit(config: EngineConfig, model: Model) -> Fit:
    quant, ctx = config.quant, config.max_model_len
    if config.engine in WITH_DTYPE:
        quant = {dtype: form for form, dtype in DTYPES.items()}.get(config.dtype or "")
    room = config.kv_tokens or max(ctx or 0, DEFAULT_CTX_TOKENS)
    return fits(model, config.engine, quant=quant, ctx=ctx, seqs=config.max_num_seqs, kv_tokens=room)


def _with_files(config: EngineConfig, model: Model) -> EngineConfig:
    """The same, with the files of the model: made now, if they were not there.

    Raises: ModelError when one is broken or cannot be made.
    """
    lora = config.lora
    if config.engine in WITH_DTYPE:
        if config.options.get("load_format") == "dummy":  # random weights in the shape of this model
            return replace(config, model_path=str(model.path if model.path.is_dir() else model.hf_dir))
        path, lora = model.hf_dir, str(peft_folder(lora)) if lora else None
    else:
        path, lora = model.gguf(config.quant or ""), str(adapter_gguf(lora, model)) if lora else None
        check_gguf(path)
    return replace(
        config,
        model_path=str(path),
        fingerprint=model.fingerprint if model.num_params <= MAX_FINGERPRINTED else None,
        lora=lora,
    )


def _with_parts(config: EngineConfig, **given: Any) -> tuple[EngineConfig, dict[str, Any]]:
    """Parts given by name become options; objects travel as they are, classes as an object of theirs.

    The class of a block pool stays one: only the engine knows how many blocks there are.
    """
    names = {kind: part for kind, part in given.items() if isinstance(part, str)}
    parts = {
        kind: part() if isinstance(part, type) and kind != "block_pool" else part
        for kind, part in given.items()
        if part is not None and kind not in names
    }
    return replace(config, options={**config.options, **names}), parts


def _loaded(order: Order) -> EngineHandle:
    try:
        return _load_once(order)
    except (EngineDied, SelfTestFailed) as error:
        careful, note = _second_try(order.config, error)
        if careful is None:
            raise
    handle = _load_once(replace(order, config=careful))
    handle.notes = (*handle.notes, note)
    return handle


def _second_try(config: EngineConfig, error: EngineError) -> tuple[EngineConfig | None, str]:
    """How to load once more after this error, and what to say of it; None when there is no other way."""
    died_of_cpu = isinstance(error, EngineDied) and any(name in str(error) for name in CPU_DEATHS)
    options, note = SECOND_TRIES.get(config.engine, ({}, ""))
    if died_of_cpu and not options.keys() <= config.options.keys():
        return replace(config, options={**config.options, **options}), note
    may_choose = config.engine in WITH_DTYPE and config.dtype != SAFE_DTYPE
    if may_choose and (isinstance(error, SelfTestFailed) or (died_of_cpu and config.dtype)):
        note = (
            f"{str(error).splitlines()[0]} It computes in {SAFE_DTYPE} now; `--dtype {SAFE_DTYPE}` skips the first try."
        )
        return replace(config, dtype=SAFE_DTYPE), note
    return None, ""


def _load_once(order: Order) -> EngineHandle:
    connection = Connection(_link(order), describe=order.describe, reload_line=order.reload_line)
    try:
        ready = connection.wait_ready(order.timeout)
    except BaseException:
        connection.link.kill()
        connection.close(0.0)
        raise
    if ready is not None:
        return EngineHandle(order.name, order.config, connection, ready)
    death, failure, log = connection.death, connection.load_failure, connection.link.log_lines(20)
    connection.link.kill()
    connection.close(0.0)
    if failure is not None:
        raise _load_error(failure, log)
    if death is not None:
        raise EngineDied(death)
    raise EngineError(f"{order.describe} was not ready within {order.timeout:g} s. Give load() a longer timeout.")


def _link(order: Order) -> Link:
    if order.isolation == "inline":
        return InlineLink(order.config, order.parts)
    if order.isolation != "host":
        raise EngineError(unknown("isolation", order.isolation, ["host", "inline"]))
    return HostLink(wire.Load(order.config, _pickled(order.parts), tuple(sys.path)))


def _pickled(parts: dict[str, Any]) -> bytes:
    if not parts:
        return b""
    import cloudpickle

    pickled: bytes = cloudpickle.dumps(parts)
    return pickled


def _load_error(failure: wire.LoadFailed, log: list[str]) -> EngineError | Exception:
    """Our own errors say it all; a foreign one comes with what the engine printed."""
    error = error_of(failure.error, failure.text)
    if not str(error).startswith(failure.error):
        return error
    return EngineError("\n".join([str(error), "The engine printed:", *(f"  {line}" for line in log)]))
