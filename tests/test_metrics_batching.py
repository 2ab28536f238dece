"""How a scheduler shared the steps. Every expected number is worked out by hand in the comment beside it."""

from __future__ import annotations

from llmlab.metrics import Gap, empty_seats, longest_gap, steps_to_first_token
from llmlab.trace import Header, ScheduledRequest, Step, Token, Trace


def step(number: int, tokens_of: dict[str, int], came: str = "", *, waiting: tuple[str, ...] = (), took_s: float = 1.0):
    """`tokens_of`: request -> tokens of this step; `came`: requests with a token out."""
    rows = tuple(
        ScheduledRequest(
            request_id=name,
            phase="prefill",
            num_tokens=num_tokens,
            num_computed_tokens=0,
            num_prompt_tokens=9,
            num_output_tokens=0,
        )
        for name, num_tokens in tokens_of.items()
    )
    return Step(
        step=number,
        t_s=float(number),
        forward_s=took_s,
        scheduled=rows,
        num_scheduled_tokens=sum(tokens_of.values()),
        waiting=waiting,
        num_waiting=len(waiting),
        tokens=tuple(Token(request_id=name, token_id=1) for name in came),
    )


def trace(*steps: Step) -> Trace:
    return Trace(Header(engine="simulated", max_num_seqs=4), (), steps)


STEPS = (
    step(0, {"a": 9}, "a", waiting=("b",)),
    step(1, {"a": 1}, "a", waiting=("b", "c")),
    step(2, {"a": 1, "b": 30}, "ab", waiting=("c",), took_s=3.0),
    step(3, {"b": 1, "c": 9}, "c"),
)


def test_a_seat_is_empty_when_nobody_is_in_it_while_somebody_waits():
    assert empty_seats(trace(*STEPS)) == 1 - (1 + 1 + 2) / 12  # the last step counts not: nobody waits after it
    assert empty_seats(trace(STEPS[3])) is None


def test_the_steps_to_the_first_token_count_from_the_arrival():
    # a at once; b waits in steps 0 and 1; c in 1 and 2
    assert steps_to_first_token(trace(*STEPS)) == {"a": 1, "b": 3, "c": 3}


def test_the_longest_gap_holds_all_that_was_computed_between_two_tokens():
    # a: 1 in step 1, 31 in step 2. b has one token only
    assert longest_gap(trace(*STEPS)) == Gap("a", 2, 31, 3.0)
    assert longest_gap(trace(STEPS[0])) is None


def test_a_gap_across_a_step_without_the_request_holds_that_step_too():
    stalled = (STEPS[0], step(1, {"b": 20}), step(2, {"a": 1}, "a"))
    assert longest_gap(trace(*stalled)) == Gap("a", 2, 21, 2.0)
