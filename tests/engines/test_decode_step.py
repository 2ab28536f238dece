"""A step as columns is the same step: on the wire, and as a record."""

from __future__ import annotations

from typing import Any

import pytest

from llmlab.engines import messages as wire
from llmlab.engines.decode_step import DecodeStep
from llmlab.trace import BlockDelta, ScheduledRequest, Step, Token

DELTA = BlockDelta(allocated={"b": (7,)}, cached=(3,), ref_counts={7: 1}, num_free=2, num_blocks=8)


def columns(number: int, kv: BlockDelta | None = DELTA, **changes: Any) -> DecodeStep:
    """Requests r0, r1, ... of 5 prompt tokens; r_i has put out i + 1 tokens."""
    values: dict[str, Any] = dict(
        step=4, t_s=1.5, schedule_s=0.25, forward_s=0.5, update_s=0.125, token_budget=64, waiting=("w",), num_waiting=1,
        num_running=number, kv=kv, request_ids=[f"r{i}" for i in range(number)],
        num_computed_tokens=[5 + i for i in range(number)], num_prompt_tokens=[5] * number,
        num_output_tokens=[1 + i for i in range(number)], token_ids=[100 + i for i in range(number)],
        texts=[f" t{i}" for i in range(number)],
    )  # fmt: skip
    return DecodeStep(**{**values, **changes})


def test_its_record_has_a_share_and_a_token_for_each_request():
    share = dict(phase="decode", num_tokens=1, num_prompt_tokens=5)
    assert columns(2).record() == Step(
        step=4, t_s=1.5, schedule_s=0.25, forward_s=0.5, update_s=0.125,
        scheduled=(
            ScheduledRequest(request_id="r0", num_computed_tokens=5, num_output_tokens=1, **share),
            ScheduledRequest(request_id="r1", num_computed_tokens=6, num_output_tokens=2, **share),
        ),
        num_scheduled_tokens=2, token_budget=64, waiting=("w",), num_waiting=1, num_running=2,
        tokens=(
            Token(request_id="r0", token_id=100, text=" t0"),
            Token(request_id="r1", token_id=101, text=" t1"),
        ),
        kv=DELTA,
    )  # fmt: skip


def test_without_texts_its_tokens_have_none():
    assert [token.text for token in columns(2, texts=[]).record().tokens] == ["", ""]


@pytest.mark.parametrize("number", [1, 300])
@pytest.mark.parametrize("kv", [None, DELTA])
def test_it_arrives_as_the_record_that_it_stands_for(number: int, kv: BlockDelta | None):
    sent = columns(number, kv)
    assert wire.decode_step(wire.encode(sent)) == sent.record()


def test_a_record_arrives_as_it_was():
    step = columns(3).record()
    assert wire.decode_step(wire.encode(step)) == step


def test_columns_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="zip"):
        columns(3, token_ids=[1, 2]).record()
