"""What holds for each lab, whichever there are: its files say the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lab_support import LAB_IDS, assert_made_from_master, source_of

from llmlab.labs.finding import find_lab


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_starter_and_reference_are_what_the_master_defines(lab_id: str):
    assert_made_from_master(find_lab(lab_id))


WITHOUT_ENGINES = """
import json, sys

sys.modules.update(dict.fromkeys(("torch", "vllm", "llama_cpp", "transformers")))  # None: not installed
from lab_support import LAB_IDS, reasons_of, source_of
from llmlab.labs.finding import find_lab

labs = [find_lab(name) for name in LAB_IDS]
print(json.dumps({lab.lab_id: reasons_of(lab, source_of(lab, "reference.py")) for lab in labs}))
"""


@pytest.mark.slow
def test_the_code_of_each_lab_is_checked_where_no_engine_is_installed():
    told = subprocess.check_output([sys.executable, "-c", WITHOUT_ENGINES], cwd=Path(__file__).parent, text=True)
    reasons = json.loads(told.splitlines()[-1])
    assert list(reasons) == LAB_IDS and all(reasons.values())
    assert {name: why for lab in reasons.values() for name, why in lab.items() if why} == {}


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_the_readme_says_what_the_description_says(lab_id: str):
    lab = find_lab(lab_id)
    readme = source_of(lab, "README.md")
    assert f"{lab.minutes} minutes" in readme and all(engine in readme for engine in lab.engines)
