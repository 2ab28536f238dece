"""What a wheel carries: the labs in their form for students, and no answer."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from llmlab.labs.master import with_solutions, without_solutions

ROOT = Path(__file__).resolve().parent.parent
LABS = sorted(path.parent for path in (ROOT / "labs").glob("lab[0-9][0-9]_*/checks.py"))
PLACE = "llmlab/exercises"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name -> text of its files, as hatch builds it."""
    from hatchling.builders.wheel import WheelBuilder

    [built] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    with zipfile.ZipFile(built) as packed:
        return {name: packed.read(name).decode(errors="replace") for name in packed.namelist()}


@pytest.mark.slow
@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_a_lab_travels_without_its_solutions_and_hidden_checks(wheel: dict[str, str], lab: Path):
    carried = {
        name.removeprefix(f"{PLACE}/{lab.name}/"): text for name, text in wheel.items() if f"/{lab.name}/" in name
    }
    assert {"lab.py", "checks.py"} <= carried.keys()
    assert not carried.keys() & {"reference.py", "starter.py", "README.md"}
    master = (lab / "lab.py").read_text()
    assert carried["lab.py"] == without_solutions(master) != with_solutions(master)
    assert "withheld, is_hidden=True" in carried["checks.py"]


@pytest.mark.slow
def test_all_else_that_is_needed_is_in_the_wheel(wheel: dict[str, str]):
    translation = "llmlab/translations/zh_CN/lab03.toml"
    for name in ("llmlab/cli.py", "llmlab/notebooks/00_quickstart.ipynb", "llmlab/views/static", translation):
        assert any(found.startswith(name) for found in wheel), name
    assert {name.split("/")[0] for name in wheel if ".dist-info" not in name} == {"llmlab"}
