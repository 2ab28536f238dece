"""Embedder: one vector for a text, in a context of its own beside the one that serves requests.

This file must not know requests or scheduling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmlab.engines.llamacpp_library import Batch, Model, last_errors, lib
from llmlab.errors import EngineError, RequestError

# The mean over a text needs all of it in one forward pass, and room for that is taken once.
MAX_TOKENS = 1024


class Embedder:
    """Takes the room of a KV cache of MAX_TOKENS. Raises: EngineError when there is none."""

    def __init__(self, model: Model, num_threads: int) -> None:
        params = lib.llama_context_default_params()
        self.max_tokens = min(MAX_TOKENS, model.max_model_len)
        params.n_ctx = params.n_batch = params.n_ubatch = self.max_tokens
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = num_threads
        params.embeddings, params.pooling_type = True, lib.LLAMA_POOLING_TYPE_MEAN
        params.no_perf = True
        self._size = int(lib.llama_model_n_embd(model.pointer))
        self._pointer = lib.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise EngineError(f"llama.cpp cannot make a context for embeddings ({last_errors()}).")
        self._batch = Batch(self.max_tokens)

    def embed(self, token_ids: list[int]) -> NDArray[np.float32]:
        """[hidden_size], of length 1: the mean of the last hidden states.

        Raises: RequestError for a text that is empty or too long.
        """
        if not 0 < len(token_ids) <= self.max_tokens:
            raise RequestError(f"embed() takes 1 to {self.max_tokens} tokens, this text has {len(token_ids)}.")
        lib.llama_memory_clear(lib.llama_get_memory(self._pointer), True)
        self._batch.clear()
        self._batch.add_run(token_ids, 0, 0, logits=True)
        self._batch.want_all_logits()
        if code := lib.llama_decode(self._pointer, self._batch.struct):
            raise EngineError(f"llama_decode of {len(token_ids)} tokens returned {code} ({last_errors()}).")
        vector = np.ctypeslib.as_array(lib.llama_get_embeddings_seq(self._pointer, 0), (self._size,)).copy()
        return vector / np.linalg.norm(vector)

    def close(self) -> None:
        if self._pointer:
            lib.llama_free(self._pointer)
            self._pointer = None
