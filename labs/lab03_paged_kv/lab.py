# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 3: paged KV
#
# After this lab you will be able to explain
#
# - what a **block table** is, and what a **reference count** counts;
# - how two sequences share memory until one of them writes: **copy on write**;
# - how much KV memory **contiguous** reservation, **paging** and llama.cpp's **cells** waste on your own workload.
#
# It takes about 90 minutes. You write 60 lines of plain Python, and a real engine runs on them. For each question:
# predict, run, look, write, check. `%llm lab hint Q2` gives a hint; hints cost nothing, your report counts them.

# %%
# %load_ext llmlab
# %llm lab start lab03

# %%
import llmlab

# %%
from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.contracts import BlockCopy

# %% [markdown]
# **No engine on this computer?** All code is written and checked as on any other, and your predictions are held against
# runs of this notebook that were recorded. Pass over the cells that need an engine, and type a line of these where the
# lab fills that variable:
#
# ```python
# q1 = llmlab.labs.recorded("q1")
# cells = llmlab.labs.recorded("cells")
# ```

# %% [markdown]
# ## Q1 Look at a run
#
# The request below has 37 prompt tokens and makes 40 new ones; a block holds the KV of 16 tokens. **How many blocks
# does it hold at its end?** Write your guess down before you run the next cells: `%llm lab predict Q1 4`, or what you
# think.

# %%
# %llm load smollm2-135m -e torch --as ours --kv-tokens 384 --block-size 16

# %%
q1 = llmlab.current().batch([list(range(100, 137))], max_tokens=40, ignore_eos=True)
q1.wait()
q1.trace.kv()

# %%
# %llm lab check Q1

# %% [markdown]
# In which steps did the request get a new block? Only in those in which its last one was full:

# %%
{step.step: blocks for step in q1.trace.step_records if (blocks := list(step.kv.allocated.values()))}

# %% [markdown]
# ## The block pool
#
# This is the class that you write: who holds which block. Any order of blocks is right, nothing looks at their ids.
# After **every** call it must hold that
#
# - a block is either free or in a block table: held + free = `num_blocks`;
# - `ref_count(b)` = how many block tables hold b, and no table holds a block twice;
# - a table has just enough blocks: `ceil(num_tokens / block_size)`;
# - a table only grows at its end, except for a last block that was copied;
# - a refusal (`NoFreeBlocks`) changes nothing: count first, take afterwards.
#
# `allocate` and `append` may cost as much as the blocks they take, `fork` and `free` as much as the sequence has;
# nothing may search all blocks. You may add methods and change what is given. The sections below say what each method
# does; come back here to write it.


# %%
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
        # BEGIN SOLUTION Q2: about 8 lines
        num_new = -(-num_tokens // self.block_size)
        self._need(num_new)
        self.tables[seq_id] = [self._take() for _ in range(num_new)]
        self.lengths[seq_id] = num_tokens
        # END SOLUTION

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """Q3: room for num_tokens more. Q4: a shared, partly filled last block is copied first."""
        # BEGIN SOLUTION Q3: about 7 lines, 7 more in Q4
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
        # END SOLUTION

    def free(self, seq_id: str) -> None:
        """Q3: every block of the sequence loses this holder. KeyError for an unknown sequence."""
        # BEGIN SOLUTION Q3: about 7 lines
        del self.lengths[seq_id]
        for block in self.tables.pop(seq_id):
            self._drop(block)
        # END SOLUTION

    def fork(self, parent_id: str, child_id: str) -> None:
        """Q4: the child shares every block of the parent and takes none."""
        # BEGIN SOLUTION Q4: about 4 lines
        self.tables[child_id] = list(self.tables[parent_id])
        self.lengths[child_id] = self.lengths[parent_id]
        for block in self.tables[child_id]:
            self.ref_counts[block] += 1
        # END SOLUTION

    # BEGIN SOLUTION -> # Methods of your own, if you like.
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

    # END SOLUTION


# %% [markdown]
# ## Q2 allocate
#
# `allocate("a", 5)` with blocks of 4 makes a block table of 2 blocks. When there are too few free blocks it raises
# `NoFreeBlocks`, and then nothing may have changed.

# %%
# %llm lab check Q2

# %% [markdown]
# ## Q3 append and free
#
# Each new token needs room: `append` takes a new block only when the last one is full. It returns the list of copies
# that the engine has to make: in this question always `[]`. `free` gives back what `allocate` and `append` took.

# %%
# %llm lab check Q3

# %% [markdown]
# Now a real engine takes its blocks from your pool: eight requests, and all blocks must come back.

# %%
mine = llmlab.load("smollm2-135m", engine="torch", name="mine", kv_tokens=384, block_size=16, block_pool=BlockPool)
things = "rain snow fog wind ice hail sun dust".split()
q3 = mine.batch([f"Tell me one thing about {thing}." for thing in things], max_tokens=16)
q3.wait()
q3.trace.kv()

# %%
# %llm lab check Q3

# %% [markdown]
# ## Q4 fork and copy on write
#
# Four answers to one prompt (`n=4`) need its KV only once: the children share the blocks of the parent, and
# `ref_count` says how many do. Who writes into a block that others still read, takes a block of his own first and
# tells the engine to copy the KV: `[BlockCopy(old, new)]`. A shared block that is full is never written again.
#
# **Predict**: one prompt of 30 tokens, blocks of 16, four sequences. How many blocks are held right after the forks,
# and how many after each of the four wrote one token? `%llm lab predict Q4 8,8`, or what you think.

# %%
# %llm lab check Q4

# %%
pool = BlockPool(num_blocks=24, block_size=16)
pool.allocate("a", 30)
for child in "bcd":
    pool.fork("a", child)
q4 = [24 - pool.num_free_blocks]
copies = [pool.append(name) for name in "abcd"]
q4.append(24 - pool.num_free_blocks)
print(copies)

# %%
# %llm lab check Q4

# %% [markdown]
# The last one to write copied nothing: nobody else read its block any more.
#
# ## Q5 Plug it in
#
# Sixteen requests and 24 blocks: requests wait, some lose their blocks and come back. Your pool must give the answers
# of the engine's own pool, token by token. When your work is graded, thousands of random calls follow, and a pool of
# 60,000 blocks must be as quick as one of 200.

# %%
prompts = [f"Write one sentence about {thing} {place}." for thing in things for place in ("at sea", "in the hills")]
q5 = mine.batch(prompts, max_tokens=24)
q5_ours = llmlab.handles()["ours"].batch(prompts, max_tokens=24)
q5.wait(), q5_ours.wait()
q5.trace.kv()

# %%
# %llm lab check Q5

# %% [markdown]
# Equal answers alone prove nothing: greedy text survives a damaged KV cache surprisingly often. That is why the
# checks look at counts and copies.
#
# ## Q6 What paging is for
#
# Paging makes no step faster. It makes room. Before it, a sequence got one unbroken piece of memory for its longest
# possible length. Write both capacities: how many sequences fit, **in order of arrival, up to the first that does
# not**.
#
# **Predict**: 4,096 tokens of KV, sequences of 30 to 400 tokens, `max_model_len` 512. How many fit contiguously, with
# blocks of 16, with blocks of 128? `%llm lab predict Q6 4,8,8`, or what you think.


# %%
def contiguous_capacity(kv_tokens: int, max_model_len: int, lens: list[int]) -> int:
    """Sequences that fit when each reserves max_model_len."""
    # BEGIN SOLUTION Q6: about 1 line
    return min(len(lens), kv_tokens // max_model_len)
    # END SOLUTION


def paged_capacity(kv_tokens: int, block_size: int, lens: list[int]) -> int:
    """Sequences that fit when each takes the blocks it needs."""
    # BEGIN SOLUTION Q6: about 7 lines
    num_free = kv_tokens // block_size
    for i, length in enumerate(lens):
        num_free -= -(-length // block_size)
        if num_free < 0:
            return i
    return len(lens)
    # END SOLUTION


# %%
lens = [30 + 137 * i % 371 for i in range(200)]
q6 = [contiguous_capacity(4096, 512, lens), paged_capacity(4096, 16, lens), paged_capacity(4096, 128, lens)]

# %%
# %llm lab check Q6

# %% [markdown]
# Smaller blocks waste less, so why not blocks of 1? Look at both columns:

# %%
sizes = (1, 4, 16, 32, 128, 512)
for size in sizes:
    held = sum(-(-length // size) for length in lens)
    print(f"blocks of {size:3}: {1 - sum(lens) / (size * held):6.1%} unused, {held:6} entries in block tables")

# %% [markdown]
# ## Q7 Reflect
#
# llama.cpp has no blocks: it keeps the KV of each token in a cell of its own. Look at its cells during a run:

# %%
# %llm load smollm2-135m -e llamacpp --as cells --ctx 1024 --seqs 4

# %%
cells = llmlab.handles()["cells"].batch(prompts[:8], max_tokens=16)
cells.wait()
cells.trace.kv()

# %%
for step in cells.trace.step_records[::8]:
    print(f"step {step.step:3}: {step.kv.num_used} cells in use, attention over {step.kv.num_attended}")

# %% [markdown]
# Two answers, each at least 15 words and with a number from your own runs: **1** What did paging gain on your
# workload, and what did it not make faster? **2** llama.cpp has no blocks. What does it waste instead?

# %%
# BEGIN SOLUTION -> reflection = ["", ""]
reflection = [
    "With 4,096 tokens of KV 8 sequences fit when each reserves 512, and about twice as many with blocks of 16; "
    "no step became faster by it.",
    "It has no unused slots in blocks, but attention is computed up to the last used cell, padded to 256, so that "
    "holes between sequences are computed for nothing.",
]
# END SOLUTION

# %%
# %llm lab check Q7

# %% [markdown]
# ## Hand it in
#
# One page with your predictions, results, hints and pictures:

# %%
# %llm lab report
