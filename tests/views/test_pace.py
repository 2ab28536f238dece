"""When a thread that follows an engine looks for news."""

from __future__ import annotations

import threading

import pytest

from llmlab.engines.threads import num_cpus
from llmlab.trace import Header
from llmlab.trace.records import Source
from llmlab.views import live, pace


def test_a_look_that_costs_more_comes_less_often_and_least_often_beside_the_engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pace, "MAX_SHARE", 0.1)
    monkeypatch.setattr(pace, "MAX_SHARE_OF_ENGINE", 0.01)
    costs_s = (0.0001, 0.001, 0.0015, 0.01, 1.0)
    assert [pace.period_s(cost, is_beside=True) for cost in costs_s] == pytest.approx([0.05, 0.1, 0.15, 0.75, 0.75])
    assert [pace.period_s(cost, is_beside=False) for cost in costs_s] == pytest.approx([0.05, 0.05, 0.05, 0.1, 0.25])


def test_who_waits_for_what_they_asked_for_ends_a_rest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pace, "period_s", lambda mean_s, is_beside: 60.0)
    one, rested = pace.Pace(), threading.Event()
    resting = threading.Thread(target=lambda: (one.rest(is_beside=True), rested.set()), daemon=True)
    resting.start()
    assert not rested.wait(0.2)
    one.hurry()
    assert rested.wait(10)


@pytest.mark.parametrize(
    ("device", "threads", "source", "fills"),
    [
        ("CPU", num_cpus(), "measured", True),
        ("2 x CPU", num_cpus(), "measured", True),
        ("CPU", num_cpus() - 1, "measured", False),
        ("GPU", num_cpus(), "measured", False),  # llama.cpp on Apple Silicon
        ("NVIDIA H200", None, "measured", False),
        ("CPU", num_cpus(), "reported", False),
    ],
)
def test_only_an_engine_that_computes_on_every_core_is_held_up_by_a_look(
    device: str, threads: int | None, source: Source, fills: bool
):
    assert live.fills_cpus(Header(engine="e", device=device, num_threads=threads, source=source)) is fills


def test_what_looks_cost_counts_from_the_second_on():
    one, means = pace.Pace(), []
    for cost_s in (0.5, 0.002, 0.004, 0.003):
        one._add(cost_s)
        means.append(one._mean_s)
    assert means == pytest.approx([0, 0.002, 0.003, 0.003])
