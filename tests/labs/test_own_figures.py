"""A reflection names a figure of the student's own runs: found in his notebook, kept in his record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lab_support import LAB_IDS

from llmlab.labs import exported, work
from llmlab.labs.description import CheckFailed, Figure, Lab, Prediction, Question
from llmlab.labs.figures import Own, keep_figures, names_one, numbers_in, own_figures, recorded_figures
from llmlab.labs.finding import find_lab
from llmlab.labs.graded_cells import SKIPPED
from llmlab.labs.master import cells_of
from llmlab.labs.record import Record
from llmlab.labs.reflection import FIGURES, answered

WORDS = " words that fill an answer until it is as long as an answer of a student has to be"


def test_the_numbers_of_a_text_have_units_and_parts_of_names_are_none():
    text = "SmolLM2-135M in F16 and Q4_0 took 75ms, 0.5 s or 1,234.5 µs; 12.5% of 91.7 MB, 2 KiB, 16 steps and .5 of x2"
    assert [(one.text, one.kind) for one in numbers_in(text)] == [
        ("75", "s"), ("0.5", "s"), ("1,234.5", "s"), ("12.5", "share"), ("91.7", "bytes"), ("2", "bytes"), ("16", ""),
        (".5", ""),
    ]  # fmt: skip
    assert [one.value for one in numbers_in("第2步用了 80 毫秒，共 50 %")] == [2, 0.08, 0.5]


NAMED = {
    "counted, exactly": ("281 tokens", Own("", 281), True),
    "counted, next to it": ("17 sequences", Own("", 18), False),
    "counted, three digits of it": ("143 MB", Own("", 142_884_864, "bytes"), True),
    "measured, rounded": ("about 0.08 s", Own("", 0.0753, "s"), True),
    "measured, in other units": ("75 ms", Own("", 0.0753, "s"), True),
    "measured, as a table shows it": ("a gap of 75", Own("", 0.0753, "s"), True),
    "measured, rounded to nothing": ("1 s", Own("", 0.53, "s"), False),
    "measured, another one": ("0.09 s", Own("", 0.0753, "s"), False),
    "a share": ("74 % of the seats", Own("", 0.743, "share"), True),
    "a share as a number": ("a share of 0.74", Own("", 0.743, "share"), True),
    "a number of another unit": ("5 ms", Own("", 5), False),
    "without its sign": ("a logprob of 0.53", Own("", -0.532), True),
    "none for zero": ("0.4 of them", Own("", 0), False),
    "zero": ("0 bytes differ", Own("", 0, "bytes"), True),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_figure_is_named_as_a_person_rounds_it_and_in_its_unit(name: str):
    text, figure, is_named = NAMED[name]
    assert names_one(text, [figure]) is is_named


def small(*figures: Figure) -> Lab:
    """A lab with a prediction about `q1`, and these figures."""
    asked = Question("Q1", "one", prediction=Prediction("?", "q1", list, "so.", unit="MB"))
    return Lab("Lab 99", 5, (), (asked,), figures=figures)


def test_figures_are_the_truths_of_predictions_and_what_the_lab_names_and_what_fails_is_left_out():
    lab = small(
        Figure("seconds", "run", lambda run: {"a": run["s"]}, "ms"),
        Figure("gone", "run", lambda run: run["nothing"]),
        Figure("no numbers", "run", lambda run: ["right", True, None, float("nan")]),
    )
    found = own_figures(lab, {"q1": [92, "right"], "run": {"s": 20.0}})
    assert found == [Own("Q1", 92e6, "bytes"), Own("seconds", 0.02, "s")]
    assert own_figures(lab, {"q1": 5}) == []


def test_a_record_keeps_each_figure_once_and_a_damaged_one_what_can_be_read(tmp_path: Path):
    record = Record(tmp_path / "r.jsonl")
    keep_figures(record, [Own("Q1", 5), Own("Q1", 5)])
    assert keep_figures(record, [Own("Q1", 5), Own("Q2", 0.5, "s")]) == [Own("Q1", 5), Own("Q2", 0.5, "s")]
    assert len(record.events("figures")) == 2
    record.add("figures", figures=[["Q3", "five", ""]])
    assert recorded_figures(record) == [Own("Q1", 5), Own("Q2", 0.5, "s")]


def test_an_answer_without_a_figure_of_the_own_run_is_told_which_would_do_and_not_what_they_are():
    names = {"reflection": ["There were 41 blocks," + WORDS], FIGURES: (Own("Q1", 5), Own("the blocks", 77))}
    with pytest.raises(CheckFailed) as failed:
        answered("Q7", 0, names, 0)
    told = str(failed.value)
    assert "answer 1 names 41, and no figure of your own runs" in told
    assert told.endswith("what your run says to Q1; the blocks") and "77" not in told and " 5" not in told
    answered("Q7", 0, {**names, "reflection": ["There were 77 blocks," + WORDS]}, 0)
    answered("Q7", 0, {**names, FIGURES: ()}, 0)  # nothing to compare with
    with pytest.raises(CheckFailed, match="names no number"):
        answered("Q7", 0, {"reflection": ["There was F16," + WORDS]}, 0)


@pytest.fixture
def started(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The small lab, started in the current folder; `q1` is its one figure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "_current", None)
    work.start("lab99")
    return lab


def reflecting(number: int, **variables: object) -> Mapping[str, Any]:
    return {"reflection": [f"There were {number} blocks," + WORDS], **variables}


@pytest.mark.slow
def test_a_figure_counts_in_another_kernel_and_where_the_work_is_graded(
    started: Lab, capsys: pytest.CaptureFixture[str]
):
    results = work.check("Q4", names=reflecting(41))
    assert results.passed and "any number counts: they are to be read" in results.notes[-1]
    results = work.check("Q4", names=reflecting(41, q1=5))
    assert not results.passed and not results.notes
    assert work.check("Q4", names=reflecting(5)).passed  # q1 is gone, the record has its figure

    # another grader: with the record beside it, and without
    with pytest.raises(AssertionError, match="no figure of your own runs"):
        exported.check("lab99", "Q4", "secret", reflecting(41))
    exported.check("lab99", "Q4", "secret", reflecting(5))
    Record(Path(f"{started.name}.record.jsonl")).path.unlink()
    assert capsys.readouterr().out == ""
    exported.check("lab99", "Q4", "secret", reflecting(41))
    assert "any number counts" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="no figure of your own runs"):
        exported.check("lab99", "Q4", "secret", reflecting(41, q1=5))


@pytest.mark.parametrize("lab_id", LAB_IDS)
def test_each_figure_is_of_a_variable_that_the_notebook_fills_by_a_run_that_other_graders_pass_over(lab_id: str):
    from llmlab.labs.graded_cells import cells_with_tests
    from llmlab.labs.needed import as_python, statements_of

    lab = find_lab(lab_id)
    master = (lab.folder / "lab.py").read_text(encoding="utf-8")
    wanted = {figure.variable for figure in lab.figures} | {asked.variable for asked in lab.predictions.values()}
    code = [cell.text for cell in cells_of(master) if cell.is_code]
    assert wanted <= {name for statement in statements_of(map(as_python, code)) for name in statement.binds}
    cells = cells_with_tests(lab, master, lambda question: [])
    graded = [c["source"] for c in cells if c["cell_type"] == "code" and SKIPPED not in c["metadata"].get("tags", ())]
    bound = {name for statement in statements_of(map(as_python, graded)) for name in statement.binds}
    assert not wanted & bound
