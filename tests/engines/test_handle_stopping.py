"""Stop, time-outs, Ctrl-C and cancelling, on the fake engine inline."""

from __future__ import annotations

import asyncio

import pytest
from fake_loading import LoadFake, sound

from llmlab.engines.bell import Bell


def test_stop_keeps_what_has_come_and_the_engine_serves_the_others(load_fake: LoadFake):
    eng = load_fake(step_s=0.01)
    other = eng.batch(["other"], max_tokens=40)
    run = eng.batch(["ab", "cd"], max_tokens=200)
    for _ in zip(range(6), run, strict=False):
        pass
    run.stop()
    assert run.done
    assert {result.finish_reason for result in run.results} == {"interrupted"}
    assert all(result.num_output_tokens >= 3 for result in run.results)
    assert sound(run.trace).incidents[0].requests == tuple(other.request_ids)
    assert other.wait()[0].finish_reason == "length"
    assert eng.memory()["kv_used"] == 0


def test_a_stopped_run_of_a_paused_engine_ends_too(load_fake: LoadFake):
    eng = load_fake(step_s=0.01)
    other, run = eng.batch(["other"], max_tokens=200), eng.batch(["ab"], max_tokens=200)
    next(iter(run))
    eng.pause()
    run.stop()
    assert run.results[0].finish_reason == "interrupted"
    assert not other.done
    eng.resume()
    other.stop()


def test_a_timeout_stops_the_answer_and_returns_what_has_come(load_fake: LoadFake):
    eng = load_fake(step_s=0.02)
    result = eng.generate("abc", max_tokens=200, timeout=0.2)
    assert result.finish_reason == "interrupted"
    assert 1 <= result.num_output_tokens <= 12
    assert result.footer.endswith(" · interrupted")
    assert eng.num_open_requests == 0


def test_an_interrupted_cell_keeps_the_partial_answer_and_the_engine(
    load_fake: LoadFake, monkeypatch: pytest.MonkeyPatch
):
    eng = load_fake(step_s=0.01)
    real_wait, calls = Bell.wait, []

    def wait_as_if_ctrl_c(self: Bell, is_over: object, timeout_s: float | None = None) -> bool:
        calls.append(timeout_s)
        if len(calls) == 1:
            real_wait(self, lambda: False, 0.1)
            raise KeyboardInterrupt
        return real_wait(self, is_over, timeout_s)  # type: ignore[arg-type]

    monkeypatch.setattr(Bell, "wait", wait_as_if_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        eng.generate("abc", max_tokens=200)
    monkeypatch.undo()
    assert eng.last is not None
    assert eng.last.finish_reason == "interrupted"
    assert eng.last.num_output_tokens > 0
    assert eng.generate("abc", max_tokens=3).text == "abc"


def test_a_run_can_be_awaited(load_fake: LoadFake):
    eng = load_fake()

    async def both() -> list[str]:
        first, second = eng.batch(["ab"], max_tokens=3), eng.batch(["cd"], max_tokens=3)
        return [(await first)[0].text, (await second)[0].text]

    assert asyncio.run(both()) == ["aba", "cdc"]


def test_cancelling_who_awaits_a_run_stops_it(load_fake: LoadFake):
    eng = load_fake(step_s=0.01)

    async def cancelled() -> None:
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0.1)
        task.cancel()
        await task

    async def wait() -> None:
        await run

    run = eng.batch(["abc"], max_tokens=200)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    assert run.results[0].finish_reason == "interrupted"
    assert run.results[0].text
