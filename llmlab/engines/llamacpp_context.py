"""One llama.cpp context: a model, its unified KV cache, a batch. Opens, decodes, repeats seat operations, closes.

This file must not know requests, scheduling or traces.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmlab.engines.base import EngineConfig
from llmlab.engines.llamacpp_library import Batch, Model, get_logits, last_errors, lib, start_library
from llmlab.engines.threads import default_threads
from llmlab.errors import EngineError, unknown
from llmlab.scheduling.cell_pool import SeatOperation, seats_for

MAX_SEATS = 256  # LLAMA_MAX_SEQ
KV_TYPES = {"f32": lib.GGML_TYPE_F32, "f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0, "q4_0": lib.GGML_TYPE_Q4_0}
KV_BYTES_OF_32_VALUES = {"f32": 128, "f16": 64, "q8_0": 34, "q4_0": 18}


class Context:
    """Raises: EngineError when the model or a setting cannot be used."""

    def __init__(self, config: EngineConfig, options: dict[str, Any]) -> None:
        start_library()
        self.model = Model(
            config.model_path, extra_bufts=options.get("extra_bufts", True), gpu_layers=options.get("gpu_layers")
        )
        self.kv_type = (config.dtype or ("f32" if config.quant == "F32" else "f16")).lower()
        if self.kv_type not in KV_TYPES:
            raise EngineError(unknown("KV cache dtype", self.kv_type, KV_TYPES))
        self.num_threads = int(options.get("threads") or default_threads())
        self.max_num_seqs = min(config.max_num_seqs or 16, MAX_SEATS - 1)
        self.num_seats = min(seats_for(self.max_num_seqs), MAX_SEATS)
        self.pointer = lib.llama_init_from_model(self.model.pointer, self._params(config, options))
        if not self.pointer:
            raise EngineError(f"llama.cpp cannot make a KV cache of {config.kv_tokens} tokens ({last_errors()}).")
        self._memory = lib.llama_get_memory(self.pointer)
        self.num_cells: int = lib.llama_n_ctx(self.pointer)  # rounded up to a multiple of 256
        self.max_model_len = min(config.max_model_len or self.model.max_model_len, self.num_cells)
        # More tokens than n_batch in one llama_decode is a GGML_ASSERT, which ends the process.
        self.token_budget: int = lib.llama_n_batch(self.pointer)
        self.batch = Batch(self.token_budget)
        self._logits_views: dict[int, NDArray[np.float32]] = {}  # by address
        self._load_adapter(config.lora)

    def _params(self, config: EngineConfig, options: dict[str, Any]) -> Any:
        params = lib.llama_context_default_params()
        params.n_ctx = config.kv_tokens or max(4096, config.max_model_len or 0)
        params.n_seq_max, params.kv_unified = self.num_seats, True
        # One llama_decode is one forward pass: never split it into smaller ones.
        params.n_batch = params.n_ubatch = max(config.token_budget or 256, self.max_num_seqs)
        params.n_threads = params.n_threads_batch = self.num_threads
        params.type_k = params.type_v = KV_TYPES[self.kv_type]
        flash = options.get("flash_attn", self.kv_type != "f32")
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.no_perf = True
        # llama.cpp asks before each of some 600 graph nodes; in Python these calls were 5 % of a step. strlen() of C
        # answers: 0 while the text is empty, 1 when interrupt() has written into it.
        self._interrupt = ctypes.create_string_buffer(2)
        params.abort_callback = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
        params.abort_callback_data = ctypes.cast(self._interrupt, ctypes.c_void_p)
        return params

    def _load_adapter(self, path: str | None) -> None:
        if path is None:
            return
        adapter = lib.llama_adapter_lora_init(self.model.pointer, path.encode())  # freed with the model
        if not adapter:
            raise EngineError(f"llama.cpp cannot load the LoRA adapter {path} ({last_errors()}).")
        adapters = (lib.llama_adapter_lora_p_ctypes * 1)(adapter)
        lib.llama_set_adapters_lora(self.pointer, adapters, 1, (ctypes.c_float * 1)(1.0))

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of all layers for one token, in bytes."""
        pointer = self.model.pointer
        head_dim = int(
            self.model.metadata(f"{self.model.metadata('general.architecture')}.attention.key_length")
            or lib.llama_model_n_embd(pointer) // lib.llama_model_n_head(pointer)
        )
        values = 2 * lib.llama_model_n_layer(pointer) * lib.llama_model_n_head_kv(pointer) * head_dim
        return values * KV_BYTES_OF_32_VALUES[self.kv_type] // 32

    def decode(self) -> bool:
        """Compute the batch. False when interrupt() broke it off; the caller must then cut what was to be written.

        Raises: EngineError when llama.cpp refuses the batch.
        """
        code = lib.llama_decode(self.pointer, self.batch.struct)
        if code == 2:
            self._interrupt.value = b""
            return False
        if code:
            raise EngineError(f"llama_decode of {self.batch.num_rows} tokens returned {code} ({last_errors()}).")
        return True

    def interrupt(self) -> None:
        """Break off the decode that runs now, or the next one. From any thread."""
        self._interrupt.value = b"x"

    def logits(self, row: int) -> NDArray[np.float32]:
        """The logits of one batch row, [num_vocab], a view that is valid until the next decode."""
        address = get_logits(self.pointer, row)
        if not address:
            raise EngineError(f"llama.cpp has no logits for row {row} ({last_errors()}).")
        view = self._logits_views.get(address)
        if view is None:  # the rows lie at the same few places in every step
            floats = (ctypes.c_float * self.model.num_vocab).from_address(address)
            view = self._logits_views[address] = np.frombuffer(memoryview(floats), np.float32)
        return view

    def logits_of(self, token_ids: list[int]) -> NDArray[np.float32]:
        """Logits at every position of a text, [num_tokens, num_vocab]. Empties the cache before and after."""
        self.clear()
        self._interrupt.value = b""
        rows: list[NDArray[np.float32]] = []
        for first in range(0, len(token_ids), self.token_budget):
            chunk = token_ids[first : first + self.token_budget]
            self.batch.clear()
            self.batch.add_run(chunk, first, 0, logits=True)
            self.batch.want_all_logits()
            self.decode()
            rows += [self.logits(row).copy() for row in range(len(chunk))]
        self.clear()
        return np.stack(rows)

    def repeat(self, operations: list[SeatOperation]) -> None:
        """Do to the real cache what the pool has done to its picture of it."""
        for op in operations:
            if op.kind == "share":
                lib.llama_memory_seq_cp(self._memory, op.source, op.seat, 0, op.num_tokens)
            else:
                lib.llama_memory_seq_rm(self._memory, op.seat, op.num_tokens, -1)

    def clear(self) -> None:
        """Every cell becomes free."""
        lib.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        if self.pointer:
            lib.llama_free(self.pointer)
            self.pointer = None
        self.model.close()
