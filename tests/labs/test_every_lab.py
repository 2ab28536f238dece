"""What holds for each lab, whichever there are: its files say the same."""

from __future__ import annotations

import pytest
from lab_support import LAB_IDS, assert_made_from_master, source_of

from llmlab.labs.finding import find_lab


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_starter_and_reference_are_what_the_master_defines(lab_id: str):
    assert_made_from_master(find_lab(lab_id))


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_the_readme_says_what_the_description_says(lab_id: str):
    lab = find_lab(lab_id)
    readme = source_of(lab, "README.md")
    assert f"{lab.minutes} minutes" in readme and all(engine in readme for engine in lab.engines)
