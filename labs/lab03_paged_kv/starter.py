"""What a student of lab 3 starts with: the definitions of his notebook. Made from lab.py."""

# ruff: noqa: F401

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
        raise NotImplementedError("Q2")  # about 8 lines

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """Q3: room for num_tokens more. Q4: a shared, partly filled last block is copied first."""
        raise NotImplementedError("Q3")  # about 7 lines, 7 more in Q4

    def free(self, seq_id: str) -> None:
        """Q3: every block of the sequence loses this holder. KeyError for an unknown sequence."""
        raise NotImplementedError("Q3")  # about 7 lines

    def fork(self, parent_id: str, child_id: str) -> None:
        """Q4: the child shares every block of the parent and takes none."""
        raise NotImplementedError("Q4")  # about 4 lines

    # Methods of your own, if you like.


def contiguous_capacity(kv_tokens: int, max_model_len: int, lens: list[int]) -> int:
    """Sequences that fit when each reserves max_model_len."""
    raise NotImplementedError("Q6")  # about 1 line


def paged_capacity(kv_tokens: int, block_size: int, lens: list[int]) -> int:
    """Sequences that fit when each takes the blocks it needs."""
    raise NotImplementedError("Q6")  # about 7 lines


reflection = ["", ""]
