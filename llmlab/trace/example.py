"""A trace small enough to check by hand: two requests that share a block. For doctests, docs and first looks.

This file must not be needed by any other part of the library.
"""

from __future__ import annotations

from llmlab.trace.recording import Trace
from llmlab.trace.records import BlockDelta, Capabilities, Header, Phase, Request, ScheduledRequest, Step, Token


def two_requests() -> Trace:
    """Requests a and b of 5 prompt tokens, the first 4 of them equal, on 8 blocks of 4 tokens.

    Step 0 prefills a. Step 1 decodes a and prefills b, which finds block 0 in the prefix cache. Step 2 decodes both,
    and both end.

    >>> two_requests().validate()
    []
    """
    capabilities = Capabilities(kv="blocks", block_table=True, prefix_caching=True)
    header = Header(
        engine="simulated",
        source="simulated",
        capabilities=capabilities,
        block_size=4,
        num_blocks=8,
        max_model_len=16,
        max_num_seqs=2,
        token_budget=8,
    )
    a = Request(request_id="a", arrival_s=0.0, prompt_token_ids=(1, 2, 3, 4, 5))
    b = Request(request_id="b", arrival_s=0.5, prompt_token_ids=(1, 2, 3, 4, 9))
    return Trace(header, (a, b), (_prefill_a(), _decode_a_prefill_b(), _decode_both()))


def _prefill_a() -> Step:
    return Step(
        step=0,
        t_s=1.0,
        schedule_s=0.125,
        forward_s=0.75,
        update_s=0.125,
        scheduled=(_share("a", "prefill", 5, 0, 0),),
        num_scheduled_tokens=5,
        num_running=1,
        tokens=(Token(request_id="a", token_id=6),),
        kv=BlockDelta(allocated={"a": (0, 1)}, cached=(0,), ref_counts={0: 1, 1: 1}, num_free=6, num_blocks=8),
    )


def _decode_a_prefill_b() -> Step:
    return Step(
        step=1,
        t_s=2.0,
        schedule_s=0.125,
        forward_s=0.75,
        update_s=0.125,
        scheduled=(_share("a", "decode", 1, 5, 1), _share("b", "prefill", 1, 4, 0)),
        num_scheduled_tokens=2,
        num_running=2,
        prefix_hits={"b": 4},
        tokens=(Token(request_id="a", token_id=7), Token(request_id="b", token_id=7)),
        kv=BlockDelta(allocated={"b": (0, 2)}, ref_counts={0: 2, 2: 1}, num_free=5, num_blocks=8),
    )


def _decode_both() -> Step:
    return Step(
        step=2,
        t_s=4.0,
        schedule_s=0.125,
        forward_s=1.75,
        update_s=0.125,
        scheduled=(_share("a", "decode", 1, 6, 2), _share("b", "decode", 1, 5, 1)),
        num_scheduled_tokens=2,
        num_running=2,
        finished={"a": "length", "b": "length"},
        tokens=(Token(request_id="a", token_id=8), Token(request_id="b", token_id=8)),
        kv=BlockDelta(freed={"a": (0, 1), "b": (0, 2)}, ref_counts={0: 0, 1: 0, 2: 0}, num_free=8, num_blocks=8),
    )


def _share(request_id: str, phase: Phase, num_tokens: int, num_computed: int, num_output: int) -> ScheduledRequest:
    return ScheduledRequest(
        request_id=request_id,
        phase=phase,
        num_tokens=num_tokens,
        num_computed_tokens=num_computed,
        num_prompt_tokens=5,
        num_output_tokens=num_output,
    )
