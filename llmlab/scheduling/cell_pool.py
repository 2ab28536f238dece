"""CellPool: llama.cpp's KV cells as a pool. A cell holds one token, for one or more sequences; there are no blocks.

llama.cpp shares cells between sequence ids ("seats") and chooses the cells itself, when a batch is decoded. So this
pool counts room first (allocate, append), says which cells the batch will land in (place, a mirror of find_slot), and
lists the operations on seats that the engine must repeat on the real cache (take_operations). Sequences that ended
keep their seat and cells for prefix sharing until their room is needed.
This file must not know llama.cpp's API, a model or a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.contracts import BlockCopy
from llmlab.scheduling.prefixes import common_prefix

# The attention kernel reads whole multiples of this many cells.
ATTENTION_PAD = 256
# Finished sequences that stay for prefix sharing, in tokens; the last one stays whatever its length. Attention reads
# every cell up to the last used one: see benchmarks/results/kept_prefixes.md for what it costs.
KEPT_TOKENS = 128


@dataclass(frozen=True, slots=True)
class SeatOperation:
    """To be repeated on the real cache before the next batch.

    "share": the first num_tokens cells of `source` belong to `seat` too. "cut": `seat` loses all after num_tokens.
    """

    kind: Literal["share", "cut"]
    seat: int
    num_tokens: int
    source: int = -1


@dataclass(slots=True, eq=False)
class _Holder:
    """A sequence with a seat: live, or kept after its end."""

    seat: int
    salt: str = ""
    cells: list[int] = field(default_factory=list)  # position -> cell
    num_reserved: int = 0  # room taken, cells not yet placed
    token_ids: Sequence[int] = ()
    num_committed: int = 0  # tokens whose KV is computed: what lookup may find


class CellPool:
    """Cells of a unified llama.cpp KV cache. Satisfies PrefixCachingPool with block_size 1."""

    block_size = 1

    def __init__(
        self, num_cells: int, num_seats: int, *, prefix_caching: bool = True, max_kept_cells: int | None = None
    ) -> None:
        self.num_blocks, self.num_seats, self.prefix_caching = num_cells, num_seats, prefix_caching
        # The last sequence that ended is kept whole; older ones only while all kept cells together stay below this.
        self._max_kept_cells = num_cells if max_kept_cells is None else max_kept_cells
        self.head = 0
        self._free_seats = list(range(num_seats - 1, -1, -1))
        self._live: dict[str, _Holder] = {}
        self._kept: OrderedDict[str, _Holder] = OrderedDict()  # least recently used first
        self._holders_of = [0] * num_cells  # live and kept
        self._live_holders_of = [0] * num_cells
        self._num_held = 0  # cells with a live holder
        self._num_used = 0  # cells with any holder
        self._num_reserved = 0
        self._operations: list[SeatOperation] = []

    # ---- the contract of a pool

    @property
    def num_free_blocks(self) -> int:
        """Cells that no live sequence holds or has reserved; kept ones count, they can be evicted."""
        return self.num_blocks - self._num_held - self._num_reserved

    def lookup(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        """Cells of the longest computed prefix that any seat holds, with at least one token left over."""
        best: list[int] = []
        for holder in (*self._live.values(), *self._kept.values()) if self.prefix_caching else ():
            if holder.salt == salt and holder.num_committed > len(best):
                n = common_prefix(holder.token_ids, token_ids, min(holder.num_committed, len(token_ids) - 1))
                if n > len(best):
                    best = holder.cells[:n]
        return best

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        """A seat with the cached cells and room for num_tokens more.

        Raises: NoFreeBlocks, before anything changed.
        """
        revived = sum(1 for cell in cached_blocks if not self._live_holders_of[cell])
        self._need(num_tokens + revived)
        source = self._holder_with(cached_blocks)
        if source is not None and source is self._kept.get(seq_id):
            holder = self._kept.pop(seq_id)  # a preempted sequence finds its own cells: it takes its seat again
            self._count_live(holder.cells, 1)
            self._live[seq_id] = holder
            self._cut(holder, len(cached_blocks))
        else:
            if seq_id in self._kept:
                self._evict(seq_id)
            holder = self._live[seq_id] = _Holder(self._take_seat(source))
            if source is not None:
                self._share(source, holder, len(cached_blocks))
        self._reserve(holder, num_tokens)

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """Room for num_tokens more. Never a copy: a cell holds one token, nobody else writes behind it.

        Raises: NoFreeBlocks, before anything changed.
        """
        self._need(num_tokens)
        self._reserve(self._live[seq_id], num_tokens)
        return []

    def fork(self, parent_id: str, child_id: str) -> None:
        """The child shares every placed cell of the parent; takes none."""
        parent = self._live[parent_id]
        child = self._live[child_id] = _Holder(self._take_seat(parent), parent.salt)
        self._share(parent, child, len(parent.cells))
        child.token_ids, child.num_committed = tuple(parent.token_ids), parent.num_committed

    def commit(self, seq_id: str, token_ids: Sequence[int], num_computed_tokens: int, salt: str = "") -> None:
        """The KV of the first num_computed_tokens exists: lookup may find them. token_ids is kept by reference."""
        holder = self._live[seq_id]
        holder.token_ids, holder.num_committed, holder.salt = token_ids, num_computed_tokens, salt

    def free(self, seq_id: str) -> None:
        """The sequence has ended. What it has committed stays findable until its room is needed.

        Raises: KeyError when unknown.
        """
        holder = self._live.pop(seq_id)
        self._num_reserved -= holder.num_reserved
        holder.num_reserved = 0
        self._count_live(holder.cells, -1)
        self._cut(holder, holder.num_committed if self.prefix_caching else 0, live=False)
        if holder.cells:
            holder.token_ids = tuple(holder.token_ids[: holder.num_committed])
            self._kept[seq_id] = holder
            while len(self._kept) > 1 and self._num_used - self._num_held > self._max_kept_cells:
                self._evict(next(iter(self._kept)))
        else:
            self._free_seats.append(holder.seat)

    def block_table(self, seq_id: str) -> tuple[int, ...]:
        """position -> cell, of the cells placed so far."""
        return tuple(self._live[seq_id].cells)

    def num_tokens(self, seq_id: str) -> int:
        holder = self._live[seq_id]
        return len(holder.cells) + holder.num_reserved

    def ref_count(self, block_id: int) -> int:
        """Live sequences that hold the cell."""
        return self._live_holders_of[block_id]

    # ---- what the engine needs beside it

    def seat(self, seq_id: str) -> int:
        """The llama.cpp sequence id of a live sequence."""
        return self._live[seq_id].seat

    def seats(self) -> dict[int, str]:
        """seat -> sequence, kept ones included."""
        return {h.seat: seq_id for holders in (self._live, self._kept) for seq_id, h in holders.items()}

    def cells_by_seat(self) -> dict[int, list[int]]:
        """seat -> its cells in order of position: what this pool predicts of the real cache."""
        return {h.seat: h.cells for holders in (self._live, self._kept) for h in holders.values()}

    def take_operations(self) -> list[SeatOperation]:
        """What must be done to the real cache before the next batch, in order."""
        operations, self._operations = self._operations, []
        return operations

    def place(self, batch: Iterable[tuple[str, int]]) -> list[int]:
        """The cells that llama.cpp gives to the tokens of a batch of (seq_id, num_tokens), in order.

        Source: llama.cpp src/llama-kv-cache.cpp find_slot (cont = false) and apply_ubatch.
        """
        batch = list(batch)
        num_tokens = sum(n for _, n in batch)
        head = 0 if self.head > self._num_used + 2 * num_tokens else self.head
        placed: list[int] = []
        for seq_id, n in batch:
            holder = self._live[seq_id]
            for _ in range(n):
                while self._holders_of[head % self.num_blocks]:
                    head += 1
                cell = head % self.num_blocks
                holder.cells.append(cell)
                self._holders_of[cell] = self._live_holders_of[cell] = 1
                placed.append(cell)
            holder.num_reserved -= n
        self.head = placed[-1] + 1 if placed else self.head
        self._num_used += num_tokens
        self._num_held += num_tokens
        self._num_reserved -= num_tokens
        return placed

    def take_back(self, seq_id: str, num_tokens: int) -> None:
        """The forward pass was broken off: the sequence keeps its first num_tokens cells."""
        holder = self._live[seq_id]
        self._num_reserved -= holder.num_reserved
        holder.num_reserved = 0
        self._cut(holder, num_tokens)

    def clear(self) -> None:
        """Forget everything that was kept. The engine empties the real cache; no sequence may be live."""
        for seq_id in list(self._kept):
            self._evict(seq_id)
        self._operations.clear()
        self.head = 0

    # ---- bookkeeping

    def _need(self, num_tokens: int) -> None:
        if num_tokens > self.num_free_blocks:
            raise NoFreeBlocks(f"{num_tokens} cells are needed, {self.num_free_blocks} of {self.num_blocks} are free")

    def _reserve(self, holder: _Holder, num_tokens: int) -> None:
        holder.num_reserved += num_tokens
        self._num_reserved += num_tokens
        while self.num_blocks - self._num_used < self._num_reserved:
            self._evict(next(iter(self._kept)))

    def _evict(self, seq_id: str) -> None:
        """A kept sequence loses its cells and its seat."""
        holder = self._kept.pop(seq_id)
        self._cut(holder, 0, live=False)
        self._free_seats.append(holder.seat)

    def _take_seat(self, source: _Holder | None) -> int:
        if not self._free_seats:
            spare = [seq_id for seq_id, holder in self._kept.items() if holder is not source]
            if not spare:
                raise NoFreeBlocks(f"all {self.num_seats} seats are taken by sequences that run")
            self._evict(spare[0])
        return self._free_seats.pop()

    def _holder_with(self, cells: Sequence[int]) -> _Holder | None:
        """A holder whose first cells are these."""
        if not cells:
            return None
        wanted, n = list(cells), len(cells)
        for holders in (self._live, self._kept):
            for seq_id, holder in reversed(holders.items()):
                if holder.cells[:n] == wanted:
                    if holders is self._kept:
                        self._kept.move_to_end(seq_id)
                    return holder
        raise KeyError(f"no sequence begins with the cells {wanted[:8]}: take them from lookup()")

    def _share(self, source: _Holder, holder: _Holder, num_tokens: int) -> None:
        holder.cells = source.cells[:num_tokens]
        for cell in holder.cells:
            self._holders_of[cell] += 1
        self._count_live(holder.cells, 1)
        self._operations.append(SeatOperation("share", holder.seat, num_tokens, source.seat))

    def _cut(self, holder: _Holder, num_tokens: int, *, live: bool = True) -> None:
        """The holder keeps its first num_tokens cells."""
        lost = holder.cells[num_tokens:]
        if not lost:
            return
        del holder.cells[num_tokens:]
        holder.num_committed = min(holder.num_committed, num_tokens)
        if live:
            self._count_live(lost, -1)
        freed = []
        for cell in lost:
            self._holders_of[cell] -= 1
            if not self._holders_of[cell]:
                freed.append(cell)
        self._num_used -= len(freed)
        self.head = min([self.head, *freed])
        self._operations.append(SeatOperation("cut", holder.seat, num_tokens))

    def _count_live(self, cells: Sequence[int], change: Literal[1, -1]) -> None:
        counts = self._live_holders_of
        for cell in cells:
            before = counts[cell]
            counts[cell] = before + change
            if not before or not counts[cell]:
                self._num_held += change


def seats_for(max_num_seqs: int) -> int:
    """Seats for those who run, and a few more that keep finished sequences for prefix sharing.

    A few: attention reads all cells up to the last used one, so 1,000 kept cells make a step of 16 requests 7 % longer.
    """
    return max_num_seqs + max(4, max_num_seqs // 4)


def num_attended(end: int, num_cells: int) -> int:
    """Cells that attention reads when the last used one stands before `end`.

    >>> num_attended(257, 4096)
    512
    """
    return min(-(-end // ATTENTION_PAD) * ATTENTION_PAD, num_cells)
