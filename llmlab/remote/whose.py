"""Whose: which requests in a server's trace are ours.

Each of ours goes out under a name that nobody else has; vLLM puts more around it (cmpl-NAME-0-1a2b3c4d), llmlab's
server takes it as it is. This file must not know traces' files or sockets.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from llmlab.trace import BlockDelta, CellDelta, Header, Incident, KvDelta, Request, Step
from llmlab.trace.whose import OTHER, TOLD, WHOSE, of_another

_LIKE_OURS = re.compile(r"r\d+")
_PREFIXES = ("chatcmpl-", "cmpl-")  # vLLM's, by route
T = TypeVar("T")


class Whose:
    """Names of one connection, both ways. `mark`: what ends each name that goes out."""

    def __init__(self) -> None:
        self.mark = f".{secrets.token_hex(4)}"
        self._is_needed = False  # some name that came is another here: before that, no step needs a look
        self._is_told = False  # the server has marked what is somebody else's

    def own_id(self, name: str) -> str | None:
        """Our request_id for a name in the trace; None for somebody else's.

        >>> whose = Whose(); whose.mark = ".5f1c2d9e"
        >>> whose.own_id("chatcmpl-r1.5f1c2d9e-0a1b2c3d"), whose.own_id("r2.5f1c2d9e"), whose.own_id("cmpl-4f1c2d9e")
        ('r1', 'r2', None)
        """
        stem, mark, _ = name.partition(self.mark)
        if not mark:
            return None
        for prefix in _PREFIXES:
            stem = stem.removeprefix(prefix)
        return stem

    def request(self, request: Request) -> Request:
        """A record of the trace under our name, or marked as somebody else's."""
        is_ours = self.own_id(request.request_id) is not None
        named = replace(request, request_id=self.name(request.request_id), parent_id=self.name(request.parent_id))
        self._is_needed = self._is_needed or named != request
        return named if is_ours or self._is_told else of_another(named)

    def header(self, header: Header) -> Header:
        self._is_told = header.extra.get(WHOSE) == TOLD
        return replace(header, kv_at_start=self._kv(header.kv_at_start)) if header.kv_at_start else header

    def step(self, step: Step) -> Step:
        """The same step with our names in it."""
        if not self._is_needed:
            return step
        return replace(
            step,
            scheduled=tuple(replace(row, request_id=self.name(row.request_id)) for row in step.scheduled),
            waiting=tuple(map(self.name, step.waiting)),
            preempted=tuple(map(self.name, step.preempted)),
            finished=self._keys(step.finished),
            stopped_by=self._keys(step.stopped_by),
            prefix_hits=self._keys(step.prefix_hits),
            forked={self.name(child): self.name(parent) for child, parent in step.forked.items()},
            tokens=tuple(replace(token, request_id=self.name(token.request_id)) for token in step.tokens),
            kv=self._kv(step.kv),
        )

    def incident(self, incident: Incident) -> Incident:
        return replace(incident, requests=tuple(map(self.name, incident.requests)))

    def _kv(self, kv: KvDelta | None) -> KvDelta | None:
        if isinstance(kv, CellDelta):
            return replace(kv, written=self._keys(kv.written), shared=self._keys(kv.shared), freed=self._keys(kv.freed))
        if isinstance(kv, BlockDelta):
            return replace(
                kv, allocated=self._keys(kv.allocated), freed=self._keys(kv.freed), groups=self._keys(kv.groups)
            )
        return None

    def _keys(self, values: Mapping[str, T]) -> dict[str, T]:
        return {self.name(name): value for name, value in values.items()}

    def name(self, name: str) -> str:
        """What a request is called here: another's that has the name of one of ours, r1, r2, ..., gets another one."""
        own = self.own_id(name)
        if own is not None:
            return own
        return f"{OTHER}-{name}" if _LIKE_OURS.fullmatch(name) else name
