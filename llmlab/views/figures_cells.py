"""The numbers beside a picture of llama.cpp's KV: cells used, holes, padding, what attention reads in vain.

This file must not know blocks: figures_blocks.py is its twin.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmlab.trace import CellDelta, Header, KvDelta, ScheduledRequest, Step
from llmlab.views.figures_base import Figures, KvFigures

_NAMES = ("used", "holes", "padding", "unread", "read", "masked", "shared", "saved", "tokens")


class CellFigures(KvFigures):
    """llama.cpp's cells: each holds the KV of one token, for one sequence or several."""

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self._cells: dict[str, set[int]] = {}  # request id -> cells it holds
        self._num_holders: dict[int, int] = {}  # cell -> requests that hold it, used cells only
        self._num_entries = self._num_shared = 0
        self._is_used = bytearray(header.num_cells or 0)

    def start(self, delta: KvDelta) -> None:
        self._change(delta)

    def held_by(self, request_id: str) -> int:
        return len(self._cells.get(request_id, ()))

    def after(self, step: Step, apart: Sequence[ScheduledRequest] | None = None) -> Figures:
        self.emptied = {}
        return super().after(step, apart)

    def _change(self, delta: KvDelta) -> None:
        if not isinstance(delta, CellDelta):
            return
        if len(self._is_used) < delta.num_cells:
            self._is_used.extend(bytes(delta.num_cells - len(self._is_used)))
        last_holder: dict[int, str] = {}
        for request_id, freed in delta.freed.items():
            for first, length in freed:
                self._free(request_id, range(first, first + length), last_holder)
        for request_id, shared in delta.shared.items():
            for first, length in shared:
                self._hold(request_id, range(first, first + length))
        for request_id, written in delta.written.items():
            for first, _, length in written:
                self._hold(request_id, range(first, first + length))
        # Only now: a cell that one request frees and another shares in the same delta keeps its KV.
        for cell, request_id in last_holder.items():
            if cell not in self._num_holders:
                self._is_used[cell] = 0
                self.emptied[request_id] = self.emptied.get(request_id, 0) + 1

    def _free(self, request_id: str, cells: range, last_holder: dict[int, str]) -> None:
        held = self._cells.get(request_id, set())
        for cell in held.intersection(cells):
            held.discard(cell)
            self._num_entries -= 1
            left = self._num_holders[cell] - 1
            self._num_shared -= left == 1
            if left:
                self._num_holders[cell] = left
            else:
                del self._num_holders[cell]
                last_holder[cell] = request_id
        if not held:
            self._cells.pop(request_id, None)

    def _hold(self, request_id: str, cells: range) -> None:
        held = self._cells.setdefault(request_id, set())
        for cell in cells[: max(0, len(self._is_used) - cells.start)]:
            if cell not in held:
                held.add(cell)
                self._num_entries += 1
                before = self._num_holders.get(cell, 0)
                self._num_holders[cell] = before + 1
                self._num_shared += before == 1
                self._is_used[cell] = 1

    def _of(self, delta: KvDelta | None) -> Figures:
        if not isinstance(delta, CellDelta):
            return dict.fromkeys(_NAMES)
        num_used, end = len(self._num_holders), self._is_used.rfind(1) + 1
        return {
            "used": num_used,
            "holes": end - num_used,
            "padding": max(0, delta.num_attended - end),
            "unread": delta.num_cells - max(delta.num_attended, end),
            "read": delta.num_attended,
            "masked": max(0, delta.num_attended - num_used),
            "shared": self._num_shared,
            "saved": self._num_entries - num_used,
            "tokens": num_used,
        }
