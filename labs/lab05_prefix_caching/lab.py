# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 5: prefix caching
#
# After this lab you will be able to explain
#
# - why the identity of a **block** is the whole text before it, and what a **hash chain** is;
# - what a hit in the **prefix cache** saves, what a freed block is worth, and which one is reused first;
# - **when** a hash may be published, and what happens when it is published too early.
#
# It takes about 85 minutes. You write 60 lines of plain Python, and a real engine runs on them. For each question:
# predict, run, look, write, check. `%llm lab hint Q2` gives a hint; hints cost nothing, your report counts them.

# %%
# %load_ext llmlab
# %llm lab start lab05

# %%
import hashlib
from collections import OrderedDict
from collections.abc import Sequence

# %%
import llmlab

# %%
from llmlab.errors import NoFreeBlocks
from llmlab.scheduling.contracts import BlockCopy

# %% [markdown]
# ## Q1 Eight users, one system prompt
#
# Eight users ask at once. Their prompts have 300 tokens in common (a system prompt) and 10 of their own each. Another
# user with the same system prompt was served before. **How many times less prefill work is left with a prefix cache?
# And how many times shorter is the mean time to the first token?** Write your guess down before you run the next
# cells: `%llm lab predict Q1 2,2`, or what you think.

# %%
system = list(range(1000, 1300))
users = [system + list(range(2000 + 10 * i, 2010 + 10 * i)) for i in range(9)]
q1_runs = []
for caching in (False, True):
    room = {"seqs": 8, "kv_tokens": 4096, "step_tokens": 512, "options": {"prefix_caching": caching}}
    with llmlab.load("smollm2-135m", engine="llamacpp", quant="F16", **room) as engine:
        engine.batch(users[:1], max_tokens=4, ignore_eos=True).wait()
        run = engine.batch(users[1:], max_tokens=4, ignore_eos=True)
        run.wait()
        q1_runs.append(run.trace)
q1 = tuple(q1_runs)
llmlab.timeline(q1[1])

# %%
# %llm lab check Q1

# %% [markdown]
# vLLM does the same. Its cache is always on here; but in the first round each user has a **salt** of his own, and KV is
# only shared under the same salt. Where vLLM does not run (macOS, Windows), pass this cell over.

# %%
with llmlab.load("smollm2-135m", engine="vllm", ctx=512, kv_tokens=4096, seqs=8) as engine:
    engine.batch(users[:1], max_tokens=4, ignore_eos=True).wait()
    q1_vllm = []
    for salts in ("abcdefgh", [""] * 8):
        asked = [{"prompt": user, "salt": salt} for user, salt in zip(users[1:], salts, strict=True)]
        run = engine.batch(asked, max_tokens=4, ignore_eos=True)
        ttft_s = sum(one.ttft_s for one in run.wait()) / len(asked)
        q1_vllm.append(run.trace)
        print(f"{run.trace.steps.num_prefix_hit_tokens.sum()} tokens found, first token after {ttft_s:.2f} s")

# %% [markdown]
# And a run that was recorded on an H200: one long system prompt before 24 questions.

# %%
recorded = llmlab.recorded("shared_prefix")
print(f"{llmlab.metrics.prefix_hit_rate(recorded):.0%} of the prompt tokens were found in the cache")
llmlab.timeline(recorded)

# %% [markdown]
# ## Q2 The identity of a block
#
# The KV of a token depends on every token before it: attention mixed them in, and RoPE turned it by its position. So
# the same 16 tokens after another beginning have another KV. The identity of a full block is a hash of
#
# - the hash of the block before it, `parent` (`None` for the first block): a **hash chain**;
# - its token ids, in order. `(1, 23)` and `(12, 3)` are different: separate them;
# - a **salt**: adapters and tenants whose KV must not be shared.
#
# It must be the same in every process, so that a cache may live on a disk or a second machine: Python's `hash()` of a
# text is not. `hashlib.sha256(data).digest()` is.


# %%
def block_hash(parent: bytes | None, token_ids: Sequence[int], salt: str = "") -> bytes:
    """Q2: the identity of a full block."""
    # BEGIN SOLUTION Q2: about 3 lines
    text = f"{len(salt)}:{salt}:{','.join(map(str, token_ids))}"
    return hashlib.sha256((parent or b"first") + text.encode()).digest()
    # END SOLUTION


# %%
# %llm lab check Q2

# %% [markdown]
# ## The pool
#
# This is the block pool of lab 3, and full blocks can be found again. A block is
#
# - **held**: `ref_count` > 0;
# - **cached and free**: nobody holds it, its hash is known, lookup finds it, and it may be reused;
# - **empty**: nobody holds it and it has no hash.
#
# `num_free_blocks` counts both free kinds. What was right in lab 3 stays right after every call: held + free =
# `num_blocks`; `ref_count(b)` = how many block tables hold b; a refusal (`NoFreeBlocks`) changes nothing.
# The engine calls, for each request: `lookup`, `allocate`, the forward pass, `commit`, then `append`, the forward pass,
# `commit` for each token, and at the end `free`. You may add methods and change what is given. The sections below say
# what each method does; come back here to write it.


# %%
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
        # BEGIN SOLUTION Q3: about 8 lines
        found: list[int] = []
        for block_id in self.hashes(token_ids, (len(token_ids) - 1) // self.block_size, salt):
            if block_id not in self.block_with:
                break
            found.append(self.block_with[block_id])
        return found
        # END SOLUTION

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        """Q3: a new block table: the cached blocks, then room for num_tokens more."""
        # BEGIN SOLUTION Q3: about 8 lines
        num_new = -(-num_tokens // self.block_size)
        self.need(num_new + sum(self.ref_counts[block] == 0 for block in cached_blocks))
        for block in cached_blocks:
            self.free_blocks.pop(block, None)
            self.ref_counts[block] += 1
        self.tables[seq_id] = [*cached_blocks, *(self.take() for _ in range(num_new))]
        self.lengths[seq_id] = len(cached_blocks) * self.block_size + num_tokens
        # END SOLUTION

    def commit(self, seq_id: str, token_ids: Sequence[int], num_computed_tokens: int, salt: str = "") -> None:
        """Q3, Q5: the KV of the first num_computed_tokens is written; its full blocks get their hashes."""
        # BEGIN SOLUTION Q3: about 6 lines
        num_full = num_computed_tokens // self.block_size
        for block, name in zip(self.tables[seq_id], self.hashes(token_ids, num_full, salt), strict=False):
            if block not in self.hash_of and name not in self.block_with:
                self.hash_of[block], self.block_with[name] = name, block
        # END SOLUTION

    def free(self, seq_id: str) -> None:
        """Q3: every block loses this holder. Q4: which of them is reused first?"""
        # BEGIN SOLUTION Q3: about 6 lines, 3 more in Q4
        del self.lengths[seq_id]
        for block in reversed(self.tables.pop(seq_id)):
            self.ref_counts[block] -= 1
            if self.ref_counts[block] == 0:
                self.free_blocks[block] = None
                if block not in self.hash_of:
                    self.free_blocks.move_to_end(block, last=False)
        # END SOLUTION

    def take(self) -> int:
        """The next free block, for one holder."""
        block, _ = self.free_blocks.popitem(last=False)
        # BEGIN SOLUTION -> # Q4: about 2 lines are missing here: what was cached in this block?
        if block in self.hash_of:
            del self.block_with[self.hash_of.pop(block)]
        # END SOLUTION
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

    # BEGIN SOLUTION -> # Methods of your own, if you like.
    def hashes(self, token_ids: Sequence[int], num_blocks: int, salt: str) -> list[bytes]:
        """The chain of the first num_blocks blocks."""
        chain: list[bytes] = []
        for i in range(num_blocks):
            tokens = token_ids[i * self.block_size : (i + 1) * self.block_size]
            chain.append(block_hash(chain[-1] if chain else None, tokens, salt))
        return chain

    # END SOLUTION


# %% [markdown]
# ## Q3 lookup, allocate, commit, free
#
# - `lookup` follows the chain of full blocks and stops at the first miss: what comes after a miss is no prefix. **At
#   least one token must be left over**: its logits are needed. It changes nothing.
# - `allocate` takes the cached blocks that lookup found into the block table, and room for `num_tokens` more. One more
#   table holds each of them. A cached block that was free costs room, too.
# - `commit` gives full blocks their hashes: as many as are full of the first `num_computed_tokens` tokens. A second
#   block with the same hash stays without: while a sequence runs, its block table never changes ids.
# - `free` takes this holder away from every block. A block that nobody holds any more is free, **and stays cached**.
#
# **Predict**: blocks of 16; the prompts of four requests have their first 35 tokens in common. The first one is
# computed. How many tokens does each of the others find? `%llm lab predict Q3 35`, or what you think.

# %%
# %llm lab check Q3

# %%
mine = llmlab.load(
    "smollm2-135m", engine="torch", name="mine", kv_tokens=1024, block_size=16, block_pool=PrefixBlockPool
)
common = list(range(3000, 3035))
four = [common + list(range(4000 + 20 * i, 4014 + 20 * i)) for i in range(4)]
mine.generate(four[0], max_tokens=8, ignore_eos=True)
run = mine.batch(four[1:], max_tokens=8, ignore_eos=True)
run.wait()
q3 = run.trace
q3.kv()

# %%
# %llm lab check Q3

# %% [markdown]
# ## Q4 What is reused first
#
# A cached block that is free is worth something until its room is needed. Empty blocks are reused before cached ones;
# of the cached ones the **least recently freed** goes first (LRU); of one sequence the end of the chain goes before its
# beginning: a prefix without its beginning is useless. And a block that is taken loses its hash: what was in it is
# about to be overwritten. `free_blocks` is in the order of reuse: `take` takes the first one. Complete `take` and
# `free`.
#
# **Predict**: 6 blocks of 4. Sequence A (2 full blocks) was served, then B (2 full blocks); both are free. Now somebody
# takes 3 blocks. How many blocks of A does a lookup find after that, and how many of B? `%llm lab predict Q4 0,1`, or
# what you think.

# %%
# %llm lab check Q4

# %%
pool = PrefixBlockPool(num_blocks=6, block_size=4)
served = {"a": list(range(8)), "b": list(range(100, 108))}
for name, token_ids in served.items():
    pool.allocate(name, 8)
    pool.commit(name, token_ids, 8)
    pool.free(name)
pool.allocate("c", 12)
q4 = [len(pool.lookup([*token_ids, 0])) for token_ids in served.values()]

# %%
# %llm lab check Q4

# %% [markdown]
# ## Q5 The poisoned cache
#
# The pool below publishes the hashes of a prompt when its blocks are **allocated**, as vLLM does: two equal prompts can
# then share in the same step. Somebody interrupts the engine inside the forward pass. The request is aborted, its
# blocks are free, and the same prompt is asked again.
#
# **Predict**: will the second answer be right? `%llm lab predict Q5 right`, or `wrong`.


# %%
class EagerPool(PrefixBlockPool):
    """Publishes early."""

    def lookup(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        self.asked = list(token_ids), salt
        return super().lookup(token_ids, salt)

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        super().allocate(seq_id, num_tokens, cached_blocks)
        token_ids, salt = self.asked
        self.commit(seq_id, token_ids, self.num_tokens(seq_id), salt)


# %%
q5 = llmlab.labs.after_interrupt(EagerPool, "The first president of the United States was George")
print(q5)

# %% [markdown]
# Repair it: nothing may be found that was never computed, and what was computed must still be found. Your own pool has
# to stand the same test. (llmlab never lets an interrupt land inside a step. With vLLM alone the same interrupt gave 6
# hits out of 6, and 2 of 6 answers were silently wrong.)


# %%
class RepairedPool(EagerPool):
    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        """Q5: as EagerPool, without its bug."""
        # BEGIN SOLUTION Q5: about 1 line
        PrefixBlockPool.allocate(self, seq_id, num_tokens, cached_blocks)
        # END SOLUTION


# %%
# %llm lab check Q5

# %%
llmlab.labs.after_interrupt(RepairedPool, "The first president of the United States was George")

# %%
# %llm lab check Q5

# %% [markdown]
# ## Q6 Plug it in
#
# Eight users again, on your pool: one is served, then seven come at once. The answers must be those of an engine
# without a cache. When your work is graded, hundreds of random requests follow.

# %%
prompts = [f"You are a kind and patient teacher of physics. Answer in one short sentence. What is {thing}?" for thing in
           "light mass heat sound energy force time gravity".split()]  # fmt: skip
plain = llmlab.load("smollm2-135m", engine="torch", name="plain", kv_tokens=1024, options={"prefix_caching": False})
runs = []
for engine in (mine, plain):
    first = engine.batch(prompts[:1], max_tokens=12)
    first.wait()
    rest = engine.batch(prompts[1:], max_tokens=12)
    rest.wait()
    runs.append((first, rest))
q6, q6_plain = runs
q6[1].trace.kv()

# %%
# %llm lab check Q6

# %% [markdown]
# Equal answers alone prove nothing: greedy text survives a damaged KV cache surprisingly often. That is why the checks
# look at counts, at chains and at what each block was computed from.
#
# ## Q7 Reflect
#
# Two answers, each at least 15 words and with a number from your own runs: **1** What does a hit save, and what does it
# not save? **2** What could one tenant learn about another from his time to the first token, and what does the salt
# change?

# %%
# BEGIN SOLUTION -> reflection = ["", ""]
reflection = [
    "A hit saves prefill work and memory: 7 users found 32 tokens each, so the first token comes sooner; a decode "
    "step costs what it did before, and at least 1 token of the prompt is always computed.",
    "Whether somebody has asked the same prompt before: a first token that comes much sooner says that 80 tokens were "
    "computed and not 2,480. With a salt for each tenant only his own prompts can hit.",
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
