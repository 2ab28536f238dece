"""Parts that a student wrote, plugged into an engine: each call is looked at; what breaks a contract is a sentence.

Students write numpy. A pool has checks of its own: scheduling/block_pool_checks.py. This file must not know any engine.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmlab.engines.base import Attention, Floats, Sampler, SamplingParams
from llmlab.errors import PartFailed
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.block_pool_checks import CheckedPool, fail, guarded
from llmlab.scheduling.contracts import BlockPool, Policy, SchedulerState
from llmlab.scheduling.policies import POLICIES

SUM_TOLERANCE = 1e-3


def make_pool(
    wanted: BlockPool | type[BlockPool] | None, num_blocks: int, block_size: int, *, prefix_caching: bool
) -> PagedPool | CheckedPool:
    """An empty block pool: ours, or the one that somebody wrote, under checks.

    Raises: PartFailed when that is none.
    """
    if wanted is None:
        return PagedPool(num_blocks, block_size, prefix_caching=prefix_caching)
    if isinstance(wanted, type):
        return CheckedPool(guarded(f"{wanted.__name__}({num_blocks}, {block_size})", wanted, num_blocks, block_size))
    return CheckedPool(deepcopy(wanted))


def make_policy(wanted: Policy | None, name: str) -> Policy:
    """The policy that somebody wrote, under checks; else ours of that name."""
    return CheckedPolicy(wanted) if wanted is not None else POLICIES[name]()


class CheckedPolicy:
    """A student's policy. The scheduler checks its plans; here its exceptions get a place."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        plan = guarded("policy.schedule()", self._policy.schedule, state)
        if not isinstance(plan, dict):
            raise PartFailed(f"policy.schedule() gave {type(plan).__name__}, expected a dict: request_id -> num_tokens")
        return plan

    def victim(self, state: SchedulerState) -> str:
        victim: str = guarded("policy.victim()", self._policy.victim, state)
        return victim


class CheckedSampler:
    """A student's sampler."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def probs(self, logits: Floats, params: SamplingParams) -> Floats:
        before = logits.copy()
        probs = np.asarray(guarded("sampler.probs()", self._sampler.probs, logits, params))
        if not np.array_equal(before, logits):
            fail("sampler.probs()", "it changed the logits; work on a copy")
        if probs.shape != logits.shape:
            fail("sampler.probs()", f"it gave shape {probs.shape}, expected {logits.shape}")
        if not np.isfinite(probs).all() or probs.min() < 0:
            wrong = int(np.flatnonzero(~np.isfinite(probs) | (probs < 0))[0])
            fail("sampler.probs()", f"token {wrong} has the probability {probs[wrong]}")
        if abs(float(probs.sum(dtype=np.float64)) - 1) > SUM_TOLERANCE:
            fail("sampler.probs()", f"the probabilities sum to {probs.sum():.6g}, expected 1: divide by the sum")
        return probs

    def draw(self, probs: Floats, u: float) -> int:
        token_id = guarded("sampler.draw()", self._sampler.draw, probs, u)
        if not isinstance(token_id, int | np.integer) or not 0 <= token_id < len(probs):
            fail(f"sampler.draw(..., {u:.6f})", f"it gave {token_id!r}, expected a token id of 0 to {len(probs) - 1}")
        if not probs[token_id]:
            fail(f"sampler.draw(..., {u:.6f})", f"it gave token {token_id}, whose probability is 0")
        return int(token_id)


class CheckedAttention:
    """A student's attention. `call` says in which layer and for whom."""

    def __init__(self, attention: Attention) -> None:
        self._attention = attention

    def answer(self, call: str, q: Floats, k: Floats, v: Floats) -> Floats:
        answer: NDArray[Any] = np.asarray(guarded(call, self._attention, q, k, v))
        if answer.shape != q.shape:
            fail(call, f"it gave shape {answer.shape}, expected {q.shape}")
        if not np.isfinite(answer).all():
            fail(call, "it gave NaN or infinite values: subtract the maximum")
        return np.ascontiguousarray(answer, dtype=np.float32)

    def weights(self, call: str, q: Floats, k: Floats) -> Floats:
        """The weight of each key, [num_heads, num_new, num_context]: its answer to values that are 1 at this key only.

        One call shows head_dim keys, each in a column of its own.
        """
        num_context, _, head_dim = k.shape
        shown = []
        for first in range(0, num_context, head_dim):
            v = np.zeros_like(k)
            keys = np.arange(first, min(first + head_dim, num_context))
            v[keys, :, keys - first] = 1
            shown.append(self.answer(call, q, k, v)[:, :, : len(keys)])
        return np.concatenate(shown, axis=-1).transpose(1, 0, 2)
