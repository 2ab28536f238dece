"""Clauses about llama.cpp's cells: sequences join and share cells, end and leave holes.

This file must not know blocks: narration_blocks.py is its twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmlab.trace import CellDelta, ScheduledRequest
from llmlab.views.narration_base import Ended, Rows, Teller
from llmlab.views.phrases import Clause, Phrase, bold, count, joined, number, one_or_many, plain

MAX_JOINS = 2  # more are told in one sentence


class CellTeller(Teller):
    memory, noun = "cell", "sequence"

    @property
    def delta(self) -> CellDelta:
        assert isinstance(self.step.kv, CellDelta)
        return self.step.kv

    def admitted(self) -> Iterator[Clause]:
        new = [(r, row) for r, row in self.events.rows if self._joins(r, row)]
        if len(new) > MAX_JOINS:
            num_found, num_own = sum(self.hits.get(r, 0) for r, _ in new), sum(row.num_tokens for _, row in new)
            found = f"{count(num_found, 'token')} found in shared cells (nothing computed), " if num_found else ""
            names = self.who([request for request, _ in new])
            yield joined([names, f" join: {found}{count(num_own, 'cell')} written."])
        else:
            for request, row in new:
                yield joined([bold(self.name(request)), f" joins: {self._shares_and_writes(row.request_id, row)}."])

    def prefilling(self) -> Rows:
        rows = super().prefilling()
        return [(request, row) for request, row in rows if not self._joins(request, row)]

    def evicted(self) -> Iterator[Clause]:
        """Cells of requests that ended before, and were kept for those with the same beginning."""
        now = {request for request, *_ in (*self.events.finished, *self.events.preempted)}
        now |= {request for request, _ in self.events.rows} | set(self.events.going_on)
        given_up = {request: n for request, n in self.events.emptied.items() if request not in now}
        if given_up:
            cells, names = count(sum(given_up.values()), "cell"), self.who(list(given_up))
            verb = one_or_many(sum(given_up.values()), "is", "are")
            yield joined([f"{cells} that ", names, f" had left {verb} given up."])

    def finished(self) -> Iterator[Clause]:
        ended = self.came_to_an_end()
        leaving = [each for each in ended if each[1] in self.delta.freed]
        if leaving:
            yield self._ends(leaving)
        stay = "; the cells stay for requests that begin alike" if self.head["prefix_caching"] else ""
        yield from self.ended([each for each in ended if each not in leaving], stay)
        yield from self.broken_off(self.delta.freed, "; its cells are free")

    def decode(self) -> Iterator[Clause]:
        requests = [*self.events.going_on, *(request for request, _ in self.decoding())]
        if requests:
            one = len(requests) == 1
            subject = bold(self.name(requests[0])) if one else plain(count(len(requests), "sequence"))
            cells = count(len(requests), "cell")
            yield joined([subject, f" {'decodes' if one else 'decode'}: {cells} written."])

    def not_fitting(self, num_tokens: int) -> int:
        return num_tokens if num_tokens > self.delta.num_cells - self.delta.num_used else 0

    def _joins(self, request: int, row: ScheduledRequest) -> bool:
        return row.phase == "prefill" and row.num_computed_tokens == self.hits.get(request, 0)

    def _shares_and_writes(self, request_id: str, row: ScheduledRequest) -> str:
        num_shared = sum(length for _, length in self.delta.shared.get(request_id, ()))
        runs = self.delta.written.get(request_id, ())
        num_own = sum(length for _, _, length in runs) or row.num_tokens
        into = f" into {count(len(runs), 'run')}" if runs else ""
        written = f"{one_or_many(num_own, 'is', 'are')} written{into}"
        if not num_shared:
            return f"{count(num_own, 'cell')} {written}"
        shared = f"it shares the {count(num_shared, 'cell')} of the common prefix (nothing computed)"
        return f"{shared} and {count(num_own, 'cell')} of its own {written}"

    def _ends(self, leaving: Sequence[Ended]) -> Phrase:
        """What becomes of the cells of sequences that leave them."""
        runs = [run for _, name, _ in leaving for run in self.delta.freed[name]]
        num_left = len({cell for first, length in runs for cell in range(first, first + length)})
        num_holes = sum(self.events.emptied.get(request, 0) for request, _, _ in leaving)
        num_stay = num_left - num_holes
        holes = f"{count(num_holes, 'cell')} {one_or_many(num_holes, 'becomes a hole', 'become holes')}"
        stay = f", {number(num_stay)} {one_or_many(num_stay, 'stays', 'stay')} because others share"
        stay = f"{stay} {one_or_many(num_stay, 'it', 'them')}" if num_stay else ""
        head = self.delta.head
        goes_back = num_holes and head is not None and any(first <= head < first + length for first, length in runs)
        back = f" The head goes back to the first hole, cell {head}." if goes_back else ""
        verb = one_or_many(len(leaving), "ends", "end")
        return joined([self.who([request for request, _, _ in leaving]), f" {verb}: {holes}{stay}.{back}"])
