"""Without an engine: what labs 1 to 3 say to type instead makes their predictions come true on recorded runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lab_support import source_of

import llmlab
from llmlab.errors import LlmlabError
from llmlab.labs import work
from llmlab.labs.finding import LABS, find_lab
from llmlab.labs.master import cells_of, with_solutions
from llmlab.labs.needed import as_python
from llmlab.trace import Trace

# The cells of the notebook with the reference in it; then what is typed, with no time to wait. The checks themselves
# have tests of their own: without engines in test_every_lab.py.
WITHOUT_ENGINES = """
import json, sys
from contextlib import suppress
from types import SimpleNamespace

sys.modules.update(dict.fromkeys(("torch", "vllm", "llama_cpp", "transformers")))  # None: not installed
import llmlab
from llmlab.labs import recordings, work
from llmlab.labs.figures import own_figures
from llmlab.labs.reflection import FIGURES, answered
from llmlab.labs.results import Results

work.Judge = lambda lab, **_: SimpleNamespace(names=lambda names, asked: Results(lab.title, ()))
lab_id, cells, typed = json.loads(sys.stdin.read())
work.start(lab_id)
lab, names = work.current_work().lab, {}
for cell in (one for one in cells if "roofline(" not in one):  # it measures this computer
    with suppress(Exception):  # it needs an engine
        exec(cell, names)
llmlab.labs.recorded = lambda name: recordings.recorded(name, speed=0)
exec(typed, names)
for question_id in lab.predictions:
    work.predict(question_id, 1, names={})
for index in range(2):
    answered("", index, {**names, FIGURES: own_figures(lab, names)}, 0)
print(json.dumps({name: work.check(name, names=names).notes for name in lab.predictions}))
"""
SHOWN = {
    "lab01": {
        "Q1": "your run: [3, 1, 3]",
        "Q3": "Q3: yours -0.",
        "Q4": "your run: 5",
        "Q6": "the recorded run: 2 (reported)",
    },
    "lab02": {"Q1": "times the operations. This is reported", "Q3": "the recorded run: 4608000.0 (reported)"},
    "lab03": {"Q1": "the recorded run: 5 (reported)"},
}


@pytest.mark.slow
@pytest.mark.parametrize("lab_id", SHOWN)
def test_without_an_engine_each_prediction_meets_a_truth_and_what_was_recorded_is_reported(lab_id: str, tmp_path: Path):
    lab = find_lab(lab_id)
    master = source_of(lab, "lab.py")
    cells = [as_python(cell.text) for cell in cells_of(with_solutions(master)) if cell.is_code]
    [typed] = re.findall(r"^# ```python\n(.*?)^# ```$", master, re.MULTILINE | re.DOTALL)
    order = json.dumps([lab_id, cells, re.sub(r"^# ", "", typed, flags=re.MULTILINE)])
    said = subprocess.check_output([sys.executable, "-c", WITHOUT_ENGINES], cwd=tmp_path, input=order, text=True)
    notes = json.loads(said.splitlines()[-1])
    for question_id in lab.predictions:
        told = " ".join(notes[question_id])
        assert f"{question_id}: you: 1, " in told and SHOWN[lab_id].get(question_id, "") in told


def test_an_unknown_recording_is_told_which_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "_current", None)
    work.start("lab03")
    with pytest.raises(LlmlabError, match=r"Unknown recorded run 'q2'\. Known: cells, q1"):
        llmlab.labs.recorded("q2")


@pytest.mark.parametrize(
    "path", sorted(LABS.glob("*/recorded/*.jsonl.gz")), ids=lambda path: path.parts[-3][:5] + path.name
)
def test_no_rule_of_a_trace_is_broken_in_a_recording(path: Path):
    assert Trace.load(path).validate() == []
