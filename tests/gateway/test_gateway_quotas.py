"""What a client may take, and when he may come back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from gateway_support import Backends, bearer, error_of

from llmlab.gateway.config import Quota
from llmlab.gateway.quotas import Account, Window
from llmlab.serve.failures import ApiError


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def account(**quota: float) -> tuple[Account, Clock]:
    clock = Clock()
    return Account("ann", Quota(**quota), clock), clock  # type: ignore[arg-type]


def refusal(one: Account, num_tokens: int = 1) -> ApiError:
    before = one.num_open
    with pytest.raises(ApiError) as raised:
        one.enter(num_tokens)
    assert one.num_open == before
    return raised.value


def test_a_window_tells_when_there_is_room_again():
    window = Window(10, 60)
    for at_s, amount in ((0, 4), (10, 4), (20, 2)):
        assert window.wait_s(amount, at_s) == 0
        window.add(amount, at_s)
    assert window.wait_s(1, 30) == 30  # at 60 the first 4 are a minute old
    assert window.wait_s(5, 30) == 40
    assert window.wait_s(11, 30) == math.inf
    assert window.wait_s(4, 60) == 0


def test_requests_of_a_minute_are_counted_and_a_refused_one_is_not():
    one, clock = account(requests_per_minute=2)
    one.enter(1)
    clock.now_s += 20
    one.enter(1)
    for _ in range(3):
        error = refusal(one)
        assert (error.status, error.headers) == (429, {"Retry-After": "40"})
        assert str(error) == "You have used your 2 requests a minute. Try again in 40 s."
    clock.now_s += 40
    one.enter(1)


def test_tokens_of_an_answer_count_when_it_has_ended():
    one, clock = account(tokens_per_minute=100)
    one.enter(40)
    one.leave(50, None)  # 10 of the prompt more than thought, 40 of the answer
    assert refusal(one, 20).headers == {"Retry-After": "60"}
    one.enter(10)
    clock.now_s += 60
    one.enter(90)


def test_a_prompt_over_the_whole_quota_is_not_told_to_come_back():
    error = refusal(account(tokens_per_minute=100)[0], 101)
    assert error.status == 400 and error.headers == {}
    assert "about 101 tokens is over your 100 tokens a minute" in str(error)


def test_a_days_money_is_spent_by_answers_and_comes_back_after_a_day():
    one, clock = account(cost_per_day=1.0)
    for _ in range(2):
        one.enter(1)
        one.leave(0, 0.6)
    assert refusal(one).headers == {"Retry-After": "86400"}
    clock.now_s += 86_400
    one.enter(1)


def test_answers_at_once_are_counted_while_they_are_open():
    one, _ = account(max_open=2)
    one.enter(1)
    one.enter(1)
    assert refusal(one).headers == {"Retry-After": "1"}
    one.leave(0, None)
    one.enter(1)


def test_a_key_over_its_quota_gets_429_and_others_go_on(backends: Backends, tmp_path: Path):
    backends.start("main")
    with backends.door(tmp_path, backends.config(ann=", requests_per_minute: 2")) as door:
        assert [door.chat().status_code for _ in range(3)] == [200, 200, 429]
        response = door.chat(stream=True)
        assert response.status_code == 429
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert error_of(response)["code"] == "quota_exceeded"
        assert (door.last.status, door.last.error, door.last.backend) == (429, "quota_exceeded", None)
        assert door.last.reason.startswith("You have used your 2 requests a minute.")
        assert door.chat(headers=bearer("BEN_TOKEN")).status_code == 200
        assert len(backends["main"].asked) == 3


def test_what_was_spent_today_is_remembered_by_the_log(backends: Backends, tmp_path: Path):
    backends.start("main")
    price = {"main": ", price: {prompt: 0, output: 1000000}"}  # 3 tokens: 3 EUR
    text = backends.config(of=price, ann=", cost_per_day: 5")
    with backends.door(tmp_path, text) as door:
        assert [door.chat().status_code for _ in range(2)] == [200, 200]
    with backends.door(tmp_path, text) as door:
        assert door.chat().status_code == 429
        assert door.chat(headers=bearer("BEN_TOKEN")).status_code == 200
