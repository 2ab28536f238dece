"""The head of a story: what holds for all of its steps; and what a picture calls an engine or a request.

This file must not know widgets, pages or engines.
"""

from __future__ import annotations

from typing import Any

from llmlab.trace import Header


def head_of(header: Header) -> dict[str, Any]:
    """What holds for the whole story: engine, model, and the room it has.

    `unseen`, of an engine whose steps are not seen: why, in a sentence. A picture shows what arrived, and when.
    """
    kv = header.capabilities.kv
    unseen = {} if header.capabilities.steps else {"unseen": _unseen(header.engine)}
    return {
        "engine": f"{_engine_name(header.engine)} {header.engine_version}".strip(),
        "model": header.model,
        "dtype": header.quant or header.dtype,
        "device": header.device,
        "source": header.source,
        "kind": kv,
        "block_size": header.block_size,
        "num_blocks": header.num_blocks,
        # vLLM's block 0 is never handed out, so its blocks count from 1
        "first_block": 1 if header.engine == "vllm" else 0,
        "num_cells": header.num_cells,
        "cell_source": header.capabilities.cell_source,
        "prefix_caching": header.capabilities.prefix_caching,
        "token_budget": header.token_budget,
        "max_num_seqs": header.max_num_seqs,
        "max_model_len": header.max_model_len,
        **unseen,
    }


def _unseen(engine: str) -> str:
    how = "Ollama tells nothing of them" if engine == "ollama" else "connect with --trace to see them"
    return f"Steps and KV cache stay on the server: {how}. Shown is what arrived here, and when."


def short_name(request_id: str, index: int) -> str:
    """What a picture calls a request: its own id when it is short, else r0, r1, ... in order of arrival.

    >>> short_name("r7", 3), short_name("cmpl-4f1c2d9e8a7b", 3)
    ('r7', 'r3')
    """
    return request_id if len(request_id) <= 4 else f"r{index}"


def _engine_name(engine: str) -> str:
    return {"vllm": "vLLM", "llamacpp": "llama.cpp"}.get(engine, engine)
