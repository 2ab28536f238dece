"""What a student of lab 5 starts with: the definitions of his notebook. Made from lab.py."""

# ruff: noqa: F401

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.contracts import BlockCopy


def block_hash(parent: bytes | None, token_ids: Sequence[int], salt: str = "") -> bytes:
    """Q2: the identity of a full block."""
    raise NotImplementedError("Q2")  # about 3 lines


class PrefixBlockPool:
    """Fixed-size blocks, block tables, reference counts, and a hash for each full block."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        # Blocks that nobody holds; the next to be reused stands first.
        self.free_blocks: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self.ref_counts = [0] * num_blocks
        self.tables: dict[str, list[int]] = {}
        self.lengths: dict[str, int] = {}
        # A block has a hash here exactly when lookup may find it.
        self.hash_of: dict[int, bytes] = {}
        self.block_with: dict[bytes, int] = {}

    @property
    def num_free_blocks(self) -> int:
        return len(self.free_blocks)

    @property
    def num_cached_blocks(self) -> int:
        return len(self.hash_of)

    def block_table(self, seq_id: str) -> tuple[int, ...]:
        return tuple(self.tables[seq_id])

    def num_tokens(self, seq_id: str) -> int:
        return self.lengths[seq_id]

    def ref_count(self, block_id: int) -> int:
        return self.ref_counts[block_id]

    def lookup(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        """Q3: the blocks of the longest cached prefix; at least one token is left over."""
        raise NotImplementedError("Q3")  # about 8 lines

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        """Q3: a new block table: the cached blocks, then room for num_tokens more."""
        raise NotImplementedError("Q3")  # about 8 lines

    def commit(self, seq_id: str, token_ids: Sequence[int], num_computed_tokens: int, salt: str = "") -> None:
        """Q3, Q5: the KV of the first num_computed_tokens is written; its full blocks get their hashes."""
        raise NotImplementedError("Q3")  # about 6 lines

    def free(self, seq_id: str) -> None:
        """Q3: every block loses this holder. Q4: which of them is reused first?"""
        raise NotImplementedError("Q3")  # about 6 lines, 3 more in Q4

    def take(self) -> int:
        """The next free block, for one holder."""
        block, _ = self.free_blocks.popitem(last=False)
        # Q4: about 2 lines are missing here: what was cached in this block?
        self.ref_counts[block] = 1
        return block

    def need(self, num_blocks: int) -> None:
        """Refuse before anything is taken."""
        if num_blocks > len(self.free_blocks):
            raise NoFreeBlocks(f"{num_blocks} blocks are needed, {len(self.free_blocks)} are free")

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """Room for num_tokens more. No block is copied: nobody forks in this lab, and shared blocks are full."""
        num_held = self.lengths[seq_id]
        num_new = -(-(num_held + num_tokens) // self.block_size) - len(self.tables[seq_id])
        self.need(num_new)
        self.tables[seq_id] += [self.take() for _ in range(num_new)]
        self.lengths[seq_id] = num_held + num_tokens
        return []

    def fork(self, parent_id: str, child_id: str) -> None:
        raise NotImplementedError("lab 3 has fork")

    # Methods of your own, if you like.


class EagerPool(PrefixBlockPool):
    """Publishes early."""

    def lookup(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        self.asked = list(token_ids), salt
        return super().lookup(token_ids, salt)

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        super().allocate(seq_id, num_tokens, cached_blocks)
        token_ids, salt = self.asked
        self.commit(seq_id, token_ids, self.num_tokens(seq_id), salt)


class RepairedPool(EagerPool):
    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        """Q5: as EagerPool, without its bug."""
        raise NotImplementedError("Q5")  # about 1 line


reflection = ["", ""]
