"""Room for draft tokens (speculative decoding): what a step has left for them once its plan is made.

This file must not know who drafts.
"""

from __future__ import annotations

from collections.abc import Callable

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.plan import StepPlan
from llmlab.scheduling.sequence import Sequence


def draft_room(
    plan: StepPlan,
    pool: object,
    num_drafts: int,
    *,
    token_budget: int,
    max_len: int,
    num_left: Callable[[Sequence], int],
) -> dict[int, int]:
    """Index of a share -> tokens to draft for it: what budget, context and free blocks leave. Takes their blocks.

    `num_left`: output tokens that a sequence may still get. A student's pool cannot give blocks back (take_back), so
    that nothing is drafted on one.
    """
    wanted: dict[int, int] = {}
    if not isinstance(pool, PagedPool):
        return wanted
    budget = token_budget - plan.num_tokens
    for i, share in enumerate(plan.shares):
        seq = share.seq
        number = min(num_drafts, budget, num_left(seq) - 1, max_len - seq.num_tokens - 1)
        if share.phase != "decode" or number < 1:
            continue
        try:
            plan.copies += pool.append(seq.request_id, number)
        except NoFreeBlocks:
            continue
        wanted[i] = number
        budget -= number
    return wanted
