"""The chart of a pipeline."""

from __future__ import annotations

from llmlab.engines.pipeline import pipeline
from llmlab.views import plots


def test_each_turn_is_a_bar_on_its_stage_and_the_title_says_how_long_stages_wait_and_who_says_so():
    figure = plots.stages(pipeline([0.002, 0.002], 2))
    bars = sorted((y, base, x) for bar in figure.data for y, base, x in zip(bar.y, bar.base, bar.x, strict=True))
    assert bars == [(0, 0.0, 1.0), (0, 1.0, 1.0), (1, 1.0, 1.0), (1, 2.0, 1.0)]  # stage, from, for so long; in ms
    assert figure.layout.title.subtitle.text == "2 stages · 33 % of their time they wait · simulated"
    assert "no turns" in plots.stages([]).layout.annotations[0].text


def test_numbers_stand_in_bars_only_where_there_is_room_for_them():
    few, many = (plots.stages(pipeline([0.002] * n, 2)) for n in (4, 40))
    assert [bar.text for bar in few.data] == [("0", "0", "2", "2"), ("1", "1", "3", "3")]
    assert {bar.text for bar in many.data} == {None}
