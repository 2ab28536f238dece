"""Policies: who computes how many tokens in the next step. Pure functions of the SchedulerState.

This file must not know pools, engines or time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlab.errors import EngineError, unknown
from llmlab.scheduling.contracts import RequestView, SchedulerState


class ChunkedPrefill:
    """Continuous batching: decodes first, one token each; what is left of the budget goes to prompts, in chunks.

    A long prompt therefore never holds up running answers for longer than one budget. Requests with a lower
    `priority` number go first; among equals the order of arrival holds.

    Source: Agrawal et al., Sarathi-Serve, OSDI 2024; vllm/v1/core/sched/scheduler.py `schedule`.
    """

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        plan: dict[str, int] = {}
        left = state.token_budget
        # decodes, then unfinished prompts in order of admission
        for request in sorted(state.running, key=lambda r: r.phase != "decode"):
            if left and request.num_uncomputed_tokens:
                plan[request.request_id] = min(request.num_uncomputed_tokens, left)
                left -= plan[request.request_id]
        # admissions
        seats = state.max_num_seqs - len(state.running)
        if seats and left:
            for request in _in_order(state.waiting)[:seats]:
                if not left:
                    break
                plan[request.request_id] = min(request.num_uncomputed_tokens, left)
                left -= plan[request.request_id]
        return plan

    def victim(self, state: SchedulerState) -> str:
        # The newest of the least urgent: the one that runs longest can always finish.
        return max(enumerate(state.running), key=lambda nth: (nth[1].priority, nth[0]))[1].request_id


class Fcfs(ChunkedPrefill):
    """Continuous batching with whole prompts: first come, first served, nobody overtakes.

    A prompt that is longer than the budget is computed in chunks all the same: there is no other way to run it.
    """

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        plan: dict[str, int] = {}
        left = state.token_budget
        for request in state.running:
            if left and request.num_uncomputed_tokens:
                plan[request.request_id] = min(request.num_uncomputed_tokens, left)
                left -= plan[request.request_id]
        for request in state.waiting[: state.max_num_seqs - len(state.running)]:
            whole = request.num_uncomputed_tokens
            if not left or (whole > left and left < state.token_budget):
                break
            plan[request.request_id] = min(whole, left)
            left -= plan[request.request_id]
        return plan


class StaticBatching(Fcfs):
    """A batch is closed until its last request ends: the way of serving before Orca.

    Source: Yu et al., Orca, OSDI 2022, section 3 ("request-level scheduling").
    """

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        if state.running:
            unfinished = tuple(r for r in state.running if r.num_uncomputed_tokens)
            preempted = tuple(r for r in state.waiting if r.num_preemptions)
            closed = SchedulerState(
                state.step, state.token_budget, state.max_num_seqs, state.num_free_tokens, preempted, unfinished
            )
            return super().schedule(closed)
        return super().schedule(state)


def _in_order(waiting: tuple[RequestView, ...]) -> list[RequestView] | tuple[RequestView, ...]:
    """Most urgent first; a stable sort keeps the order of arrival among equals."""
    if any(r.priority for r in waiting):
        return sorted(waiting, key=lambda r: r.priority)
    return waiting


POLICIES = {"chunked": ChunkedPrefill, "fcfs": Fcfs, "static": StaticBatching}


def check_policy(options: Mapping[str, Any]) -> None:
    """Raises: EngineError when the option "policy" of an engine names none of ours."""
    if (name := options.get("policy", "chunked")) not in POLICIES:
        raise EngineError(unknown("policy", str(name), POLICIES))
