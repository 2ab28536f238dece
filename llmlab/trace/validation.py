"""Trace.validate(): where a trace breaks the rules that every sound one keeps. Linear in the trace.

Requests are followed by lifecycle.py, KV by cell_checks.py and block_checks.py; what is left is here. A rule that stays
broken is told once, at the step where it breaks. This file must not know any engine.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmlab.trace.block_checks import BlockChecks
from llmlab.trace.cell_checks import CellChecks
from llmlab.trace.lifecycle import Lifecycles
from llmlab.trace.records import CellDelta, Header, Incident, KvDelta, Step
from llmlab.trace.rules import Finding, Rule

if TYPE_CHECKING:
    from llmlab.trace.recording import Trace


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: the step (None: the trace as a whole), the name of the rule (rules.RULES), and a sentence.

    >>> print(Violation(12, "kv_length", "r1 holds 49 cells, its computed tokens are 50"))
    step 12: r1 holds 49 cells, its computed tokens are 50 (kv_length)
    """

    step: int | None
    rule: Rule
    text: str

    def __str__(self) -> str:
        where = "trace" if self.step is None else f"step {self.step}"
        return f"{where}: {self.text} ({self.rule})"


def validate(trace: Trace) -> list[Violation]:
    """Every broken rule of a trace, in order; an empty list is a sound trace."""
    return list(_violations(trace))


def _violations(trace: Trace) -> Iterator[Violation]:
    header = trace.header
    holders = header.kv_at_start.receivers if header.kv_at_start else None  # None: it begins with an empty cache
    lifecycles = Lifecycles(
        holders_at_start=holders, max_model_len=header.max_model_len, tells_steps=header.capabilities.steps
    )
    for finding in lifecycles.begin(trace.request_records):
        yield Violation(None, *finding)
    kv = _checks_for(header.kv_at_start, header, lifecycles)
    if kv and header.kv_at_start:
        for finding in kv.begin(header.kv_at_start):
            yield Violation(None, *finding)
    previous: Step | None = None
    told: tuple[Iterable[Step | Incident], ...] = (trace.step_records, trace.incidents)
    for record in heapq.merge(*told, key=lambda r: r.t_s):
        if isinstance(record, Incident):
            for finding in lifecycles.incident(record):
                yield Violation(None, *finding)
            continue
        findings = [*_order(previous, record), *_budget(header, record), *lifecycles.step(record)]
        kv = kv or _checks_for(record.kv, header, lifecycles)
        if kv:
            findings += kv.step(record)
        for finding in findings:
            yield Violation(record.step, *finding)
        previous = record
    for finding in lifecycles.finish():
        yield Violation(None, *finding)


def _checks_for(delta: KvDelta | None, header: Header, lifecycles: Lifecycles) -> CellChecks | BlockChecks | None:
    if delta is None:
        return None
    return (CellChecks if isinstance(delta, CellDelta) else BlockChecks)(header, lifecycles)


def _order(previous: Step | None, step: Step) -> Iterator[Finding]:
    if previous is None:
        return
    if step.step <= previous.step:
        yield Finding("order", f"step {step.step} follows step {previous.step}")
    if step.t_s < previous.t_s:
        yield Finding("order", f"it ends at {step.t_s} s, the step before at {previous.t_s} s")


def _budget(header: Header, step: Step) -> Iterator[Finding]:
    num_tokens = sum(row.num_tokens for row in step.scheduled)
    if num_tokens != step.num_scheduled_tokens:
        yield Finding("budget", f"num_scheduled_tokens is {step.num_scheduled_tokens}, the shares sum to {num_tokens}")
    budget = header.token_budget if step.token_budget is None else step.token_budget
    if budget is not None and num_tokens > budget:
        yield Finding("budget", f"{num_tokens} tokens are scheduled, the budget is {budget}")
    for request_id, n in Counter(row.request_id for row in step.scheduled).items():
        if n > 1:
            yield Finding("budget", f"{request_id} is scheduled {n} times")
    for row in step.scheduled:
        if row.num_tokens < 1:
            yield Finding("budget", f"{row.request_id} is scheduled for {row.num_tokens} tokens")
    num_running = max(step.num_running, len(step.scheduled))
    if header.max_num_seqs is not None and num_running > header.max_num_seqs:
        yield Finding("seats", f"{num_running} sequences run, max_num_seqs is {header.max_num_seqs}")
