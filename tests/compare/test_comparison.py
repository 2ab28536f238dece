"""Columns side by side, without a model: who is asked what, what stays when something fails, what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compare_support import Load, compare

import llmlab
from llmlab.compare import Comparison
from llmlab.compare.partings import first_parting
from llmlab.errors import EngineError, RequestError
from llmlab.parity.case import first_difference
from tests.views.live_support import until

# ---- where they part


@pytest.mark.parametrize("at", [0, 3, 7])
def test_the_first_divergence_is_where_the_token_ids_first_differ(load: Load, at: int):
    found = compare(load("a"), load("b", part_at=at))
    a, b = (results[0] for results in (found["a"], found["b"]))
    by_hand = next(i for i, (x, y) in enumerate(zip(a.token_ids, b.token_ids, strict=True)) if x != y)
    assert found.first_divergence is not None
    assert found.first_divergence.index == by_hand == first_difference(a.token_ids, b.token_ids) == at
    assert found.first_divergence.tokens == ("abcdefgh"[at], "X")


def test_of_several_prompts_the_first_that_parts_is_told_and_of_its_columns_the_one_that_parts_first(load: Load):
    # the answer to the first prompt ends before any column parts
    prompts = [{"prompt": "xyz", "max_tokens": 2}, "abcdefgh"]
    found = compare(load("a"), load("b", part_at=6), load("c", part_at=4), prompts=prompts)
    assert found.first_divergence is not None
    assert (found.first_divergence.prompt, found.first_divergence.index) == (1, 4)
    assert found.first_divergence.names == ("a", "c")
    assert [(p.prompt, p.names[1], p.index) for p in found.known_partings()] == [(1, "b", 6), (1, "c", 4)]


def test_equal_answers_have_no_divergence(load: Load):
    found = compare(load("a"), load("b"))
    assert found.first_divergence is None
    assert list(found.table()["differs_at"].isna()) == [True, True]


def test_an_answer_that_goes_on_parts_where_the_other_ended(load: Load):
    found = compare(load("a"), max_tokens=[8, 5])
    assert found.first_divergence is not None
    assert found.first_divergence.index == 5
    assert found.first_divergence.cause is not None
    assert found.first_divergence.cause.name == "max_tokens"


def test_the_company_in_a_batch_is_named_when_both_agree_alone(load: Load):
    engines = load("steady"), load("shaky", part_at=3, shaky=True)
    together = compare(*engines, prompts=["abcdefgh", "stuvwxyz"], at_once=2)
    assert together.first_divergence is not None
    assert together.first_divergence.cause is not None
    assert (together.first_divergence.index, together.first_divergence.cause.name) == (3, "batch size")
    assert compare(*engines, prompts=["abcdefgh", "stuvwxyz"]).first_divergence is None


def test_a_doubled_bos_is_named(load: Load):
    found = compare(load("once", bos=1), load("twice", bos=2, part_at=3))
    assert [results[0].prompt_token_ids[:2] for results in (found["once"], found["twice"])] == [(94, 60), (94, 94)]
    assert found.first_divergence is not None
    assert found.first_divergence.cause is not None
    assert (found.first_divergence.index, found.first_divergence.cause.name) == (3, "BOS")
    assert found.first_divergence.cause.finding == "twice begins with '^' (94), the other does not"


def test_an_engine_that_cannot_be_asked_again_leaves_the_place_and_says_so(load: Load):
    a, b = load("a"), load("b", part_at=2)
    found = compare(a, b, causes=False)
    b.unload()
    found._wants_causes = True
    parting = found.first_divergence
    assert parting is not None
    assert (parting.index, parting.causes, parting.kl) == (2, (), None)
    assert parting.note.startswith("No cause was tested: ")


def test_words_and_tokens_that_differ(load: Load):
    found = compare(load("a"), load("b", part_at=2), prompts="ab cd", max_tokens=5)
    assert [(c.kind, c.a, c.b) for c in found.diff()] == [("changed", "ab cd", "abXcd")]
    assert [c.kind for c in found.diff(unit="token")] == ["same", "changed", "same"]


# ---- columns and grids


def test_lists_among_the_options_make_a_column_for_each_combination(load: Load):
    found = compare(load("a"), temperature=[0, 0.7], seed=[1, 2])
    assert found.names == ["temperature 0, seed 1", "temperature 0, seed 2", "temperature 0.7, seed 1",
                           "temperature 0.7, seed 2"]  # fmt: skip
    assert [column.results[0].sampling["temperature"] for column in found.columns] == [0, 0, 0.7, 0.7]
    assert [column.results[0].seed for column in found.columns] == [1, 2, 1, 2]
    assert len(found.table()) == 4


def test_a_quant_that_is_not_loaded_is_loaded_once_and_stays(load: Load):
    base = load("base", quant="F16")
    found = compare(base, quant=["F16", "Q8_0"])
    assert found.names == ["F16", "Q8_0"]
    assert found.columns[0].handle is base
    assert found.columns[1].handle.quant == "Q8_0"
    assert compare(base, quant=["F16", "Q8_0"]).columns[1].handle is found.columns[1].handle
    assert list(llmlab.handles()) == ["base", "base-q8_0"]


def test_one_after_the_other_nobody_shares_the_machine_and_together_all_do(load: Load):
    engines = load("a", step_s=0.01), load("b", step_s=0.01)

    def spans(found: Comparison) -> list[tuple[float, float]]:
        runs = [column.places[0][0] for column in found.columns]
        entries = [next(iter(run._entries.values())) for run in runs]
        return [(entry.sent_s, entry.sent_s + (entry.end_s or 0.0)) for entry in entries]

    (_, end_a), (start_b, _) = spans(compare(*engines))
    assert end_a <= start_b
    together = compare(*engines, together=True)
    (_, end_a), (start_b, _) = spans(together)
    assert start_b < end_a
    assert together.conditions == "together: speeds share one machine, so they do not compare"


def test_no_column_finds_kv_that_another_one_left(load: Load):
    found = compare(load("a"), temperature=[0, 0], prompts="abcdefgh" * 4)
    hits = [sum(step.prefix_hits.values()) for column in found.columns for step in column.run.trace.step_records]
    assert sum(hits) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "A comparison has 2 to 16 columns, and this one has 1 (engines: a)"),
        ({"seed": list(range(17))}, "this one has 17"),
        ({"seed": []}, "seed=[] has no value to try"),
        ({"temperature": [0, -1]}, "temperature is -1; it must be 0 (greedy) or more"),
        ({"temprature": [0, 1]}, "Did you mean 'temperature'?"),
        ({"quant": "F16"}, "give a list of several, such as quant=['F16', 'Q8_0']"),
        ({"seed": [1, 2], "at_once": 0}, "at_once is 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_asked(load: Load, options: dict[str, Any], says: str):
    engine = load("a")
    with pytest.raises(RequestError) as caught:
        compare(engine, **options)
    assert says in str(caught.value)
    assert engine.last is None


def test_engines_go_by_name_and_an_unknown_or_paused_one_is_told(load: Load):
    load("a"), load("b")
    assert compare("a", "b").names == ["a", "b"]
    assert llmlab.compare("xy", max_tokens=2).names == ["a", "b"]  # all that are loaded
    with pytest.raises(RequestError, match="Unknown engine name 'c'"):
        compare("a", "c")
    llmlab.handles()["b"].pause()
    with pytest.raises(RequestError, match="b is paused"):
        compare("a", "b")


# ---- stopping and failing


def test_one_column_is_stopped_and_the_other_goes_on(load: Load):
    engines = load("a", step_s=0.01), load("b", step_s=0.01)
    found = compare(*engines, together=True, wait=False, max_tokens=60, prompts=["abc", "def"])
    until(lambda: found["a"] and found["a"][0].num_output_tokens > 3)
    found.stop("a")
    found.wait()
    assert [result.finish_reason for result in found["a"]] == ["interrupted"]
    assert [result.finish_reason for result in found["b"]] == ["length", "length"]
    assert 3 < found["a"][0].num_output_tokens < 60


def test_stop_ends_all_columns_and_keeps_what_came(load: Load):
    found = compare(load("a", step_s=0.01), load("b", step_s=0.01), wait=False, max_tokens=200)
    until(lambda: found["a"] and found["a"][0].num_output_tokens > 3)
    found.stop()
    found.wait(5)
    assert found.done
    assert found["a"][0].finish_reason == "interrupted"
    assert found.results[0][1] is None  # it was not its turn yet


def test_an_engine_that_dies_in_column_two_leaves_column_one_going(load: Load):
    engines = load("a"), load("b", isolation="host", die_at=12)
    found = compare(*engines, prompts=["abcdef", "ghijkl", "mnopqr"], max_tokens=6)
    assert [result.finish_reason for result in found["a"]] == ["length"] * 3
    assert found["b"][0].finish_reason == "length"
    assert found.columns[1].error is not None
    assert found.columns[1].error.startswith("The engine 'b' (letters) ended with exit code 7.")
    assert "✕" in repr(found)
    assert found.table()["error"].notna().sum() >= 1


def test_when_nobody_answers_it_is_an_error(load: Load):
    engines = [load(name, isolation="host", die_at=0) for name in "ab"]
    with pytest.raises(EngineError, match=r"No column has an answer\. a: "):
        compare(*engines)


def test_a_prompt_that_is_too_long_is_told_in_its_row_and_the_next_one_is_answered(load: Load):
    found = compare(load("a"), load("b"), prompts=["x" * 400, "abc"])
    assert [result.finish_reason for result in found["a"]] == ["error", "length"]
    assert "max_model_len is 256" in found.table()["error"][0]


# ---- blind mode


def test_in_blind_mode_names_and_figures_are_hidden_until_they_are_revealed(load: Load, tmp_path: Path):
    found = compare(load("secret-a"), load("secret-b", part_at=1), blind=True, prompts=["abc", "def", "ghi"])
    shown = [repr(found), found.table().to_string(), found.to_json(tmp_path / "c.json").read_text(), found.view.html()]
    shown.append(found.to_html(tmp_path / "c.html").read_text())
    assert not any("secret" in text for text in shown)
    assert found.table()["ttft_s"].isna().all()
    with pytest.raises(RequestError, match="names are hidden"):
        found.win_rates()
    for prompt in range(3):
        place = found.order(prompt).index(1)
        found.vote("AB"[place], prompt)
    assert found.reveal() == ["secret-a", "secret-b"]
    assert [(rate.name, rate.num_wins, rate.num_decided) for rate in found.win_rates()] == [
        ("secret-a", 0, 3), ("secret-b", 3, 3),
    ]  # fmt: skip
    with pytest.raises(RequestError, match="names are known"):
        found.vote("A")
    assert json.loads(found.to_json(tmp_path / "d.json").read_text())["votes"] == [
        {"prompt": prompt, "winner": 1} for prompt in range(3)
    ]


def test_the_places_are_shuffled_the_same_way_for_the_same_seed():
    from llmlab.compare.votes import orders

    drawn = orders(40, 2, seed=3)
    assert drawn == orders(40, 2, seed=3)
    assert 10 < sum(order == [0, 1] for order in drawn) < 30


def test_a_later_vote_counts_and_a_tie_is_no_win(load: Load):
    found = compare(load("a"), load("b"), blind=True, prompts=["abc", "def"])
    found.vote("A", 0)
    found.vote("tie", 0)
    found.vote("b", 1)
    found.reveal()
    rates = found.win_rates()
    assert sorted((rate.num_wins, rate.num_decided, rate.num_ties) for rate in rates) == [(0, 1, 1), (1, 1, 1)]


def test_the_wilson_interval_is_that_of_the_book():
    from llmlab.compare import wilson

    # Wilson 1927 for 8 of 10 at 95 %; 0 of 10 is not nothing
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(0, 0) is None


# ---- to take away


def test_the_table_and_the_files_say_the_same(load: Load, tmp_path: Path):
    import pandas as pd

    found = compare(load("a"), load("b", part_at=2), prompts=["abcd", "efgh"], max_tokens=4)
    table = found.table()
    assert list(table["answer"]) == ["abcd", "abXd", "efgh", "efXh"]
    assert list(table["differs_at"].astype(object).where(table["differs_at"].notna(), None)) == [None, 2, None, 2]
    assert list(pd.read_csv(found.to_csv(tmp_path / "c.csv"))["answer"]) == list(table["answer"])
    record = json.loads(found.to_json(tmp_path / "c.json").read_text())
    assert record["answers"][1][1]["token_ids"] == [ord(c) for c in "efXh"]
    assert [p["index"] for p in record["partings"]] == [2, 2]
    assert list(found.summary()["num_parted"][1:]) == [2]


def test_first_parting_reads_nothing_into_an_answer_that_was_stopped(load: Load):
    found = compare(load("a"), max_tokens=[8, 5])
    whole, cut = found.results[0]
    assert whole is not None and cut is not None
    from dataclasses import replace

    assert first_parting(whole, cut) == 5
    assert first_parting(whole, replace(cut, finish_reason="interrupted")) is None
