"""Clauses about block tables, and about engines that show no KV at all.

This file must not know cells: narration_cells.py is its twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llmlab.trace import BlockDelta, ScheduledRequest, Step
from llmlab.views.narration_base import Events, Rows, Teller
from llmlab.views.phrases import Clause, bold, count, ids, joined, number, one_or_many

MAX_BLOCKS = 4  # more are counted, not listed


class BlockTeller(Teller):
    memory = "block"

    def __init__(self, step: Step, events: Events, name: Callable[[int], str], head: Mapping[str, Any]) -> None:
        super().__init__(step, events, name, head)
        self.delta = step.kv if isinstance(step.kv, BlockDelta) else None

    def admitted(self) -> Iterator[Clause]:
        """Those whose first tokens the prefix cache had."""
        hits = self.hits
        new = [(r, row) for r, row in self.events.rows if r in hits and not self._returns(r, row)] if hits else []
        if not new:
            return
        num_found = sum(self.hits[request] for request, _ in new)
        found = count(num_found, "token") if num_found > 1 else "token"
        subject, them = self.who([request for request, _ in new]), one_or_many(num_found, "it", "them")
        if len(new) == 1:
            where = self._found_in(new[0][1])
            yield joined(
                [subject, f" is admitted and finds its first {found} in {where}: nothing to compute for {them}."]
            )
        else:
            kind = self._kind(block for _, row in new for block in self._found(row))
            where = f"{kind} blocks" if self.delta else "the prefix cache"
            yield joined([subject, f" are admitted and find {found} in {where}: nothing to compute for {them}."])

    def evicted(self) -> Iterator[Clause]:
        blocks = self.delta.evicted if self.delta else ()
        if len(blocks) > MAX_BLOCKS:
            yield f"{count(len(blocks), 'cached block')} evicted to make room."
        elif blocks:
            yield f"Cached {one_or_many(len(blocks), 'block', 'blocks')} {ids(blocks)} evicted to make room."

    def finished(self) -> Iterator[Clause]:
        back, cached = "; blocks go back to the queue", ", full ones stay cached"
        rest = (back + (cached if self.head["prefix_caching"] else "")) if self.delta else ""
        yield from self.ended(self.came_to_an_end(), rest)
        yield from self.broken_off(self.delta.freed if self.delta else (), "; its blocks are free")

    def decode(self) -> Iterator[Clause]:
        requests = [*self.events.going_on, *(request for request, _ in self.decoding())]
        apart = {row.request_id for _, row in self.events.rows if row.phase != "decode" or row.num_draft_tokens}
        handed_out = self._handed_out(lambda request_id: request_id not in apart, len(requests))
        if len(requests) == 1:
            yield joined([bold(self.name(requests[0])), f" decodes one token{handed_out}."])
        elif requests:
            yield f"{count(len(requests), 'request')} decode one token each{handed_out}."

    def handed_out(self, rows: Rows) -> str:
        names = {row.request_id for _, row in rows}
        return self._handed_out(lambda request_id: request_id in names, len(rows))

    def _handed_out(self, is_meant: Callable[[str], bool], num_requests: int) -> str:
        if self.delta is None or not self.delta.allocated:
            return ""
        blocks = [block for r, some in self.delta.allocated.items() if is_meant(r) for block in some]
        if len(blocks) <= MAX_BLOCKS:
            return f"; {one_or_many(len(blocks), 'block', 'blocks')} {ids(blocks)} handed out" if blocks else ""
        size = self.head["block_size"]
        rows = (row for row in self.step.scheduled if is_meant(row.request_id))
        is_boundary = size and len(blocks) == num_requests and all(not row.num_computed_tokens % size for row in rows)
        together = f": all of them crossed a {size}-token boundary together" if is_boundary else ""
        return f"; {number(len(blocks))} blocks handed out{together}"

    def not_fitting(self, num_tokens: int) -> int:
        size = self.head["block_size"]
        if self.delta is None or not size:
            return 0
        needed = -(-num_tokens // size)
        return needed if needed > self.delta.num_free else 0

    def _found(self, row: ScheduledRequest) -> tuple[int, ...]:
        """The blocks that an admitted request found in the prefix cache."""
        size = self.head["block_size"]
        blocks = self.delta.allocated.get(row.request_id, ()) if self.delta else ()
        return blocks[: row.num_computed_tokens // size] if size else ()

    def _found_in(self, row: ScheduledRequest) -> str:
        blocks = self._found(row)
        if not blocks:
            return "the prefix cache"
        told = ", ".join(map(str, blocks[:MAX_BLOCKS])) + (", …" if len(blocks) > MAX_BLOCKS else "")
        return f"{count(len(blocks), f'{self._kind(blocks)} block')} ({told})"

    def _kind(self, blocks: Iterable[int]) -> str:
        """Shared, or only cached when nobody else holds any of them now."""
        ref_counts = self.delta.ref_counts if self.delta else {}
        return "shared" if any(ref_counts.get(block, 0) > 1 for block in blocks) else "cached"
