"""environment.yml promises conda users the same versions that pyproject.toml promises pip users."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# in environment.yml and not in pyproject.toml: what builds and installs
CONDA_ONLY = {"cxx-compiler", "make", "pip", "uv"}


def bounds(requirements: list[str]) -> dict[str, str]:
    """{"pandas": ">=2.2.3", ...}; names as pip compares them."""
    split = (re.match(r"([\w.-]+)\s*([^;]*)", requirement.split(" #")[0]) for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", m[1]).lower(): m[2].strip() for m in split if m}


CONDA = bounds(yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"])
EXTRAS = PROJECT["optional-dependencies"]
PIP = bounds([*PROJECT["dependencies"], *EXTRAS["lab"], *EXTRAS["views"], *EXTRAS["llamacpp"]])


def test_both_files_ask_for_the_same_python():
    assert CONDA["python"] == PROJECT["requires-python"]


@pytest.mark.parametrize("name", sorted(CONDA.keys() - CONDA_ONLY - {"python"}))
def test_a_package_of_environment_yml_has_the_bound_of_pyproject(name: str):
    assert CONDA[name] == PIP.get(name)


def test_environment_yml_holds_all_that_importing_llmlab_opening_a_notebook_and_its_pictures_need():
    needed = bounds([*PROJECT["dependencies"], *EXTRAS["lab"], *EXTRAS["views"]])
    assert needed.keys() <= CONDA.keys()


def test_every_dependency_has_a_lower_bound():
    everything = [*PROJECT["dependencies"], *(requirement for extra in EXTRAS.values() for requirement in extra)]
    assert {name for name, bound in bounds(everything).items() if not bound.startswith((">=", "=="))} == set()


def test_make_and_conda_install_the_same_uv_or_newer():
    assert f"uv{CONDA['uv']}" in (ROOT / "Makefile").read_text()
