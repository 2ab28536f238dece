"""Refusing a bad plan, with the sentence that a student reads."""

from __future__ import annotations

from llmlab.errors import PlanRefused
from llmlab.scheduling.contracts import SchedulerState


def check_plan(plan: dict[str, int], state: SchedulerState) -> None:
    """Raises: PlanRefused when the plan of a policy breaks one of the rules of its contract."""
    step, running = state.step, {r.request_id: r for r in state.running}
    known = running | {r.request_id: r for r in state.waiting} if plan.keys() - running.keys() else running
    for request_id, num_tokens in plan.items():
        if request_id not in known:
            raise PlanRefused(f"step {step}: {request_id!r} is neither waiting nor running")
        uncomputed = known[request_id].num_uncomputed_tokens
        if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or not 1 <= num_tokens <= uncomputed:
            raise PlanRefused(
                f"step {step}: {request_id} was given {num_tokens} tokens, it has {uncomputed} uncomputed: "
                f"give 1..{uncomputed}"
            )
    total = sum(plan.values())
    if total > state.token_budget:
        raise PlanRefused(
            f"step {step}: {total} tokens scheduled, token_budget is {state.token_budget}: "
            f"over by {total - state.token_budget}"
        )
    num_seqs = len(running.keys() | plan.keys())
    if num_seqs > state.max_num_seqs:
        raise PlanRefused(f"step {step}: {num_seqs} sequences would run, max_num_seqs is {state.max_num_seqs}")
    if running and not plan:
        raise PlanRefused(f"step {step}: nothing was scheduled while {sorted(running)[:4]} run")


def check_victim(victim: str, state: SchedulerState) -> None:
    """Raises: PlanRefused when the victim does not run."""
    running = [r.request_id for r in state.running]
    if victim not in running:
        raise PlanRefused(f"step {state.step}: victim() named {victim!r}, which is not running (running: {running})")
