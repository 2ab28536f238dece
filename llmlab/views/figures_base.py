"""KvFigures: the numbers beside a picture that every engine has; base of those for blocks and cells.

This file must not know which kinds of cache there are.
"""

from __future__ import annotations

from llmlab.trace import Header, KvDelta, Step

Figures = dict[str, int | float | None]


class KvFigures:
    """Who runs, and what the prefix cache found: all there is to say of an engine that does not show its KV cache."""

    def __init__(self, header: Header) -> None:
        self._has_prefix_cache = header.capabilities.prefix_caching
        self._num_hit = 0
        self._most: dict[str, int | None] = {}
        self._running: set[str] = set()
        self.tokens: dict[str, int] = {}  # request id -> tokens whose KV exists, of those that run or hold KV
        self._num_tokens = 0  # sum of tokens
        self._reserved: int | None = 0
        # request id -> cells that nobody holds since it let go of them in the last step
        self.emptied: dict[str, int] = {}

    def add_request(self, request_id: str, most: int | None) -> None:
        """`most`: tokens it may have in the end, prompt and output; None when there is no telling."""
        self._most[request_id] = most
        if request_id in self._running:
            self._reserve()

    def start(self, delta: KvDelta) -> None:
        """The cache before the first step, of a trace that was cut out of a longer one."""

    def after(self, step: Step) -> Figures:
        """The figures at the end of this step. To be called once a step, in order."""
        num_running_before = len(self._running)
        for request_id in step.preempted:
            self._running.discard(request_id)
            self._forget(request_id)
        self._schedule(step)
        if step.kv is not None:
            self._change(step.kv)
        for request_id in step.finished:
            self._running.discard(request_id)
            self._end(request_id)
        if step.preempted or step.finished or len(self._running) != num_running_before:
            self._reserve()
        self._num_hit += sum(step.prefix_hits.values())
        figures = self._of(step.kv)
        figures["running"] = len(self._running)
        figures["hits"] = self._num_hit if self._has_prefix_cache else None
        return figures

    def held_by(self, request_id: str) -> int:
        """Blocks or cells of this request after the last step."""
        return 0

    def tokens_of(self, request_id: str) -> int:
        """Tokens of this request whose KV exists after the last step."""
        return self.tokens.get(request_id, 0)

    def _schedule(self, step: Step) -> None:
        tokens, running, total = self.tokens, self._running, self._num_tokens
        for row in step.scheduled:
            request_id = row.request_id
            now = row.num_computed_tokens + row.num_tokens
            if row.num_draft_tokens:
                now -= num_rejected(step, request_id, row.num_draft_tokens)
            before = tokens.get(request_id)
            if before is None:
                running.add(request_id)
                before = 0
            total += now - before
            tokens[request_id] = now
        self._num_tokens = total

    def _forget(self, request_id: str) -> None:
        self._num_tokens -= self.tokens.pop(request_id, 0)

    def _end(self, request_id: str) -> None:
        self._forget(request_id)

    def _reserve(self) -> None:
        most = [self._most.get(request_id) for request_id in self._running]
        self._reserved = None if None in most else sum(m for m in most if m is not None)

    def _change(self, delta: KvDelta) -> None:
        pass

    def _of(self, delta: KvDelta | None) -> Figures:
        return {}


def num_rejected(step: Step, request_id: str, num_draft_tokens: int) -> int:
    """Draft tokens of a request that this step threw away: what was accepted comes out, and one token more."""
    num_new = sum(token.request_id == request_id for token in step.tokens)
    return max(0, num_draft_tokens - max(0, num_new - 1))
