"""llama.cpp on its low-level API, as the judge of the files that llmlab writes."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np


@lru_cache(maxsize=1)
def quiet_llama_cpp() -> Any:
    """The module, its log switched off; llama.cpp keeps the callback for good, so it is never freed."""
    # read when libgomp and llama.cpp load
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    import llama_cpp as api

    api.silence = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(api.silence, ctypes.c_void_p(0))
    return api


class LlamaCpp:
    """One GGUF file in llama.cpp, F32 KV and no flash attention: the setting that equals transformers float32."""

    def __init__(self, path: Path, num_ctx: int = 512, vocab_only: bool = False) -> None:
        self.api = quiet_llama_cpp()
        params = self.api.llama_model_default_params()
        params.vocab_only = vocab_only
        self.model = self.api.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp refuses {path}"
        self.vocab = self.api.llama_model_get_vocab(self.model)
        self.context = None if vocab_only else self._new_context(num_ctx)

    def _new_context(self, num_ctx: int) -> Any:
        params = self.api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = num_ctx
        params.type_k = params.type_v = 0  # F32
        params.flash_attn_type = self.api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_threads = params.n_threads_batch = 1
        context = self.api.llama_init_from_model(self.model, params)
        assert context
        return context

    def token_ids(self, text: str, add_special: bool = False) -> list[int]:
        encoded = text.encode()
        room = len(encoded) + 8
        buffer = (ctypes.c_int32 * room)()
        count = self.api.llama_tokenize(self.vocab, encoded, len(encoded), buffer, room, add_special, True)
        assert count >= 0
        return list(buffer[:count])

    def apply_lora(self, path: Path) -> None:
        adapter = self.api.llama_adapter_lora_init(self.model, str(path).encode())
        assert adapter, f"llama.cpp refuses {path}"
        adapters = (self.api.llama_adapter_lora_p_ctypes * 1)(adapter)
        assert self.api.llama_set_adapters_lora(self.context, adapters, 1, (ctypes.c_float * 1)(1.0)) == 0

    def logits(self, token_ids: list[int]) -> np.ndarray:
        """Logits at every position, [num_tokens, vocab_size]."""
        count = len(token_ids)
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        batch = self.api.llama_batch_init(count, 0, 1)
        for row, token in enumerate(token_ids):
            batch.token[row], batch.pos[row], batch.logits[row] = token, row, 1
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
        batch.n_tokens = count
        assert self.api.llama_decode(self.context, batch) == 0
        vocab_size = self.api.llama_vocab_n_tokens(self.vocab)
        rows = np.ctypeslib.as_array(self.api.llama_get_logits(self.context), (count * vocab_size,)).copy()
        self.api.llama_batch_free(batch)
        return rows.reshape(count, vocab_size)

    def close(self) -> None:
        if self.context:
            self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)
