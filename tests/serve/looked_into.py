"""Engines whose memory() also says what is left in them, read where it lies: in llama.cpp's own state, in vLLM's own
scheduler and blocks, in the tables of the torch engine. LEFT names what must be 0 when nobody asks.

Each is loaded as "looked_into:NAME", from a file or a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LEFT = ("running", "waiting", "answers", "held")


def llamacpp(config: Any) -> Any:
    """held: cells that are in use, by llama.cpp's public state."""
    from llmlab.engines.llamacpp import LlamaCppEngine
    from llmlab.engines.llamacpp_cells import used_cells

    engine = LlamaCppEngine(config)
    context = engine.context
    return _telling(engine, lambda: len(used_cells(context.pointer, context.num_cells, context.num_seats)))


def torch(config: Any) -> Any:
    """held: blocks in any table."""
    from llmlab.engines.torch_paged import TorchEngine

    engine = TorchEngine(config)
    return _telling(engine, lambda: sum(engine.pool.ref_count(block) > 0 for block in range(engine.pool.num_blocks)))


def vllm(config: Any) -> Any:
    """held: blocks of vLLM's pool that a request refers to."""
    from llmlab.engines.vllm import VllmEngine

    engine = VllmEngine(config)
    scheduler, of_engine = engine.core.scheduler, engine.memory_bytes
    engine.memory_bytes = lambda: {
        **of_engine(),
        "running": len(scheduler.running),
        "waiting": len(scheduler.waiting),
        "answers": len(scheduler.requests),
        "held": sum(block.ref_cnt > 0 and not block.is_null for block in scheduler.kv_cache_manager.block_pool.blocks),
    }
    return engine


def _telling(engine: Any, held: Callable[[], int]) -> Any:
    of_engine = engine.memory_bytes
    engine.memory_bytes = lambda: {
        **of_engine(),
        "running": len(engine.scheduler.running),
        "waiting": engine.scheduler.num_waiting,
        "answers": len(engine._generations),
        "held": held(),
    }
    return engine
