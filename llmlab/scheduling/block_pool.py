"""PagedPool: a paged KV cache. Fixed-size blocks, block tables, reference counts, and a hash for each full block.

Where is a block allocated? In _take(), and nowhere else. Where does it become free? In _release(), and nowhere else.
Every block is on the free list or in a block table, never both: nothing can leak.
This file must not know a model, an engine or a clock.

Source: Kwon et al., PagedAttention, SOSP 2023; vllm/v1/core/block_pool.py.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.contracts import BlockCopy


@dataclass(slots=True)
class PoolChanges:
    """What has changed since it was last asked for: sequences with another block table, and the state of blocks."""

    tables: set[str] = field(default_factory=set)
    # block -> what it was before
    ref_counts: dict[int, int] = field(default_factory=dict)
    hashes: dict[int, bytes | None] = field(default_factory=dict)


class PagedPool:
    """Blocks of a paged KV cache. Satisfies PrefixCachingPool.

    >>> pool = PagedPool(num_blocks=4, block_size=2)
    >>> pool.allocate("a", 3); pool.block_table("a"), pool.num_free_blocks
    ((0, 1), 2)
    >>> pool.commit("a", [7, 8, 9], 3); pool.lookup([7, 8, 5])
    [0]
    """

    def __init__(self, num_blocks: int, block_size: int, *, prefix_caching: bool = True) -> None:
        self.num_blocks, self.block_size, self.prefix_caching = num_blocks, block_size, prefix_caching
        # The next to be handed out stands first: empty blocks, then cached ones, least recently used first.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._ref_counts = [0] * num_blocks  # block tables that hold it
        self._tables: dict[str, list[int]] = {}
        self._num_tokens: dict[str, int] = {}  # room taken, computed or not
        # A cached block is found by the tokens in it and all before it; it stays cached until its room is needed.
        self._hash_of: dict[int, bytes] = {}
        self._block_with: dict[bytes, int] = {}
        self._chains: dict[str, list[bytes]] = {}  # of each sequence: hashes of its committed full blocks
        self._changes = PoolChanges()

    # ---- the contract of a pool

    @property
    def num_free_blocks(self) -> int:
        """Blocks in no block table; cached ones count, they can be evicted."""
        return len(self._free)

    def lookup(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        """The longest cached prefix in full blocks, with at least one token left over: its logits are needed."""
        found: list[int] = []
        for block_hash in self._hashes(token_ids, (len(token_ids) - 1) // self.block_size, salt):
            block = self._block_with.get(block_hash)
            if block is None:
                break
            found.append(block)
        return found

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        """A new block table: the cached blocks, then room for num_tokens more.

        Raises: NoFreeBlocks, before anything changed. ValueError when the sequence has a block table.
        """
        if seq_id in self._tables:
            raise ValueError(f"{seq_id} has a block table already; free() it first")
        num_new = self._blocks_for(num_tokens)
        self._need(num_new + sum(1 for block in cached_blocks if not self._ref_counts[block]))
        for block in cached_blocks:  # before fresh ones are taken, or they could be evicted
            self._hold(block)
        self._tables[seq_id] = [*cached_blocks, *(self._take() for _ in range(num_new))]
        self._num_tokens[seq_id] = len(cached_blocks) * self.block_size + num_tokens
        self._chains[seq_id] = [self._hash_of[block] for block in cached_blocks]
        self._changes.tables.add(seq_id)

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """Room for num_tokens more. A partly filled last block that others hold too is copied first.

        Raises: NoFreeBlocks, before anything changed.
        """
        table, num_held = self._tables[seq_id], self._num_tokens[seq_id]
        num_new = self._blocks_for(num_held + num_tokens) - len(table)
        is_shared = num_held % self.block_size > 0 and self._ref_counts[table[-1]] > 1
        if num_new or is_shared:
            self._need(num_new + is_shared)
            self._changes.tables.add(seq_id)
        copies = []
        if is_shared:
            source = table[-1]
            table[-1] = self._take()
            self._release(source)
            copies.append(BlockCopy(source, table[-1]))
        table += [self._take() for _ in range(num_new)]
        self._num_tokens[seq_id] = num_held + num_tokens
        return copies

    def fork(self, parent_id: str, child_id: str) -> None:
        """The child shares every block of the parent; takes none. Who writes first copies (append)."""
        if child_id in self._tables:
            raise ValueError(f"{child_id} has a block table already; free() it first")
        for block in self._tables[parent_id]:
            self._hold(block)
        self._tables[child_id] = list(self._tables[parent_id])
        self._num_tokens[child_id] = self._num_tokens[parent_id]
        self._chains[child_id] = list(self._chains[parent_id])
        self._changes.tables.add(child_id)

    def commit(self, seq_id: str, token_ids: Sequence[int], num_computed_tokens: int, salt: str = "") -> None:
        """The KV of the first num_computed_tokens exists: its full blocks get their hashes, and lookup finds them.

        Of two blocks with the same tokens the first stays the one that is found. The other keeps its place in its
        block table: while a sequence runs, its table only grows.
        """
        chain, table = self._chains[seq_id], self._tables[seq_id]
        num_full = min(num_computed_tokens // self.block_size, len(table))
        if not self.prefix_caching or num_full <= len(chain):
            return
        for block_hash in self._hashes(token_ids, num_full, salt, chain):
            block = table[len(chain)]
            chain.append(block_hash)
            if block not in self._hash_of and block_hash not in self._block_with:
                self._note_hash(block)
                self._hash_of[block], self._block_with[block_hash] = block_hash, block

    def free(self, seq_id: str) -> None:
        """Every block loses this holder. Raises: KeyError when unknown."""
        table = self._tables.pop(seq_id)
        del self._num_tokens[seq_id], self._chains[seq_id]
        self._changes.tables.add(seq_id)
        for block in reversed(table):  # the end of a prefix is evicted before its beginning
            self._release(block)

    def block_table(self, seq_id: str) -> tuple[int, ...]:
        """Logical index -> block id."""
        return tuple(self._tables[seq_id])

    def num_tokens(self, seq_id: str) -> int:
        """Tokens that the sequence has room for, computed or not."""
        return self._num_tokens[seq_id]

    def ref_count(self, block_id: int) -> int:
        """Block tables that hold the block."""
        return self._ref_counts[block_id]

    # ---- what an engine needs beside it

    def take_back(self, seq_id: str, num_tokens: int) -> None:
        """The sequence keeps room for its first num_tokens: a forward pass was broken off, or drafts were rejected."""
        table, num_kept = self._tables[seq_id], self._blocks_for(num_tokens)
        self._num_tokens[seq_id] = num_tokens
        if num_kept < len(table):
            self._changes.tables.add(seq_id)
        while len(table) > num_kept:
            self._release(table.pop())

    def clear(self) -> None:
        """Forget every cached prefix. No block table changes."""
        for block in list(self._hash_of):
            self._forget_hash(block)

    def next_free(self, num_blocks: int) -> tuple[int, ...]:
        """The next blocks to be handed out, in order."""
        return tuple(block for block, _ in zip(self._free, range(num_blocks), strict=False))

    def hash_of(self, block_id: int) -> bytes | None:
        """None when the block is not cached."""
        return self._hash_of.get(block_id)

    def take_changes(self) -> PoolChanges:
        """What has changed since the last call."""
        changes, self._changes = self._changes, PoolChanges()
        return changes

    # ---- the only ways of a block

    def _need(self, num_blocks: int) -> None:
        if num_blocks > len(self._free):
            raise NoFreeBlocks(f"{num_blocks} blocks are needed, {len(self._free)} of {self.num_blocks} are free")

    def _take(self) -> int:
        """The next free block, for one holder. It is evicted: its content is about to be overwritten."""
        block, _ = self._free.popitem(last=False)
        self._forget_hash(block)
        self._count(block, 1)
        return block

    def _hold(self, block: int) -> None:
        """One more holder of a block whose content stays."""
        self._free.pop(block, None)
        self._count(block, 1)

    def _release(self, block: int) -> None:
        """One holder less. After the last one the block is free; a cached one is reused last."""
        self._count(block, -1)
        if not self._ref_counts[block]:
            self._free[block] = None
            if block not in self._hash_of:
                self._free.move_to_end(block, last=False)

    def _count(self, block: int, change: int) -> None:
        self._changes.ref_counts.setdefault(block, self._ref_counts[block])
        self._ref_counts[block] += change

    # ---- hashes

    def _hashes(
        self, token_ids: Sequence[int], num_blocks: int, salt: str, chain: Sequence[bytes] = ()
    ) -> Iterator[bytes]:
        """Hashes of the full blocks after those of `chain`; each covers the salt and every token up to its end."""
        if not self.prefix_caching:
            return
        size = self.block_size
        block_hash = chain[-1] if chain else hashlib.sha256(salt.encode()).digest()
        for i in range(len(chain), num_blocks):
            tokens = array("q", token_ids[i * size : (i + 1) * size]).tobytes()
            block_hash = hashlib.sha256(block_hash + tokens).digest()
            yield block_hash

    def _forget_hash(self, block: int) -> None:
        if block in self._hash_of:
            self._note_hash(block)
            del self._block_with[self._hash_of.pop(block)]

    def _note_hash(self, block: int) -> None:
        self._changes.hashes.setdefault(block, self._hash_of.get(block))

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)
