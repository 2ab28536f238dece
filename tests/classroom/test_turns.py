"""Who is next on the engine, and what a quota refuses: without an engine, at moments that the test names."""

from __future__ import annotations

import asyncio

import pytest

from llmlab.classroom.quotas import LOOKED_UP_BYTES, Account, Quotas, Window
from llmlab.classroom.register import Person
from llmlab.classroom.turns import Turn, Turns
from llmlab.serve.failures import ApiError


def account(name: str, **quotas: int) -> Account:
    return Account(Person(name), Quotas(**quotas))


def called(turns: list[Turn]) -> list[str]:
    return [turn.account.person.name for turn in turns if turn.called.done() and not turn.called.cancelled()]


def finish(turn: Turn, num_output: int = 10) -> None:
    turn.account.note_tokens(0, num_output)
    turn.leave(2 * num_output)


async def order_of(turns: Turns, waiting: list[Turn]) -> list[str]:
    """Names in the order in which they go on, when each answer ends before the next begins."""
    order = []
    while open_ := [turn for turn in waiting if turn.called.done()]:
        [turn] = open_
        order.append(turn.account.person.name)
        waiting.remove(turn)
        finish(turn)
    return order


def test_who_has_had_least_goes_first_however_many_the_others_send():
    async def play() -> list[str]:
        turns, flooder, ada, bob = Turns(1), account("flooder"), account("ada"), account("bob")
        waiting = [turns.line_up(flooder, 1) for _ in range(6)]
        waiting += [turns.line_up(ada, 1), turns.line_up(bob, 1), turns.line_up(ada, 1)]
        return await order_of(turns, waiting)

    assert asyncio.run(play()) == [
        "flooder",
        "ada",
        "bob",
        "flooder",
        "ada",
        "flooder",
        "flooder",
        "flooder",
        "flooder",
    ]


def test_places_are_shared_before_anything_has_come_of_the_answers():
    async def play() -> list[str]:
        turns, flooder = Turns(4), account("flooder")
        first = [turns.line_up(flooder, 1) for _ in range(4)]
        later = [turns.line_up(flooder, 1) for _ in range(4)] + [turns.line_up(account(n), 1) for n in "abc"]
        for turn in first[:3]:
            turn.leave()
        return called(later)

    assert asyncio.run(play()) == ["a", "b", "c"]


def test_long_answers_count_more_than_short_ones():
    async def play() -> list[str]:
        turns, long, short = Turns(1), account("long"), account("short")
        now = [turns.line_up(long, 1), turns.line_up(short, 1)]
        later = [turns.line_up(long, 1), *(turns.line_up(short, 1) for _ in range(3))]
        finish(now[0], 100)
        finish(now[1], 10)
        return await order_of(turns, later)

    assert asyncio.run(play()) == ["short", "short", "short", "long"]


def test_a_rest_saves_no_turns_up():
    async def play() -> list[str]:
        turns, busy, rested = Turns(1), account("busy"), account("rested")
        busy.note_tokens(0, 1000)
        waiting = [turns.line_up(busy, 1), turns.line_up(busy, 1)]
        waiting += [turns.line_up(rested, 1) for _ in range(3)] + [turns.line_up(busy, 1)]
        return await order_of(turns, waiting)

    # one who had nothing in the hour before takes turns with the other, and does not go first three times
    assert asyncio.run(play()) == ["busy", "rested", "busy", "rested", "rested", "busy"]


def test_after_an_idle_engine_all_begin_anew():
    async def play() -> list[str]:
        turns, late, early = Turns(1), account("late"), account("early")
        for who in (early, early, late):  # had is counted up: late, who came last, is lifted to what early has had
            finish(turns.line_up(who, 1), 100)
        waiting = [turns.line_up(account("other"), 1), turns.line_up(late, 1)]
        waiting += [turns.line_up(early, 1) for _ in range(2)] + [turns.line_up(account("new"), 1)]
        return await order_of(turns, waiting)

    assert asyncio.run(play()) == ["other", "late", "early", "new", "early"]


def test_a_request_of_many_answers_goes_alone_when_it_is_larger_than_the_engine():
    async def play() -> tuple[list[str], list[str]]:
        turns, many, one = Turns(2), account("many"), account("one")
        waiting = [turns.line_up(one, 1), turns.line_up(many, 5), turns.line_up(one, 1)]
        before = called(waiting)
        finish(waiting[0])
        return before, called(waiting)

    assert asyncio.run(play()) == (["one"], ["one", "many"])


def test_who_gives_up_while_waiting_leaves_no_trace():
    async def play() -> tuple[int, int, list[str]]:
        turns, ada, bob = Turns(1), account("ada"), account("bob")
        first, gone, last = turns.line_up(ada, 1), turns.line_up(bob, 1), turns.line_up(ada, 1)
        task = asyncio.create_task(gone.wait())
        await asyncio.sleep(0)
        gone.give_up()
        with pytest.raises(asyncio.CancelledError):
            await task
        first.leave()
        return bob.num_in_flight, turns.num_waiting, called([gone, last])

    assert asyncio.run(play()) == (0, 0, ["ada"])


def test_who_is_called_and_cancelled_in_one_moment_gives_the_place_back():
    async def play() -> tuple[int, int]:
        turns, ada = Turns(1), account("ada")
        first, second = turns.line_up(ada, 1), turns.line_up(ada, 1)
        task = asyncio.create_task(second.wait())
        await asyncio.sleep(0)
        first.leave()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return turns.num_on, ada.num_in_flight

    assert asyncio.run(play()) == (0, 0)


def test_when_the_class_ends_who_waits_is_told():
    async def play() -> None:
        turns, ada = Turns(1), account("ada")
        turns.line_up(ada, 1)
        waiting = turns.line_up(ada, 1)
        turns.close()
        await waiting.wait()

    with pytest.raises(ApiError, match="its server stops"):
        asyncio.run(play())


def test_a_quota_of_tokens_says_when_enough_of_them_are_long_enough_ago():
    ada = account("ada", tokens_per_minute=100, tokens_per_hour=1000)
    ada.note_tokens(20, 40, now_s=0.0)
    ada.note_tokens(0, 39, now_s=10.0)
    ada.check(1, now_s=10.0)  # 99 of 100: an answer that begins may go over it
    ada.note_tokens(0, 31, now_s=20.0)
    with pytest.raises(ApiError, match="130 tokens in the last minute, the quota is 100") as told:
        ada.check(1, now_s=20.0)
    assert (told.value.status, told.value.headers["Retry-After"]) == (429, "40")
    assert (told.value.reply.error.param, told.value.reply.error.code) == ("tokens_per_minute", "quota_exceeded")
    ada.check(1, now_s=60.0)
    assert (ada.num_asked, ada.num_refused) == (2, 1)


def test_a_window_forgets_what_is_long_ago():
    window = Window("tokens_per_minute", 60.0, 100)
    for second in range(200):
        window.add(1, float(second))
    assert window.used(199.0) == 60 and window.free_in_s(199.0) == 0.0


def test_looking_tokens_up_has_a_bound_of_its_own_which_no_answer_counts_for():
    ada, lecturer = account("ada"), Account(Person("lecturer", is_lecturer=True), Quotas())
    for person in (ada, lecturer):
        person.look_up(LOOKED_UP_BYTES - 1, now_s=0.0)
        person.look_up(1, now_s=1.0)
    lecturer.look_up(1, now_s=2.0)
    with pytest.raises(ApiError, match="looked up in a minute") as told:
        ada.look_up(1, now_s=2.0)
    assert (told.value.status, told.value.headers["Retry-After"]) == (429, "58")
    ada.look_up(1, now_s=60.5)
    ada.check(1, now_s=2.0)
    assert ada.num_prompt_tokens == 0


def test_answers_in_flight_have_a_quota_and_the_lecturer_has_none():
    async def play() -> None:
        turns, ada = Turns(1), account("ada", in_flight=2)
        lecturer = Account(Person("lecturer", is_lecturer=True), Quotas(in_flight=2))
        for one in (ada, lecturer):
            turns.line_up(one, 2)
        lecturer.check(50)
        ada.check(1)

    with pytest.raises(ApiError, match="You have 2 answers in flight, the quota is 2") as told:
        asyncio.run(play())
    assert told.value.reply.error.param == "in_flight"
    with pytest.raises(ApiError, match="asks for 3 answers at once; a student has 2 in flight") as told:
        account("ada", in_flight=2).check(3)
    assert told.value.status == 400
