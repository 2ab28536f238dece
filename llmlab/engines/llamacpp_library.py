"""llama.cpp's C library as this project uses it: quiet, safe defaults, batches over numpy arrays.

This file must not know requests or scheduling. Function names and traps: llama-cpp-python 0.3.36, libllama 0.5.0.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

# libgomp reads its variable when it is loaded: threads that spin for ever at each barrier make a shared machine 20x
# slower. Without the second, a failed GGML_ASSERT waits seconds for gdb.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

import llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from llmlab.errors import EngineError

__all__ = ["Batch", "Model", "get_logits", "last_errors", "lib", "start_library"]

LOG_WARN, LOG_ERROR = 3, 4
# The state writer says this each time its buffer is meant to be too small, see llamacpp_cells.py.
_EXPECTED = b"unexpectedly reached end of buffer"

_errors: list[str] = []


def _log(level: int, text: bytes, _user_data: object) -> None:
    if level in (LOG_WARN, LOG_ERROR) and _EXPECTED not in text:
        line = text.decode("utf-8", "replace")
        sys.stderr.write(line)
        if level == LOG_ERROR:
            _errors.append(line.strip())
            del _errors[:-5]


_log_callback = lib.llama_log_callback(_log)  # C keeps no reference


# The address of a row as a number, 0 when there is none: wrapping it into a pointer object costs more than the call.
get_logits = lib.llama_cpp._lib["llama_get_logits_ith"]
get_logits.argtypes, get_logits.restype = [ctypes.c_void_p, ctypes.c_int32], ctypes.c_void_p


def start_library() -> None:
    """Load the backends. Warnings and errors go to stderr, the rest nowhere (the import had reset the callback)."""
    lib.llama_log_set(_log_callback, ctypes.c_void_p(0))
    lib.llama_backend_init()


def last_errors() -> str:
    """What llama.cpp last complained about, for an error message."""
    return "; ".join(_errors[-3:])


class Model:
    """A loaded GGUF and its vocabulary.

    Raises: EngineError when llama.cpp cannot load the file.
    """

    def __init__(self, path: str, *, extra_bufts: bool = True, gpu_layers: int | None = None) -> None:
        params = lib.llama_model_default_params()
        params.use_extra_bufts = extra_bufts
        if gpu_layers is not None:
            params.n_gpu_layers = gpu_layers
        self.pointer = lib.llama_model_load_from_file(path.encode(), params)
        if not self.pointer:
            raise EngineError(f"llama.cpp cannot load {path} ({last_errors() or 'no reason given'}).")
        self.vocab = lib.llama_model_get_vocab(self.pointer)
        self.num_vocab: int = lib.llama_vocab_n_tokens(self.vocab)
        self.max_model_len: int = lib.llama_model_n_ctx_train(self.pointer)
        self.size_bytes: int = lib.llama_model_size(self.pointer)
        self._pieces: dict[tuple[int, bool], bytes] = {}
        self._ends: dict[int, bool] = {}
        self._token_buffer = ctypes.create_string_buffer(512)

    def tokenize(self, text: str) -> list[int]:
        """Chat markers in the text become their tokens; BOS is added where the model's file asks for it."""
        raw = text.encode("utf-8", "replace")
        add_bos = bool(lib.llama_vocab_get_add_bos(self.vocab))
        room = len(raw) + 8
        ids = (lib.llama_token * room)()
        n = lib.llama_tokenize(self.vocab, raw, len(raw), ids, room, add_bos, True)
        return list(ids[:n])

    def piece(self, token_id: int, *, special: bool = False) -> bytes:
        """The bytes of a token; b"" for chat markers unless special."""
        key = (token_id, special)
        if key not in self._pieces:
            buffer = self._token_buffer
            n = lib.llama_token_to_piece(self.vocab, token_id, buffer, len(buffer), 0, special)
            self._pieces[key] = buffer.raw[: max(n, 0)]
        return self._pieces[key]

    def token_text(self, token_id: int) -> str:
        return self.piece(token_id, special=True).decode("utf-8", "replace") if token_id >= 0 else ""

    def is_end(self, token_id: int) -> bool:
        """True for tokens that end an answer."""
        if token_id not in self._ends:
            self._ends[token_id] = bool(lib.llama_vocab_is_eog(self.vocab, token_id))
        return self._ends[token_id]

    @property
    def bos_token(self) -> str:
        return self.token_text(lib.llama_vocab_bos(self.vocab))

    @property
    def eos_token(self) -> str:
        return self.token_text(lib.llama_vocab_eos(self.vocab))

    @property
    def chat_template(self) -> str | None:
        template = lib.llama_model_chat_template(self.pointer, None)
        return template.decode("utf-8", "replace") if template else None

    def metadata(self, key: str) -> str | None:
        """A value of the GGUF header as text."""
        n = lib.llama_model_meta_val_str(self.pointer, key.encode(), self._token_buffer, len(self._token_buffer))
        return self._token_buffer.value.decode("utf-8", "replace") if n >= 0 else None

    def close(self) -> None:
        if self.pointer:
            lib.llama_model_free(self.pointer)
            self.pointer = None


class Batch:
    """A llama_batch over numpy arrays: rows of (token, position, seat), filled a run at a time."""

    def __init__(self, capacity: int) -> None:
        self.token: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.position: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self._num_seats = np.ones(capacity, np.int32)
        self._seat = np.zeros(capacity, np.int32)
        self._wants_logits = np.zeros(capacity, np.int8)
        address, width = self._seat.ctypes.data, self._seat.itemsize
        self._seat_pointers = np.arange(address, address + capacity * width, width, dtype=np.uint64)
        self.struct = lib.llama_batch()
        self.struct.token = _pointer(self.token, ctypes.c_int32)
        self.struct.pos = _pointer(self.position, ctypes.c_int32)
        self.struct.n_seq_id = _pointer(self._num_seats, ctypes.c_int32)
        self.struct.seq_id = _pointer(self._seat_pointers, ctypes.POINTER(ctypes.c_int32))
        self.struct.logits = _pointer(self._wants_logits, ctypes.c_int8)
        self.num_rows = 0

    def clear(self) -> None:
        self._wants_logits[: self.num_rows] = 0
        self.num_rows = 0

    def add_run(self, token_ids: list[int], first_position: int, seat: int, *, logits: bool) -> int:
        """Append consecutive tokens of one seat. The row number of the last one: its logits lie there if asked for."""
        start, end = self.num_rows, self.num_rows + len(token_ids)
        self.token[start:end] = token_ids
        self.position[start:end] = range(first_position, first_position + len(token_ids))
        self._seat[start:end] = seat
        self._wants_logits[end - 1] = logits
        self.num_rows = self.struct.n_tokens = end
        return end - 1

    def want_all_logits(self) -> None:
        self._wants_logits[: self.num_rows] = 1


def _pointer(array: NDArray[Any], kind: type[Any]) -> Any:
    """A C pointer to the memory of an array, which the caller keeps alive."""
    return ctypes.cast(ctypes.c_void_p(array.ctypes.data), ctypes.POINTER(kind))
