"""labs/README.md says of each lab what its description says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lab_support import LAB_IDS, mistakes_of

from llmlab.labs.finding import LABS, find_lab

README = (LABS / "README.md").read_text()


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_the_plan_has_each_lab_with_its_minutes_and_engines(lab_id: str):
    lab = find_lab(lab_id)
    [row] = [line for line in README.splitlines() if line.startswith("|") and f"[{lab_id}]({lab.name}/)" in line]
    assert f"{lab.minutes} min" in row
    assert {engine for engine in lab.engines if engine not in row} == set()


def test_every_message_quoted_is_one_that_a_wrong_solution_earns():
    quoted = re.findall(r"^- lab\d\d: “(.+?)”", README, re.MULTILINE)
    texts = " ".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for id_ in LAB_IDS for path in mistakes_of(find_lab(id_))
    )
    assert len(quoted) >= 6 and not [text for text in quoted if text not in texts]


def test_every_command_named_is_there():
    for command in re.findall(r"`llmlab labs (\w+)", README):
        assert command in ("build", "grade", "starters")
    assert Path(LABS, "README.md").stat().st_size < 9000
