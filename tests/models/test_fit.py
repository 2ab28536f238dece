"""The memory calculator: figures worked out by hand, and the line it advises."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from llmlab import models
from llmlab.errors import DoesNotFit, ModelError
from llmlab.models import memory
from llmlab.models.fit import weights_bytes
from llmlab.models.tensors import num_params


def give_memory(monkeypatch: pytest.MonkeyPatch, *, ram: int, gpu: int | None = None) -> None:
    monkeypatch.setattr(memory, "free_ram_bytes", lambda: ram)
    monkeypatch.setattr(memory, "free_gpu_bytes", lambda: gpu)


def test_one_token_of_smollm2_takes_23040_bytes_of_f16_kv(smollm2: models.Model) -> None:
    assert models.kv_bytes_per_token(smollm2.config) == 23_040
    assert models.kv_bytes_per_token(smollm2.config, 4) == 46_080


def test_smollm2_has_134515008_weights(smollm2: models.Model) -> None:
    assert num_params(smollm2.config) == smollm2.num_params == 134_515_008


def test_a_context_of_4096_takes_the_90_mib_that_llama_cpp_reports(smollm2: models.Model) -> None:
    fit = models.fits(smollm2, "llamacpp")
    assert fit.kv_bytes == 94_371_840 == 90 * 1024 * 1024
    assert fit.weights_bytes == 98_362_432
    assert (fit.ctx, fit.seqs, fit.quant) == (4096, 1, "Q4_1")


def test_kv_grows_with_context_and_sequences(smollm2: models.Model) -> None:
    assert models.fits(smollm2, "llamacpp", ctx=512, seqs=16).kv_bytes == 512 * 16 * 23_040


def test_a_shared_pool_is_counted_once_however_many_sequences(
    smollm2: models.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert models.fits(smollm2, "llamacpp", seqs=16, kv_tokens=8192).kv_bytes == 8192 * 23_040
    give_memory(monkeypatch, ram=550_000_000)
    advice = models.fits(smollm2, "llamacpp", ctx=4096, seqs=16, kv_tokens=16384).advice
    assert advice == "%llm load smollm2-135m -e llamacpp -q Q4_1 --ctx 4096 --seqs 16 --kv-tokens 4096"


def test_vllm_on_a_cpu_computes_in_float32_and_on_a_gpu_in_bfloat16(
    smollm2: models.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_memory(monkeypatch, ram=10**10)
    on_cpu = models.fits(smollm2, "vllm", ctx=1000)
    assert (on_cpu.quant, on_cpu.weights_bytes, on_cpu.kv_bytes) == ("F32", 538_060_032, 46_080_000)
    give_memory(monkeypatch, ram=10**10, gpu=10**9)
    on_gpu = models.fits(smollm2, "vllm", ctx=1000)
    assert (on_gpu.quant, on_gpu.weights_bytes, on_gpu.kv_bytes) == ("BF16", 269_030_016, 23_040_000)
    assert (on_gpu.memory, on_gpu.free_bytes, on_gpu.ok) == ("GPU", 10**9, False)


# sizes of files that llama.cpp's quantizer wrote, in bytes
@pytest.mark.parametrize(
    ("quant", "measured"),
    [
        ("F32", 539_845_696),
        ("F16", 270_885_952),
        ("Q8_0", 144_811_072),
        ("Q5_K_M", 112_103_488),
        ("Q4_K_M", 105_454_144),
        ("Q4_0", 91_726_912),
        ("Q2_K", 88_201_792),
    ],
)
def test_estimated_weights_are_within_five_per_cent_of_the_file(
    smollm2: models.Model, quant: str, measured: int
) -> None:
    assert weights_bytes(smollm2.config, quant) == pytest.approx(measured, rel=0.05)


def test_too_little_memory_advises_the_quant_that_fits(smollm2: models.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    give_memory(monkeypatch, ram=560_000_000)
    fit = models.fits(smollm2, "llamacpp", quant="F16")
    assert not fit.ok
    assert fit.advice == "%llm load smollm2-135m -e llamacpp -q Q8_0 --ctx 4096"
    assert re.search(r"needs 0\.67 GB .*; 0\.56 GB of RAM are free\. Try `%llm load", str(fit))
    with pytest.raises(DoesNotFit, match="-q Q8_0"):
        fit.require()


def test_too_long_a_context_advises_the_one_that_fits(smollm2: models.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    give_memory(monkeypatch, ram=1_200_000_000)
    fit = models.fits(smollm2, "llamacpp", ctx=8192, seqs=16)
    assert fit.advice == "%llm load smollm2-135m -e llamacpp -q Q4_1 --ctx 2048 --seqs 16"


def test_the_advice_names_a_file_by_its_path(smollm2: models.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    give_memory(monkeypatch, ram=1_200_000_000)
    advice = models.fits(str(smollm2.path), "llamacpp", ctx=8192, seqs=16).advice
    assert advice == f"%llm load {smollm2.path} -e llamacpp -q Q4_1 --ctx 2048 --seqs 16"


def test_the_advice_fits(smollm2: models.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for ram in range(420_000_000, 4_000_000_000, 60_000_000):
        give_memory(monkeypatch, ram=ram)
        fit = models.fits(smollm2, "llamacpp", quant="F32", ctx=8192, seqs=8)
        if not fit.ok and (line := re.search(r"-q (\w+) --ctx (\d+) --seqs 8", fit.advice)):
            assert models.fits(smollm2, "llamacpp", quant=line[1], ctx=int(line[2]), seqs=8).ok, (ram, fit.advice)


def test_where_nothing_fits_the_small_model_is_advised(smollm2: models.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    give_memory(monkeypatch, ram=1000)
    assert models.fits(smollm2, "llamacpp").advice == "%llm load smollm2-135m"


def test_replay_and_simulation_need_no_memory(smollm2: models.Model) -> None:
    for engine in ("replay", "simulated"):
        assert models.fits(smollm2, engine).needed_bytes == 0


def test_wrong_names_are_refused(smollm2: models.Model) -> None:
    with pytest.raises(ModelError, match=r"Unknown engine 'lamacpp'.*Did you mean 'llamacpp'"):
        models.fits(smollm2, "lamacpp")
    with pytest.raises(ModelError, match="Unknown quant 'Q4'"):
        models.fits(smollm2, "llamacpp", quant="Q4")
    with pytest.raises(ModelError, match=r"vllm loads F32, F16 or BF16 weights, not Q4_0"):
        models.fits(smollm2, "vllm", quant="Q4_0")


def cgroup_v2(root: Path, limits: dict[str, str]) -> Path:
    """A cgroup tree of which /pod/job is ours; 1 GB in use, 0.25 GB of it file cache."""
    for folder, limit in limits.items():
        path = root / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "memory.max").write_text(f"{limit}\n")
        (path / "memory.current").write_text("1000000000\n")
        (path / "memory.stat").write_text("anon 750000000\ninactive_file 250000000\n")
    (root / "self").write_text("0::/pod/job\n")
    return root / "self"


def test_the_limit_of_any_cgroup_around_us_counts(tmp_path: Path) -> None:
    process = cgroup_v2(tmp_path, {"pod": "1500000000", "pod/job": "max"})
    assert memory.free_ram_bytes(tmp_path, process) == 1_500_000_000 - 1_000_000_000 + 250_000_000
    process = cgroup_v2(tmp_path, {"pod": "max", "pod/job": "1100000000"})
    assert memory.free_ram_bytes(tmp_path, process) == 350_000_000


def test_cgroup_version_1_counts_too(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text("800000000\n")
    (folder / "memory.usage_in_bytes").write_text("300000000\n")
    (folder / "memory.stat").write_text("total_inactive_file 100000000\n")
    (tmp_path / "self").write_text("5:cpu,cpuacct:/job\n9:memory:/job\n")
    assert memory.free_ram_bytes(tmp_path, tmp_path / "self") == 600_000_000


def test_without_limits_the_free_ram_of_the_machine_counts(tmp_path: Path) -> None:
    import psutil

    free = memory.free_ram_bytes(tmp_path, cgroup_v2(tmp_path, {"pod": "max", "pod/job": "max"}))
    assert free == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert memory.free_ram_bytes(tmp_path, tmp_path / "no such file") > 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script as nvidia-smi")
def test_the_first_visible_gpu_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text('#!/bin/sh\ncase "$*" in *"-i 1"*) echo 500;; *) echo 143000; echo 500;; esac\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert memory.free_gpu_bytes() == 143_000 * 1024 * 1024
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert memory.free_gpu_bytes() == 500 * 1024 * 1024
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert memory.free_gpu_bytes() is None


def test_no_nvidia_smi_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert memory.free_gpu_bytes() is None
