"""The solution of lab 3: the definitions of lab.py with their solutions. Made from lab.py."""

from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.contracts import BlockCopy


class BlockPool:
    """Fixed-size blocks, block tables, reference counts."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.free_list = list(range(num_blocks))
        self.ref_counts = [0] * num_blocks
        self.tables: dict[str, list[int]] = {}
        self.lengths: dict[str, int] = {}

    @property
    def num_free_blocks(self) -> int:
        return len(self.free_list)

    def block_table(self, seq_id: str) -> tuple[int, ...]:
        return tuple(self.tables[seq_id])

    def num_tokens(self, seq_id: str) -> int:
        return self.lengths[seq_id]

    def ref_count(self, block_id: int) -> int:
        return self.ref_counts[block_id]

    def allocate(self, seq_id: str, num_tokens: int) -> None:
        """Q2: a new block table with room for num_tokens (>= 1)."""
        num_new = -(-num_tokens // self.block_size)
        self._need(num_new)
        self.tables[seq_id] = [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_tokens

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """Q3: room for num_tokens more. Q4: a shared, partly filled last block is copied first."""
        table, num_held = self.tables[seq_id], self.lengths[seq_id]
        num_new = -(-(num_held + num_tokens) // self.block_size) - len(table)
        is_shared = num_held % self.block_size > 0 and self.ref_counts[table[-1]] > 1
        self._need(num_new + is_shared)
        copies = []
        if is_shared:
            old, new = table[-1], self._take()
            self._drop(old)
            table[-1] = new
            copies.append(BlockCopy(old, new))
        table += [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_held + num_tokens
        return copies

    def free(self, seq_id: str) -> None:
        """Q3: every block of the sequence loses this holder. KeyError for an unknown sequence."""
        del self.lengths[seq_id]
        for block in self.tables.pop(seq_id):
            self._drop(block)

    def fork(self, parent_id: str, child_id: str) -> None:
        """Q4: the child shares every block of the parent and takes none."""
        self.tables[child_id] = list(self.tables[parent_id])
        self.lengths[child_id] = self.lengths[parent_id]
        for block in self.tables[child_id]:
            self.ref_counts[block] += 1

    def _need(self, num_blocks: int) -> None:
        """Refuse before anything is taken."""
        if num_blocks > len(self.free_list):
            raise NoFreeBlocks(f"{num_blocks} blocks are needed, {len(self.free_list)} are free")

    def _take(self) -> int:
        """A free block, for one holder."""
        block = self.free_list.pop()
        self.ref_counts[block] = 1
        return block

    def _drop(self, block: int) -> None:
        """One holder less; after the last one the block is free."""
        self.ref_counts[block] -= 1
        if self.ref_counts[block] == 0:
            self.free_list.append(block)


def contiguous_capacity(kv_tokens: int, max_model_len: int, lens: list[int]) -> int:
    """Sequences that fit when each reserves max_model_len."""
    return min(len(lens), kv_tokens // max_model_len)


def paged_capacity(kv_tokens: int, block_size: int, lens: list[int]) -> int:
    """Sequences that fit when each takes the blocks it needs."""
    num_free = kv_tokens // block_size
    for i, length in enumerate(lens):
        num_free -= -(-length // block_size)
        if num_free < 0:
            return i
    return len(lens)


reflection = [
    "With 4,096 tokens of KV 8 sequences fit when each reserves 512, and about twice as many with blocks of 16; "
    "no step became faster by it.",
    "It has no unused slots in blocks, but attention is computed up to the last used cell, padded to 256, so that "
    "holes between sequences are computed for nothing.",
]
