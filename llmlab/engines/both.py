"""load(engine="both"): the same weights on vLLM and on llama.cpp, under one name, in formats that agree.

This file must not know how an engine is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llmlab.engines.handle import EngineHandle
from llmlab.engines.packages import missing
from llmlab.engines.precision import Precision, precision, precision_of
from llmlab.engines.registry import free_name
from llmlab.errors import EngineError
from llmlab.models import Fit, get

# --opt names: what both engines have, and what only llama.cpp has. Everything else is vLLM's, which knows its own.
SHARED_OPTIONS = frozenset({"threads", "prefix_caching"})
LLAMACPP_OPTIONS = frozenset({"flash_attn", "extra_bufts", "gpu_layers", "kept_tokens", "policy", "raw_cells"})
# What a GGUF file is to be for the precision that vLLM computes in: no coarser. F16 holds what a bfloat16 does, and is
# faster on most machines.
QUANT_OF: dict[Precision, str] = {"float32": "F32", "float16": "F16", "bfloat16": "F16", "quantized": "F16"}


class Both(NamedTuple):
    """Two loaded engines with one model."""

    vllm: EngineHandle
    llamacpp: EngineHandle

    def unload(self) -> None:
        """End both."""
        for handle in self:
            handle.unload()


def load_both(
    model: str,
    *,
    name: str | None = None,
    quant: str | None = None,
    dtype: str | None = None,
    block_size: int | None = None,
    options: dict[str, Any] | None = None,
    policy: Any = None,
    sampler: Any = None,
    dry_run: bool = False,
    **shared: Any,
) -> Both | Fit:
    """Load a model on vLLM and on llama.cpp; both are registered, as NAME-vllm and NAME-llamacpp.

    Memory is weighed for the two together before either is loaded. `dtype` and `block_size` are vLLM's, `quant`,
    `policy` and `sampler` llama.cpp's: without a quant it takes the weights in the type that vLLM computes in. Other
    arguments: those of load(), for both.

    Raises: as load() does. When the second cannot be loaded, the first is unloaded again.
    """
    from llmlab.engines.loading import load

    _require_vllm(model)
    given = options or {}
    of_vllm = {name: value for name, value in given.items() if name not in LLAMACPP_OPTIONS}
    of_llamacpp = {name: value for name, value in given.items() if name in LLAMACPP_OPTIONS | SHARED_OPTIONS}
    vllm = {**shared, "engine": "vllm", "dtype": dtype, "block_size": block_size, "options": of_vllm}
    llamacpp = {**shared, "engine": "llamacpp", "options": of_llamacpp, "policy": policy, "sampler": sampler}

    def weighed(quant: str | None, **smaller: Any) -> Fit:
        on_vllm = load(model, dry_run=True, **{**vllm, **smaller})
        chosen = quant or QUANT_OF[precision_of(on_vllm.quant)]
        return _together(on_vllm, load(model, dry_run=True, quant=chosen, **{**llamacpp, **smaller}))

    fit = weighed(quant)
    if not fit.ok:
        fit = replace(fit, advice=_advice(model, weighed))
    if dry_run:
        return fit
    fit.require()
    stem = name or Path(get(model).name).name
    names = [free_name(f"{name}-{engine}" if name else None, f"{stem}-{engine}") for engine in ("vllm", "llamacpp")]
    first = load(model, name=names[0], **vllm)
    try:
        second = load(model, name=names[1], quant=quant or QUANT_OF[precision(first.header)], **llamacpp)
    except BaseException:  # Ctrl-C too: nobody would ever get hold of the first
        first.unload()
        raise
    return Both(first, second)


def _require_vllm(model: str) -> None:
    """Raises: EngineError where vLLM cannot be loaded, with two engines that can be compared there."""
    lack = missing("vllm")
    if lack is not None:
        raise EngineError(
            f"{lack} Two quants on llama.cpp can be compared as well: `%llm load {model} -e llamacpp -q F32 --as f32`, "
            f"`%llm load {model} -e llamacpp -q Q8_0 --as q8`, then `%llm parity f32 q8`."
        )


def _advice(model: str, weighed: Callable[..., Fit]) -> str:
    """The mildest line that fits, llama.cpp alone when none does for both."""
    for quant, ctx in (("Q8_0", 2048), ("Q4_0", 1024), ("Q4_0", 512)):
        if weighed(quant, ctx=ctx, kv_tokens=ctx).ok:
            return f"%llm load {model} -e both -q {quant} --ctx {ctx} --kv-tokens {ctx}"
    return f"%llm load {model} -e llamacpp"


def _together(vllm: Fit, llamacpp: Fit) -> Fit:
    """What both take, against what is free: of one memory, or each of its own.

    On a GPU vLLM takes the GPU's memory and llama.cpp that of the machine; then the one that does not fit is told.
    """
    if vllm.memory != llamacpp.memory:
        return llamacpp if vllm.ok else vllm
    return replace(
        llamacpp,
        engine="both",
        quant=vllm.quant if vllm.quant == llamacpp.quant else f"{vllm.quant} and {llamacpp.quant}",
        kv_tokens=vllm.kv_tokens + llamacpp.kv_tokens,
        weights_bytes=vllm.weights_bytes + llamacpp.weights_bytes,
        kv_bytes=vllm.kv_bytes + llamacpp.kv_bytes,
        overhead_bytes=vllm.overhead_bytes + llamacpp.overhead_bytes,
    )
