"""The solution of lab 5: the definitions of lab.py with their solutions. Made from lab.py."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.contracts import BlockCopy


def block_hash(parent: bytes | None, token_ids: Sequence[int], salt: str = "") -> bytes:
    """Q2: the identity of a full block."""
    text = f"{len(salt)}:{salt}:{','.join(map(str, token_ids))}"
    return hashlib.sha256((parent or b"first") + text.encode()).digest()


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
        found: list[int] = []
        for block_id in self.hashes(token_ids, (len(token_ids) - 1) // self.block_size, salt):
            if block_id not in self.block_with:
                break
            found.append(self.block_with[block_id])
        return found

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        """Q3: a new block table: the cached blocks, then room for num_tokens more."""
        num_new = -(-num_tokens // self.block_size)
        self.need(num_new + sum(self.ref_counts[block] == 0 for block in cached_blocks))
        for block in cached_blocks:
            self.free_blocks.pop(block, None)
            self.ref_counts[block] += 1
        self.tables[seq_id] = [*cached_blocks, *(self.take() for _ in range(num_new))]
        self.lengths[seq_id] = len(cached_blocks) * self.block_size + num_tokens

    def commit(self, seq_id: str, token_ids: Sequence[int], num_computed_tokens: int, salt: str = "") -> None:
        """Q3, Q5: the KV of the first num_computed_tokens is written; its full blocks get their hashes."""
        num_full = num_computed_tokens // self.block_size
        for block, name in zip(self.tables[seq_id], self.hashes(token_ids, num_full, salt), strict=False):
            if block not in self.hash_of and name not in self.block_with:
                self.hash_of[block], self.block_with[name] = name, block

    def free(self, seq_id: str) -> None:
        """Q3: every block loses this holder. Q4: which of them is reused first?"""
        del self.lengths[seq_id]
        for block in reversed(self.tables.pop(seq_id)):
            self.ref_counts[block] -= 1
            if self.ref_counts[block] == 0:
                self.free_blocks[block] = None
                if block not in self.hash_of:
                    self.free_blocks.move_to_end(block, last=False)

    def take(self) -> int:
        """The next free block, for one holder."""
        block, _ = self.free_blocks.popitem(last=False)
        if block in self.hash_of:
            del self.block_with[self.hash_of.pop(block)]
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

    def hashes(self, token_ids: Sequence[int], num_blocks: int, salt: str) -> list[bytes]:
        """The chain of the first num_blocks blocks."""
        chain: list[bytes] = []
        for i in range(num_blocks):
            tokens = token_ids[i * self.block_size : (i + 1) * self.block_size]
            chain.append(block_hash(chain[-1] if chain else None, tokens, salt))
        return chain


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
        PrefixBlockPool.allocate(self, seq_id, num_tokens, cached_blocks)


reflection = [
    "A hit saves prefill work and memory: 7 users found 32 tokens each, so the first token comes sooner; a decode "
    "step costs what it did before, and at least 1 token of the prompt is always computed.",
    "Whether somebody has asked the same prompt before: a first token that comes much sooner says that 80 tokens were "
    "computed and not 2,480. With a salt for each tenant only his own prompts can hit.",
]
