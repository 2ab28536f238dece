"""llama-server with the embedded model, in a process of its own, until the end of a `with`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmlab import models

SCRIPT = Path(__file__).resolve().parent.parent / "remote" / "llama_server.py"


@contextmanager
def llama_served() -> Iterator[str]:
    """Its address. Skips the test where xllamacpp is not installed."""
    pytest.importorskip("xllamacpp")
    command = [sys.executable, str(SCRIPT), str(models.get("smollm2-135m").gguf("Q8_0"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield next(line.strip() for line in process.stdout if line.startswith("http"))
        process.stdin.close()
        process.wait(20)
