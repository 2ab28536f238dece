"""What each request did, step by step: admitted, scheduled, preempted, ended; and where that breaks a rule.

This file must not know KV caches: kv_checks.py compares what it finds here with the deltas.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from llmlab.trace.records import Incident, Request, ScheduledRequest, Step
from llmlab.trace.rules import Finding


@dataclass(slots=True)
class Life:
    """One request, as far as the trace has told."""

    request: Request | None
    # Tokens whose KV exists; None while it waits for its (re)admission.
    num_computed: int | None = None
    # Found in the prefix cache, for the admission to come.
    num_hit: int = 0
    num_preemptions: int = 0
    output_ids: list[int] = field(default_factory=list)
    # Output tokens that came before the trace begins.
    num_unseen_outputs: int = 0
    was_scheduled: bool = False
    # It may have been preempted before the trace begins.
    has_unseen_past: bool = False
    # In words, once it has ended: "in step 12".
    ended: str = ""

    @property
    def num_output(self) -> int:
        return self.num_unseen_outputs + len(self.output_ids)

    def token_at(self, position: int) -> int | None:
        """The token at a position of prompt and output; None when the trace does not tell."""
        prompt = self.request.prompt_token_ids if self.request else ()
        if position < len(prompt):
            return prompt[position]
        index = position - len(prompt) - self.num_unseen_outputs
        return self.output_ids[index] if prompt and 0 <= index < len(self.output_ids) else None


class Advance(NamedTuple):
    """What one step did to one request, for whoever checks its KV."""

    request_id: str
    # First scheduling after it waited, with this many tokens from the prefix cache.
    is_admission: bool
    num_hit: int
    num_computed_before: int
    # Tokens whose KV exists after the step: rejected draft tokens do not count.
    num_computed: int
    num_draft: int


class Lifecycles:
    """All requests of one trace. Each method returns the findings of one record."""

    def __init__(
        self, *, holders_at_start: Collection[str] | None, max_model_len: int | None, tells_steps: bool = True
    ) -> None:
        """`holders_at_start` hold KV when the trace begins, as it is cut out of a longer one. None: it is whole.

        Not `tells_steps`: the engine is seen from outside, and tokens come without anybody being scheduled.
        """
        self._tells_steps = tells_steps
        self.lives: dict[str, Life] = {}
        self.advances: list[Advance] = []  # of the last step
        self._holders_at_start = frozenset(holders_at_start or ())
        self._is_cut_out, self._max_model_len = holders_at_start is not None, max_model_len

    def begin(self, requests: tuple[Request, ...]) -> Iterator[Finding]:
        for request in requests:
            if request.request_id in self.lives:
                yield Finding("request", f"{request.request_id} has two request records")
            self.lives.setdefault(request.request_id, Life(request, has_unseen_past=self._is_cut_out))

    def step(self, step: Step) -> list[Finding]:
        found: list[Finding] = []
        for request_id in step.preempted:
            self._preempt(request_id, found)
        for request_id, num_hit in step.prefix_hits.items():
            life = self._life(request_id, "has a prefix hit", found)
            if life.num_computed is not None:
                found.append(Finding("prefix", f"{request_id} has a prefix hit of {num_hit} tokens while it runs"))
            else:
                life.num_hit = num_hit
        new_ids: dict[str, list[int]] = {}
        for token in step.tokens:
            new_ids.setdefault(token.request_id, []).append(token.token_id)
        self.advances = []
        # Who is scheduled twice breaks the budget rule; the first share counts here.
        for row in {row.request_id: row for row in reversed(step.scheduled)}.values():
            self._schedule(row, new_ids.pop(row.request_id, []), step, found)
        for request_id, ids in new_ids.items() if self._tells_steps else ():
            found.append(Finding("tokens", f"{_tokens(len(ids))} of {request_id} came out, which was not scheduled"))
        for request_id, parent_id in step.forked.items():
            self._fork(request_id, parent_id, found)
        for request_id in step.finished:
            self._end(request_id, f"in step {step.step}", found)
        return found

    def incident(self, incident: Incident) -> list[Finding]:
        found: list[Finding] = []
        for request_id in incident.requests:
            self._end(request_id, f'by the incident "{incident.incident}"', found)
        return found

    def finish(self) -> Iterator[Finding]:
        for request_id, life in self.lives.items():
            # What ended before the trace begins may still hold cells, kept for prefix sharing.
            may_be_over = request_id in self._holders_at_start and not life.was_scheduled
            if life.request and not life.ended and not may_be_over:
                yield Finding("end", f"{request_id} never ends")

    def _life(self, request_id: str, event: str, found: list[Finding]) -> Life:
        life = self.lives.get(request_id)
        if life is None:
            found.append(Finding("request", f"{request_id} {event}, but has no request record"))
            life = self.lives[request_id] = Life(None)
        return life

    def _preempt(self, request_id: str, found: list[Finding]) -> None:
        life = self._life(request_id, "is preempted", found)
        if life.ended:
            found.append(Finding("preempted", f"{request_id} is preempted, it ended {life.ended}"))
        elif life.num_computed is None and not self._began_before(request_id, life):
            found.append(Finding("preempted", f"{request_id} is preempted, but it did not run"))
        life.num_computed, life.num_hit = None, 0
        life.num_preemptions += 1

    def _fork(self, request_id: str, parent_id: str, found: list[Finding]) -> None:
        life, parent = self._life(request_id, "is forked", found), self._life(parent_id, "is forked", found)
        if life.ended or life.num_computed is not None:
            state = f"it ended {life.ended}" if life.ended else "it runs already"
            found.append(Finding("prefix", f"{request_id} is forked from {parent_id}, but {state}"))
        mine, its = (one.request.prompt_token_ids if one.request else () for one in (life, parent))
        if mine != its or not 0 < (parent.num_computed or 0) < len(its):
            text = f"{request_id} is forked from {parent_id}, which has another prompt, or is not just computing it"
            found.append(Finding("prefix", text))
        life.num_computed = parent.num_computed

    def _end(self, request_id: str, when: str, found: list[Finding]) -> None:
        life = self._life(request_id, "ends", found)
        if life.ended:
            found.append(Finding("end", f"{request_id} ends {when}, it ended {life.ended} already"))
        life.ended = life.ended or when
        life.num_computed = None

    def _began_before(self, request_id: str, life: Life) -> bool:
        """It ran already when the trace begins: how far it was, only its first share tells."""
        is_first = not (life.was_scheduled or life.num_preemptions or life.num_hit)
        return is_first and request_id in self._holders_at_start

    def _schedule(self, row: ScheduledRequest, new_ids: list[int], step: Step, found: list[Finding]) -> None:
        life = self._life(row.request_id, "is scheduled", found)
        if life.ended:
            found.append(Finding("end", f"{row.request_id} is scheduled, it ended {life.ended}"))
            return
        if self._is_cut_out and not life.was_scheduled:
            life.num_unseen_outputs = row.num_output_tokens
        if self._began_before(row.request_id, life):
            life.num_computed = row.num_computed_tokens
        is_admission = life.num_computed is None
        num_before = len(found)
        self._check_counts(row, life, found)
        if len(found) == num_before:
            _check_phase(row, life, found)
        num_rejected = _check_tokens(row, new_ids, row.request_id in step.finished, found)
        # Go on from what the record says: one mistake is told once.
        life.num_computed = row.num_computed_tokens + row.num_tokens - num_rejected
        life.output_ids += new_ids
        life.num_unseen_outputs += row.num_output_tokens + len(new_ids) - life.num_output
        life.was_scheduled = True
        num_hit, life.num_hit = life.num_hit, 0
        self.advances.append(
            Advance(
                row.request_id,
                is_admission,
                num_hit,
                row.num_computed_tokens,
                life.num_computed,
                row.num_draft_tokens,
            )
        )

    def _check_counts(self, row: ScheduledRequest, life: Life, found: list[Finding]) -> None:
        name, computed = row.request_id, row.num_computed_tokens
        if life.num_computed is not None and computed != life.num_computed:
            found.append(Finding("computed", f"{name} has {computed} computed tokens, expected {life.num_computed}"))
        elif life.num_computed is None and computed != life.num_hit:
            text = f"{name} is admitted with {computed} computed tokens, its prefix hit is {life.num_hit}"
            found.append(Finding("computed", text))
        if row.num_output_tokens != life.num_output:
            text = f"{name} is said to have {_outputs(row.num_output_tokens)}, {life.num_output} came out"
            found.append(Finding("computed", text))
        prompt = life.request.prompt_token_ids if life.request else ()
        if prompt and row.num_prompt_tokens != len(prompt):
            text = f"{name} is said to have {row.num_prompt_tokens} prompt tokens, its request has {len(prompt)}"
            found.append(Finding("computed", text))
        num_left = row.num_prompt_tokens + row.num_output_tokens - computed
        if row.num_tokens > num_left + row.num_draft_tokens:
            text = f"{name} is scheduled for {_tokens(row.num_tokens)}, {max(num_left, 0)} are left to compute"
            found.append(Finding("computed", text))
        elif self._max_model_len is not None and computed + row.num_tokens > self._max_model_len:
            text = f"{name} reaches {computed + row.num_tokens} tokens, max_model_len is {self._max_model_len}"
            found.append(Finding("computed", text))


def _check_phase(row: ScheduledRequest, life: Life, found: list[Finding]) -> None:
    name, is_admission = row.request_id, life.num_computed is None
    num_left = row.num_prompt_tokens + row.num_output_tokens - row.num_computed_tokens
    text = ""
    if row.phase == "decode":
        if not row.num_output_tokens:
            text = f"{name} decodes before its first output token"
        elif num_left != 1:
            text = f"{name} decodes with {num_left} tokens left to compute, expected 1"
        elif row.num_tokens != 1 + row.num_draft_tokens:
            text = f"{name} decodes {_tokens(row.num_tokens)}, expected {1 + row.num_draft_tokens}"
    # A preempted request that finds all but its last token is said to recompute or to decode.
    elif num_left == 1 and row.num_output_tokens and not is_admission:
        text = f"{name} is in {row.phase} with 1 token left to compute after an output, expected decode"
    elif row.phase == "recompute":
        if not (life.num_preemptions or life.has_unseen_past):
            text = f"{name} is in recompute, but was never preempted"
    elif life.num_preemptions:
        text = f"{name} is in prefill after a preemption, expected recompute"
    elif row.num_output_tokens:
        text = f"{name} is in prefill with {_outputs(row.num_output_tokens)}"
    if text:
        found.append(Finding("phase", text))


def _check_tokens(row: ScheduledRequest, new_ids: list[int], has_ended: bool, found: list[Finding]) -> int:
    """The number of draft tokens that were rejected."""
    name, num_new = row.request_id, len(new_ids)
    num_all = row.num_prompt_tokens + row.num_output_tokens
    num_done = row.num_computed_tokens + row.num_tokens - row.num_draft_tokens
    if num_done < num_all:
        if num_new:
            text = f"{_tokens(num_new)} of {name} came out with {num_done} of its {num_all} tokens computed"
            found.append(Finding("tokens", text))
        return row.num_draft_tokens
    if not num_new and not has_ended:
        found.append(Finding("tokens", f"no token of {name} came out, though all its {num_all} are computed"))
    if num_new > 1 + row.num_draft_tokens:
        text = f"{_tokens(num_new)} of {name} came out of one step, expected at most {1 + row.num_draft_tokens}"
        found.append(Finding("tokens", text))
    return max(0, row.num_draft_tokens - max(0, num_new - 1))


def _tokens(n: int) -> str:
    return "1 token" if n == 1 else f"{n} tokens"


def _outputs(n: int) -> str:
    return "1 output token" if n == 1 else f"{n} output tokens"
