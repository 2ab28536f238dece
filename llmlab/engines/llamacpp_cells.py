"""llama.cpp's real KV cells, read out of its memory, and their change from step to step.

There is no public API for single cells, so the C++ object is read in place, at offsets that hold for one build
(libstdc++, libllama 0.5.0). self_check() compares with the public state of the context first; where it fails, the
cells come from our own mirror of find_slot (scheduling/cell_pool.py), checked against that public state.
This file must not know requests or sampling.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llmlab.engines.llamacpp_library import lib
from llmlab.scheduling.cell_pool import CellPool, num_attended
from llmlab.trace import CellDelta
from llmlab.trace.runs import placed_runs, runs

_Written = dict[str, list[tuple[int, int]]]  # request_id -> (cell, position)


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells. position: [num_cells], -1 = empty; seats: [num_cells, 4] uint64, a bitset each."""

    position: NDArray[np.int32]
    seats: NDArray[np.uint64]
    head: int

    def seats_of(self, cell: int) -> list[int]:
        return _bits(self.seats[cell])

    def copy(self) -> Cells:
        return Cells(self.position.copy(), self.seats.copy(), self.head)


class CellReader(Protocol):
    def read(self) -> Cells: ...


class RawCells:
    """The cells of a unified cache, seen in place: the arrays change with the next decode.

    Raises: ValueError when the object does not look as expected.
    """

    # llama_kv_cache: vector<uint32_t> of heads, vector<llama_kv_cells> behind a reference
    _HEADS, _CELLS = 144, 192
    # llama_kv_cells: vector<int32_t> positions, vector<bitset<256>> sequences; size of the object
    _POSITION, _SEATS, _SIZE = 56, 128, 12440

    def __init__(self, context: Any) -> None:
        memory = lib.llama_get_memory(context)
        self._cache = memory if isinstance(memory, int) else ctypes.cast(memory, ctypes.c_void_p).value or 0
        vector = self._word(self._cache + self._CELLS)
        begin, end = self._word(vector), self._word(vector + 8)
        if end - begin != self._SIZE:
            raise ValueError(f"expected one llama_kv_cells of {self._SIZE} bytes, found {end - begin}")
        # Both vectors get their size when the context is made, and keep their place.
        self._position = self._vector(begin + self._POSITION, np.int32)
        self._seats = self._vector(begin + self._SEATS, np.uint64).reshape(-1, 4)
        self._head = ctypes.c_uint32.from_address(self._word(self._cache + self._HEADS))

    def read(self) -> Cells:
        return Cells(self._position, self._seats, self._head.value)

    @staticmethod
    def _word(address: int) -> int:
        return ctypes.c_uint64.from_address(address).value

    def _vector(self, address: int, dtype: type[np.generic]) -> NDArray[Any]:
        begin, end = self._word(address), self._word(address + 8)
        return np.frombuffer(memoryview((ctypes.c_uint8 * (end - begin)).from_address(begin)), dtype)


class MirroredCells:
    """The cells as our pool predicts them, for builds whose memory we cannot read."""

    def __init__(self, pool: CellPool) -> None:
        self._pool = pool

    def read(self) -> Cells:
        position = np.full(self._pool.num_blocks, -1, np.int32)
        seats = np.zeros((self._pool.num_blocks, 4), np.uint64)
        for seat, cells in self._pool.cells_by_seat().items():
            position[cells] = np.arange(len(cells))
            seats[cells, seat >> 6] |= np.uint64(1 << (seat & 63))
        return Cells(position, seats, self._pool.head)


def used_cells(context: Any, num_cells: int, num_seats: int) -> list[tuple[int, list[int]]]:
    """(position, seats) of the used cells in cell order, by the public API; empty cells leave no trace in it.

    llama_state_get_data writes the cells first and stops at the first tensor that does not fit: the buffer is made
    too small for tensors on purpose.
    """
    size = 76 + num_cells * (8 + 4 * num_seats)
    buffer = (ctypes.c_uint8 * size)()
    lib.llama_state_get_data(context, buffer, size)
    data = bytes(buffer)
    (name_length,) = struct.unpack_from("<I", data, 0)
    num_streams, num_used = struct.unpack_from("<II", data, 4 + name_length)
    if num_streams != 1:
        raise ValueError(f"expected a unified KV cache with 1 stream, found {num_streams}")
    offset, out = 12 + name_length, []
    for _ in range(num_used):
        position, count = struct.unpack_from("<iI", data, offset)
        out.append((position, list(struct.unpack_from(f"<{count}i", data, offset + 8))))
        offset += 8 + 4 * count
    return out


def agrees_with_public_state(reader: CellReader, context: Any, num_seats: int) -> bool:
    """Whether a reader shows the same used cells, in the same order, as the public state of the context."""
    cells = reader.read()
    seen = [(int(cells.position[c]), cells.seats_of(c)) for c in np.flatnonzero(cells.position >= 0).tolist()]
    return seen == used_cells(context, len(cells.position), num_seats)


def raw_reader(context: Any, num_cells: int, num_seats: int) -> RawCells | None:
    """A reader of the real cells that has proven itself on a context with used cells, or None."""
    try:
        reader = RawCells(context)
        cells = reader.read()
        sound = len(cells.position) == len(cells.seats) == num_cells and bool((cells.position >= 0).any())
        return reader if sound and agrees_with_public_state(reader, context, num_seats) else None
    except (ValueError, struct.error):
        return None


class CellWatcher:
    """Turns what a reader sees after each step into the CellDelta of that step."""

    def __init__(self, reader: CellReader) -> None:
        self.reader = reader
        self._before = reader.read().copy()
        self._owner: dict[int, str] = {}  # seat -> request, as of the last step
        self._num_used = self._end = 0  # used cells, and the place behind the last of them

    def delta(
        self, seats: Mapping[int, str], computed: Mapping[str, range], placed: Mapping[int, tuple[int, int]] | None
    ) -> CellDelta:
        """The change since the last call.

        `seats`: which request sits on which seat now. `computed`: the positions that each request wrote in this step;
        only they tell a cell that was freed and written again from one whose KV went to another request as it is.
        `placed`: cell -> (position, seat) as our pool expects them, when this step only wrote. Where the cells
        themselves agree, nobody has to look at all the others: that would cost more than everything else here.
        """
        now = self.reader.read()
        shared: dict[str, list[int]] = {}
        freed: dict[str, list[int]] = {}
        if placed is not None and self._agrees(now, placed):
            written = self._take_written(now, placed, seats)
        else:
            written = self._compare(now, seats, computed, shared, freed)
        self._owner = dict(seats)
        return CellDelta(
            written={r: tuple(placed_runs(cells)) for r, cells in written.items()},
            shared={r: runs(cells) for r, cells in shared.items()},
            freed={r: runs(cells) for r, cells in freed.items()},
            num_used=self._num_used,
            num_cells=len(now.position),
            num_attended=num_attended(self._end, len(now.position)),
            head=now.head,
        )

    def _agrees(self, now: Cells, placed: Mapping[int, tuple[int, int]]) -> bool:
        """Whether these cells were empty, and are now what was expected."""
        empty, position = self._before.position, now.position
        return all(
            empty[cell] < 0 and position[cell] == expected and now.seats_of(cell) == [seat]
            for cell, (expected, seat) in placed.items()
        )

    def _take_written(self, now: Cells, placed: Mapping[int, tuple[int, int]], seats: Mapping[int, str]) -> _Written:
        """These cells, and no others, have changed."""
        written: _Written = {}
        for cell, (position, seat) in placed.items():
            written.setdefault(seats[seat], []).append((cell, position))
            self._before.position[cell], self._before.seats[cell] = position, now.seats[cell]
            self._end = max(self._end, cell + 1)
        self._num_used += len(placed)
        return written

    def _compare(
        self,
        now: Cells,
        seats: Mapping[int, str],
        computed: Mapping[str, range],
        shared: dict[str, list[int]],
        freed: dict[str, list[int]],
    ) -> _Written:
        """All cells against the last step. Fills `shared` and `freed`, and gives back what was written."""
        before = self._before
        written: _Written = {}
        for cell in self._changed(now, seats):
            position = int(now.position[cell])
            old, new = self._holders(before, cell, self._owner), self._holders(now, cell, seats)
            fresh = any(position in computed.get(who, ()) for who in new)
            for request_id in old if fresh else old - new:
                freed.setdefault(request_id, []).append(cell)
            gained = sorted(new if fresh else new - old)
            if fresh:
                written.setdefault(gained.pop(0), []).append((cell, position))
            for request_id in gained:
                shared.setdefault(request_id, []).append(cell)
            before.position[cell], before.seats[cell] = position, now.seats[cell]
        used = np.flatnonzero(now.position >= 0)
        self._num_used, self._end = len(used), int(used[-1]) + 1 if len(used) else 0
        return written

    def _changed(self, now: Cells, seats: Mapping[int, str]) -> list[int]:
        before = self._before
        changed = {*np.flatnonzero(before.position != now.position).tolist()}
        changed.update((np.flatnonzero(before.seats != now.seats) // now.seats.shape[1]).tolist())
        for seat, who in self._owner.items():
            if seats.get(seat) != who:  # the same bit stands for another request now
                mask = np.uint64(1 << (seat & 63))
                changed.update(np.flatnonzero((before.seats[:, seat >> 6] | now.seats[:, seat >> 6]) & mask).tolist())
        return sorted(changed)

    @staticmethod
    def _holders(cells: Cells, cell: int, owner: Mapping[int, str]) -> set[str]:
        return {owner[seat] for seat in cells.seats_of(cell)} if cells.position[cell] >= 0 else set()


def _bits(words: NDArray[np.uint64]) -> list[int]:
    out = []
    for i, word in enumerate(words.tolist()):
        while word:
            low = word & -word
            out.append(i * 64 + low.bit_length() - 1)
            word ^= low
    return out
