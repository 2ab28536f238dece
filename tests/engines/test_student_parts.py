"""A wrong part earns its sentence on every engine that takes it: here llama.cpp; test_torch_parts.py has them all."""

from __future__ import annotations

from typing import Any

import pytest

from llmlab.errors import PartFailed
from llmlab.scheduling.policies import ChunkedPrefill
from tests.engines.llamacpp_support import engine
from tests.engines.serving import request, serve
from tests.engines.test_torch_parts import DividesByZero, DrawsWhatWasCut, NumpySampler, SumsToTwo, WorksInPlace


class GivesAList(ChunkedPrefill):
    def schedule(self, state):
        return list(super().schedule(state))


WRONG = [
    (
        "policy",
        DividesByZero(),
        r"step 0: policy\.schedule\(\): ZeroDivisionError: .*, in line \d+ of schedule\(\): return",
    ),
    ("policy", GivesAList(), r"step 0: policy\.schedule\(\) gave list, expected a dict: request_id -> num_tokens"),
    ("sampler", SumsToTwo(), r"step 0: sampler\.probs\(\): the probabilities sum to 2, expected 1: divide by the sum"),
    ("sampler", WorksInPlace(), r"step 0: sampler\.probs\(\): it changed the logits; work on a copy"),
    (
        "sampler",
        DrawsWhatWasCut(),
        r"step 0: sampler\.draw\(\.\.\., 0\.\d+\): it gave token \d+, whose probability is 0",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "sentence"), WRONG, ids=lambda value: type(value).__name__)
def test_a_wrong_part_earns_its_sentence_on_llamacpp_and_the_engine_goes_on(name: str, part: Any, sentence: str):
    on = engine("Q4_1", **{name: part})
    try:
        on.add_request(request(on, "r0", "Name a colour.", temperature=0.7, top_k=5))
        with pytest.raises(PartFailed, match=sentence):
            on.step()
        on.abort_request("r0")  # what the loop does then
        assert on.step().finished == {"r0": "abort"} and on.pool.num_free_blocks == on.pool.num_blocks
    finally:
        on.close()


@pytest.mark.slow
def test_a_right_sampler_draws_on_llamacpp_as_it_is():
    on = engine("Q4_1", sampler=NumpySampler())
    trace = serve(on, [request(on, "r", "Name a colour.", temperature=0.7, top_k=5, max_tokens=4)])
    assert trace.validate() == [] and 0 < len([t for s in trace.step_records for t in s.tokens]) <= 4
    on.close()
