"""Quantizes a GGUF file with llama.cpp, in a process of its own: a crash there costs an error message, not the kernel.

`quantize` is what the library calls; `python -m llmlab.models.llama_quantize SRC DST FILE_TYPE` is the worker that it
starts. Only the worker imports llama_cpp. This file must not know the cache.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from llmlab.errors import ModelError
from llmlab.models.quants import Quant

# libgomp spins at every barrier unless told so before it loads; a backtrace of a failed assertion would start gdb
_ENVIRONMENT = {"GOMP_SPINCOUNT": "1000", "GGML_NO_BACKTRACE": "1"}
_NO_LLAMA_CPP = 3
_LOG_TAIL_LINES = 5


def quantize(source: Path, target: Path, quant: Quant, progress: Callable[[int], object]) -> None:
    """Writes `target`; `progress` is called with 1 for each tensor done.

    Raises ModelError with the end of llama.cpp's log when it fails or dies, or when llama-cpp-python is missing.
    """
    command = [sys.executable, "-m", __name__, str(source), str(target), str(quant.file_type)]
    log: list[str] = []
    worker = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **_ENVIRONMENT},
    )
    try:
        assert worker.stderr is not None
        for line in worker.stderr:
            log.append(line.rstrip())
            # llama.cpp writes "[  12/ 272]   blk.0.attn_q.weight - ..." before each tensor
            if re.match(r"\[ *\d+/ *\d+\]", line):
                progress(1)
        code = worker.wait()
    finally:
        # an interrupted notebook cell must not leave the worker behind
        worker.kill()
        worker.wait()
    if code:
        raise _failed(source, quant, code, log)


def _failed(source: Path, quant: Quant, code: int, log: list[str]) -> ModelError:
    if code == _NO_LLAMA_CPP:
        return ModelError(
            f"Making {quant.name} needs llama.cpp's quantizer. Install it with `pip install 'llmlab-kit[llamacpp]'`,"
            " or use F32, F16 or BF16."
        )
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with code {code}"
    tail = "\n".join(log[-_LOG_TAIL_LINES:])
    return ModelError(
        f"llama.cpp's quantizer {how} on {source} -> {quant.name}. Try F16 instead. Its last words:\n{tail}"
    )


def main(source: str, target: str, file_type: int) -> int:
    """The worker: llama.cpp's return code, its log on stderr."""
    try:
        import llama_cpp
    except ImportError:
        return _NO_LLAMA_CPP
    import ctypes

    threading.Thread(target=_end_with_parent, daemon=True).start()

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def to_stderr(level: int, text: bytes, user_data: object) -> None:
        sys.stderr.buffer.write(text)
        sys.stderr.flush()

    llama_cpp.llama_log_set(to_stderr, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = os.cpu_count() or 1
    code: int = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    return 1 if code else 0


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone: then its end of our stdin closes."""
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin itself: its lock would break our own shutdown
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
