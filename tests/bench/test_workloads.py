"""Workloads: the shipped ones, files of one's own, and what a plan makes of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from llmlab.bench import workload, workloads
from llmlab.bench.plan import plan_of
from llmlab.bench.sheets import FOLDER, sheet
from llmlab.errors import RequestError


@pytest.mark.parametrize("name", sorted(workloads()))
def test_each_workload_has_a_data_sheet_that_is_up_to_date(name: str):
    written = (FOLDER / f"{name}.md").read_text()
    assert written == sheet(workload(name)), "Type `python -m llmlab.bench.sheets`."


@pytest.mark.parametrize("name", sorted(workloads()))
def test_the_same_seed_makes_the_same_plan_and_another_seed_another(name: str):
    chosen = workload(name)
    plans = [plan_of(chosen, load=chosen.load, seed=seed) for seed in (3, 3, 4)]
    assert plans[0] == plans[1] != plans[2]
    assert plans[0].num_requests == chosen.num_requests


def test_the_prompts_are_the_same_at_every_load_and_only_the_times_differ():
    slow, fast = (plan_of(workload("mixed"), load=load, seed=1) for load in (1, 10))
    assert [talk.turns for talk in slow.talks] == [talk.turns for talk in fast.talks]
    assert fast.talks[5].arrival_s == pytest.approx(slow.talks[5].arrival_s / 10)


def test_poisson_arrivals_have_exponential_gaps_of_the_rate_asked_for():
    plan = plan_of(workload("poisson"), load=50, seed=0, num_requests=4000)
    times = [talk.arrival_s for talk in plan.talks]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert sum(gaps) / len(gaps) == pytest.approx(1 / 50, rel=0.05)
    # of an exponential distribution, 1 - 1/e of the gaps are shorter than their mean
    assert sum(gap < 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.03)


def test_a_burst_has_as_many_requests_as_its_load_and_all_come_at_once():
    plan = plan_of(workload("burst"), load=7)
    assert [talk.arrival_s for talk in plan.talks] == [0.0] * 7 and plan.num_users is None


def test_240_questions_come_before_one_is_asked_twice():
    texts = [talk.turns[0].text for talk in plan_of(workload("poisson"), load=1, num_requests=240).talks]
    assert len(set(texts)) == 240


def test_turns_of_a_conversation_count_as_requests_and_the_last_one_is_cut():
    plan = plan_of(workload("chat_turns"), load=2, num_requests=7)
    assert [len(talk.turns) for talk in plan.talks] == [3, 3, 1] and plan.num_users == 2


@pytest.mark.parametrize(
    ("name", "load"), [("poisson", 0), ("poisson", float("nan")), ("closed_loop", 1.5), ("burst", -1)]
)
def test_a_load_that_cannot_be_is_refused_with_its_unit(name: str, load: float):
    with pytest.raises(RequestError, match=workload(name).load_unit):
        plan_of(workload(name), load=load)


def test_an_unknown_workload_is_refused_with_the_nearest_name():
    with pytest.raises(RequestError, match="Did you mean 'poisson'"):
        workload("poison")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"load": 0}, "must be above 0"),
        ({"max_tokens": [9, 2]}, "max_tokens is"),
        ({"prompts": []}, "at least one kind"),
        ({"prompts": [{"kind": "question", "turns": 2}]}, "conversations need"),
        ({"arrivals": {"kind": "steady"}}, "Invalid enum value 'steady'"),
        ({"burstiness": 1}, "unknown field `burstiness`"),
    ],
)
def test_a_file_that_is_no_workload_is_refused_with_what_is_wrong(
    tmp_path: Path, change: dict[str, object], message: str
):
    content = json.loads((FOLDER / "poisson.json").read_text()) | change
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(RequestError, match=message):
        workload(path)


def test_a_workload_of_ones_own_has_the_name_of_its_file(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text((FOLDER / "poisson.json").read_text())
    assert workload(path).name == "mine" and plan_of(workload(path), load=2).num_requests == 24
