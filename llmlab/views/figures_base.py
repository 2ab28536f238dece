"""KvFigures: the numbers beside a picture that every engine has; base of those for blocks and cells.

This file must not know which kinds of cache there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmlab.trace import Header, KvDelta, ScheduledRequest, Step

Figures = dict[str, int | float | None]


class KvFigures:
    """Who runs, and what the prefix cache found: all there is to say of an engine that does not show its KV cache."""

    def __init__(self, header: Header) -> None:
        self._has_prefix_cache = header.capabilities.prefix_caching
        self._num_hit = 0
        self._most: dict[str, int | None] = {}
        self.running: set[str] = set()
        self._sum_most = self._num_unlimited = 0  # of those that run
        self.num_steps = 0
        # Request id -> its tokens whose KV exists, less num_steps, of those that run or hold KV: it stays the same for
        # those that decode in each step, often hundreds.
        self.ahead: dict[str, int] = {}
        self._num_tokens = 0  # of all of them
        # request id -> cells that nobody holds since it let go of them in the last step
        self.emptied: dict[str, int] = {}

    def add_request(self, request_id: str, most: int | None) -> None:
        """`most`: tokens it may have in the end, prompt and output; None when there is no telling."""
        is_running = request_id in self.running
        self._leave(request_id)
        self._most[request_id] = most
        if is_running:
            self._come(request_id)

    def start(self, delta: KvDelta) -> None:
        """The cache before the first step, of a trace that was cut out of a longer one."""

    def after(self, step: Step, apart: Sequence[ScheduledRequest] | None = None) -> Figures:
        """The figures at the end of this step. To be called once a step, in order.

        `apart`: the shares of all but those that computed one token more, when somebody has looked.
        """
        for request_id in step.preempted:
            self._leave(request_id)
            self._forget(request_id)
        self._schedule(step, step.scheduled if apart is None or step.preempted else apart)
        if step.kv is not None:
            self._change(step.kv)
        for request_id in step.finished:
            self._leave(request_id)
            self._end(request_id)
        if step.prefix_hits:
            self._num_hit += sum(step.prefix_hits.values())
        figures = self._of(step.kv)
        figures["running"] = len(self.running)
        figures["hits"] = self._num_hit if self._has_prefix_cache else None
        return figures

    def held_by(self, request_id: str) -> int:
        """Blocks or cells of this request after the last step."""
        return 0

    def tokens_of(self, request_id: str) -> int:
        """Tokens of this request whose KV exists after the last step."""
        ahead = self.ahead.get(request_id)
        return 0 if ahead is None else ahead + self.num_steps

    def _schedule(self, step: Step, apart: Sequence[ScheduledRequest]) -> None:
        ahead, num_before = self.ahead, self.num_steps
        self.num_steps += 1
        self._num_tokens += len(step.scheduled) - len(apart)
        for row in apart:
            request_id = row.request_id
            now = row.num_computed_tokens + row.num_tokens
            if row.num_draft_tokens:
                now -= num_rejected(step, request_id, row.num_draft_tokens)
            if request_id in ahead:
                self._num_tokens -= ahead[request_id] + num_before
            else:
                self._come(request_id)
            self._num_tokens += now
            ahead[request_id] = now - self.num_steps
        if len(ahead) > len(step.scheduled):
            for request_id in set(ahead).difference([row.request_id for row in step.scheduled]):
                ahead[request_id] -= 1

    def _forget(self, request_id: str) -> None:
        self._num_tokens -= self.tokens_of(request_id)
        self.ahead.pop(request_id, None)

    def _end(self, request_id: str) -> None:
        self._forget(request_id)

    def _come(self, request_id: str) -> None:
        """It runs."""
        if request_id not in self.running:
            self.running.add(request_id)
            self._count(request_id, 1)

    def _leave(self, request_id: str) -> None:
        """It runs no more."""
        if request_id in self.running:
            self.running.discard(request_id)
            self._count(request_id, -1)

    def _count(self, request_id: str, sign: int) -> None:
        most = self._most.get(request_id)
        self._num_unlimited += sign * (most is None)
        self._sum_most += sign * (most or 0)

    @property
    def _reserved(self) -> int | None:
        """Tokens that those that run may have in the end; None when there is no telling."""
        return None if self._num_unlimited else self._sum_most

    def _change(self, delta: KvDelta) -> None:
        pass

    def _of(self, delta: KvDelta | None) -> Figures:
        return {}


def num_rejected(step: Step, request_id: str, num_draft_tokens: int) -> int:
    """Draft tokens of a request that this step threw away: what was accepted comes out, and one token more."""
    num_new = sum(token.request_id == request_id for token in step.tokens)
    return max(0, num_draft_tokens - max(0, num_new - 1))
