"""Which way knowledge flows: a part of llmlab imports only parts before it, and heavy packages stay in their place."""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import llmlab

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "llmlab"
MODULES = sorted(PACKAGE.rglob("*.py"))
# design: a part may import the parts before it, and itself
ORDER = (
    "language errors cards shipped trace metrics models scheduling engines doctor parity compare quality bench report "
    "serve classroom remote gateway views labs magics cli"
).split()
# third-party package -> the only files that may import it
ONLY_IN = {
    "IPython": ["magics/*", "views/display.py"],
    "anywidget": ["views/*"],
    "ipywidgets": ["views/*"],
    "plotly": ["views/*"],
    "PIL": ["views/*"],
    # the quantizer runs in a process of its own, because llama.cpp may abort it
    "llama_cpp": ["engines/llamacpp*.py", "models/llama_quantize.py"],
    "vllm": ["engines/vllm*.py"],
    "ray": ["engines/vllm_ray.py"],
    "torch": ["engines/torch*.py", "engines/vllm*.py"],
    "transformers": ["engines/torch*.py"],
    "triton": ["engines/torch_kernel.py"],
    "starlette": ["serve/*", "classroom/*", "gateway/*"],
    "uvicorn": ["serve/*", "gateway/server.py"],
    "prometheus_client": ["serve/*", "gateway/*"],
    "aiohttp": ["gateway/*"],
    "jwt": ["gateway/oidc.py"],
    "yaml": ["gateway/reading.py"],
    "jupyterhub": ["classroom/hub.py"],
    "openai": ["remote/openai_server.py"],
    "ollama": ["remote/ollama_server.py"],
    "keyring": ["remote/keys.py"],
}
# by torch, for GPUs; where it is not, the engine does without
BROUGHT_ALONG = ("triton",)
FACADE = PACKAGE / "__init__.py"


def imported_names(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that `source`, a module of `package`, imports: in functions too, and by name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "llmlab":
            yield node.lineno, f"llmlab.{node.attr}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return imported_names(path.read_text(), package)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def part_imported(name: str) -> str:
    """The part behind a dotted name that starts with llmlab; "" for the package itself, its version and its file.

    llmlab.load is what the facade takes from engines.
    """
    first = name.split(".")[1] if "." in name else ""
    if (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file():
        return first
    return llmlab._EXPORTS.get(first, "llmlab.").partition(":")[0].split(".")[1]


def is_library_name(name: str) -> bool:
    return name.split(".")[0] == "llmlab"


@pytest.mark.parametrize("path", [p for p in MODULES if p != FACADE], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_part_imports_only_parts_before_it(path: Path):
    part = part_of(path)
    assert part in ORDER, f"llmlab/{part} has no place in ORDER yet: say here which parts it may import."
    allowed = ["", *ORDER[: ORDER.index(part) + 1]]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}; {part} may import {', '.join(allowed[1:])}"
        for line, name in imports_of(path)
        if is_library_name(name) and part_imported(name) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_only_in_their_own_files(path: Path):
    inside = str(path.relative_to(PACKAGE))
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}; only {' or '.join(places)} may"
        for line, name in imports_of(path)
        if (places := ONLY_IN.get(name.split(".")[0])) and not any(fnmatch.fnmatch(inside, place) for place in places)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_library_knows_no_labs_notebooks_or_tests():
    roots = {(path, name.split(".")[0]) for path in MODULES for _, name in imports_of(path)}
    assert not [(str(path), root) for path, root in roots if root in ("labs", "notebooks", "tests", "benchmarks")]


def test_the_facade_imports_the_standard_library_only():
    assert {name.split(".")[0] for _, name in imports_of(FACADE)} <= sys.stdlib_module_names


def test_every_package_the_library_imports_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    declared = {canonical(re.split(r"[<>=!~; \[]", requirement)[0]) for requirement in requirements}
    distributions = packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)} imports {root}"
        for path in MODULES
        for root in {name.split(".")[0] for _, name in imports_of(path)} - sys.stdlib_module_names - {"llmlab"}
        if not declared & {canonical(d) for d in distributions.get(root, [root])} and root not in BROUGHT_ALONG
    }
    assert not undeclared, "\n".join(sorted(undeclared))


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import llmlab.magics.verbs", "llmlab.magics.verbs"),
        ("from llmlab.trace import Step", "llmlab.trace.Step"),
        ("from llmlab import load", "llmlab.load"),
        ("def f():\n    import torch", "torch"),
        ("llmlab.load('smollm2-135m')", "llmlab.load"),
        ("from . import host", "llmlab.engines.host"),
        ("from ..magics import x", "llmlab.magics.x"),
        ("importlib.import_module('vllm.core')", "vllm.core"),
        ("if TYPE_CHECKING:\n    from IPython import get_ipython", "IPython.get_ipython"),
    ],
)
def test_the_reader_of_imports_sees_every_way_to_import(source: str, found: str):
    assert [name for _, name in imported_names(source, "llmlab.engines")] == [found]


def test_a_name_of_the_facade_counts_as_the_part_it_comes_from():
    names = ("llmlab.load", "llmlab.trace.Step", "llmlab", "llmlab.__version__")
    assert [part_imported(name) for name in names] == ["engines", "trace", "", ""]


HEAVY = "torch vllm llama_cpp transformers plotly anywidget ipywidgets pandas numpy IPython".split()


def test_importing_llmlab_loads_nothing_heavy_and_takes_50_ms_at_most():
    code = (
        "import sys, time; start = time.perf_counter(); import llmlab; took_s = time.perf_counter() - start;"
        f"print(took_s, *sorted(set({HEAVY}) & set(sys.modules)))"
    )
    outputs = [subprocess.check_output([sys.executable, "-c", code], text=True).split() for _ in range(3)]
    assert [heavy for _, *heavy in outputs] == [[], [], []]
    assert min(float(took_s) for took_s, *_ in outputs) <= 0.050


@pytest.mark.parametrize("name", sorted(llmlab._EXPORTS))
def test_every_public_name_leads_somewhere(name: str):
    assert getattr(llmlab, name) is not None
    assert name in dir(llmlab)


def test_an_unknown_name_is_an_attribute_error_so_that_hasattr_works():
    assert not hasattr(llmlab, "laod")


def test_a_function_is_not_hidden_by_the_module_of_the_same_name():
    code = "from llmlab.doctor import doctor; import llmlab; assert llmlab.doctor is doctor"
    subprocess.run([sys.executable, "-c", code], check=True)
