# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 2: the KV cache
#
# After this lab you will be able to explain
#
# - what a **KV cache** keeps, and that it changes the time of an answer, but not one number in it;
# - how many **bytes** a token takes in the cache of any model, and what grouped-query attention saves;
# - why **prefill** needs arithmetic and **decode** needs memory.
#
# It takes about 80 minutes. You write 50 lines of numpy, and a real engine computes its answers with them. For each
# question: predict, run, look, write, check. `%llm lab hint Q2` gives a hint; hints cost nothing, your report counts
# them.

# %%
# %load_ext llmlab
# %llm lab start lab02

# %%
import numpy as np

import llmlab
import llmlab.views.plots as plots
from llmlab.models import ModelConfig

# %% [markdown]
# **No engine on this computer?** All code is written and checked as on any other, and your predictions are held against
# runs of this notebook that were recorded. Pass over the cells that need an engine, and type a line of these where the
# lab fills that variable:
#
# ```python
# with_cache, without_cache = llmlab.labs.recorded("q1_with_cache"), [llmlab.labs.recorded("q1_without_cache")]
# q1 = [with_cache, without_cache]
# q3 = llmlab.labs.recorded("q3")
# ```
#
# Their times are **reported**: they are those of another computer.

# %% [markdown]
# ## Q1 With and without
#
# To make one token, a model needs the keys and values of all tokens before it. Either they were kept: that is the
# cache. Or they are computed again, for the whole text, for each new token.
#
# **Predict**: a prompt of 100 tokens, 64 new ones. How many times more multiplications without a cache?
# `%llm lab predict Q1 2`, or what you think.

# %%
# %llm load smollm2-135m -e torch --as ours --opt prefix_caching=False

# %%
ours = llmlab.current()
prompt = list(range(100, 200))
with_cache = ours.batch([prompt], max_tokens=64, ignore_eos=True)
answer = list(with_cache.wait()[0].token_ids)

# %% [markdown]
# Without: each token is a request of its own, with all that was said so far as its prompt. This takes a while.

# %%
without_cache, text = [], list(prompt)
for _ in answer:
    run = ours.batch([text], max_tokens=1, ignore_eos=True)
    text = text + list(run.wait()[0].token_ids)
    without_cache.append(run)
print("the same tokens:", text[100:] == answer)
q1 = [with_cache, without_cache]

# %%
# %llm lab check Q1

# %% [markdown]
# The clock says less than the count of multiplications. Which of the two does its multiplications faster, and why?
# Question 5 has the answer.

# %%
steps = [with_cache.trace.step_records, [step for run in without_cache for step in run.trace.step_records]]
for name, some in zip(("with", "without"), steps, strict=True):
    took_s, flops = sum(step.forward_s for step in some), sum(step.extra["flops"] for step in some)
    print(f"{name:7} cache: {took_s:5.1f} s, {flops / 1e9:6.0f} GFLOP, {flops / took_s / 1e9:4.0f} GFLOP a second")

# %% [markdown]
# ## Q2 Attention
#
# The engine has just written the keys and values of the new tokens behind those of the old ones. Now it calls this
# function, once for each layer and sequence:
#
# - `q`: [num_new, num_heads, head_dim]; `k`, `v`: [num_computed + num_new, num_kv_heads, head_dim]; the answer has the
#   shape of `q`;
# - row *i* of `q` is the token at position num_computed + i. It sees itself and all before it: the **causal mask**;
# - **grouped-query attention**: query heads share KV heads. Head *j* reads KV head `j // (num_heads // num_kv_heads)`;
# - scores are divided by sqrt(head_dim); subtract the largest of each row before exp().
#
# A prefill calls it with 100 new tokens and none before, a decode step with 1 new token and 100 before. No loop over
# tokens: numpy has `einsum` and `@`.


# %%
def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal grouped-query attention of the last num_new tokens; the shape of q."""
    # BEGIN SOLUTION Q2: about 10 lines
    num_new, num_heads, head_dim = q.shape
    total, num_kv_heads, _ = k.shape
    k, v = (np.repeat(x, num_heads // num_kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / head_dim**0.5
    sees = np.arange(total) <= np.arange(total - num_new, total)[:, None]
    scores = np.where(sees, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v)
    # END SOLUTION


# %%
# %llm lab check Q2

# %% [markdown]
# Now the engine computes with it, in all 30 layers. The same tokens prove little: greedy text survives damage. That is
# why the check looks at the log probabilities as well.

# %%
mine = llmlab.load("smollm2-135m", "torch", name="mine", attention=attention, options={"prefix_caching": False})
ask = {"prompt": "Why is the sky blue?", "max_tokens": 24, "logprobs": 0}
q2, q2_ours = mine.generate(**ask), ours.generate(**ask)
print(q2)

# %%
# %llm lab check Q2

# %% [markdown]
# ## Q3 The cache
#
# Room for `max_tokens`, allocated **once**: an array [num_layers, 2, max_tokens, num_kv_heads, head_dim]. `append`
# writes the new keys and values of one layer and returns **views** of all that this layer has so far: no copies. Within
# a step the layers append one after the other, so that each has a length of its own. A cache that is full raises
# ValueError, and nothing has changed then.
#
# **Predict**: how many bytes do 200 tokens of SmolLM2-135M take in the cache? It has 30 layers, 9 heads, 3 KV heads,
# and 64 numbers a head, in F16. `%llm lab predict Q3 1000000`, or what you think.


# %%
class KVCache:
    """Keys and values of one sequence, in all layers."""

    def __init__(
        self, num_layers: int, max_tokens: int, num_kv_heads: int, head_dim: int, dtype: type = np.float32
    ) -> None:
        # BEGIN SOLUTION Q3: about 2 lines
        self.kv = np.zeros((num_layers, 2, max_tokens, num_kv_heads, head_dim), dtype)
        self.lengths = [0] * num_layers
        # END SOLUTION

    def append(self, layer: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Write k, v: [num_new, num_kv_heads, head_dim]; views of all keys and all values of this layer so far."""
        # BEGIN SOLUTION Q3: about 8 lines
        first = self.lengths[layer]
        end = first + len(k)
        if end > self.kv.shape[2]:
            raise ValueError(f"{end} tokens do not fit into a cache of {self.kv.shape[2]}")
        self.kv[layer, 0, first:end] = k
        self.kv[layer, 1, first:end] = v
        self.lengths[layer] = end
        return self.kv[layer, 0, :end], self.kv[layer, 1, :end]
        # END SOLUTION

    @property
    def num_computed_tokens(self) -> int:
        """Tokens that all layers have."""
        # BEGIN SOLUTION Q3: about 1 line
        return min(self.lengths)
        # END SOLUTION

    @property
    def num_bytes(self) -> int:
        """Of the whole room, used or not."""
        # BEGIN SOLUTION Q3: about 1 line
        return self.kv.nbytes
        # END SOLUTION


# %%
# %llm lab check Q3

# %% [markdown]
# An engine keeps the same numbers. llama.cpp has a cell for each token; this run fills 200 of them:

# %%
# %llm load smollm2-135m -e llamacpp -q F16 --ctx 1024 --as cells

# %%
cells = llmlab.current()
q3 = cells.batch([list(range(100, 250))], max_tokens=51, ignore_eos=True)  # the KV of the last token is never needed
q3.wait()
print(f"yours: {KVCache(30, 200, 3, 64, np.float16).num_bytes:,} bytes")

# %%
# %llm lab check Q3

# %% [markdown]
# And here the real engine reads its keys and values from **your** cache. It hands over all keys; your cache is only
# given the new ones, and must have kept the others:


# %%
class FromMyCache:
    """An attention for one request: it calls layer 0, layer 1, ... in each step."""

    def __init__(self) -> None:
        self.cache, self.num_calls = KVCache(30, 256, 3, 64), 0

    def __call__(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        layer, self.num_calls = self.num_calls % 30, self.num_calls + 1
        return attention(q, *self.cache.append(layer, k[-len(q) :], v[-len(q) :]))


# %%
cached = llmlab.load(
    "smollm2-135m", "torch", name="cached", attention=FromMyCache(), options={"prefix_caching": False}
)  # fmt: skip
q3_cached = cached.generate(**ask)
cached.unload()
print(q3_cached)

# %%
# %llm lab check Q3

# %% [markdown]
# ## Q4 Bytes of any model
#
# `cfg` has `num_layers`, `num_heads`, `num_kv_heads`, `head_dim`, `hidden_size`, `intermediate_size`, `vocab_size`.
#
# **Predict**: how many bytes does one token of SmolLM2-135M take in F16? And 8,192 tokens of an 8B model with 32
# layers, 32 heads, 8 KV heads and 128 numbers a head? `%llm lab predict Q4 1000,1000000`, or what you think.


# %%
def kv_bytes(num_tokens: int, cfg: ModelConfig, bytes_per_element: int = 2) -> int:
    """Bytes of the keys and values of so many tokens, in all layers."""
    # BEGIN SOLUTION Q4: about 1 line
    return 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * bytes_per_element * num_tokens
    # END SOLUTION


# %%
# %llm lab check Q4

# %%
cfg = llmlab.models.get("smollm2-135m").config
big = ModelConfig("llama", 32, 4096, 14336, 32, 8, 128, 128256, 8192)  # in the order in which cfg lists them
q4 = [kv_bytes(1, cfg), kv_bytes(8192, big)]

# %%
# %llm lab check Q4

# %% [markdown]
# What engines say of themselves: bytes of the whole cache, and how many tokens fit into it. vLLM and torch have blocks,
# llama.cpp has cells; vLLM keeps one block for itself. Where vLLM does not run (macOS, Windows), leave it out.

# %%
# %llm use cells
# %llm mem

# %%
vllm = llmlab.load("smollm2-135m", engine="vllm", name="vllm", ctx=512, kv_tokens=4096)
vllm_header = vllm.header
vllm.unload()

# %%
ELEMENT = {"float32": 4, "f32": 4, "float16": 2, "bfloat16": 2, "f16": 2}
q4_measured = []
for header in (ours.header, cells.header, vllm_header):
    slots = header.num_cells or header.num_blocks * header.block_size
    formula, per_token = kv_bytes(1, cfg, ELEMENT[header.dtype]), header.kv_cache_bytes / slots
    q4_measured.append((header.engine, per_token, formula))
    print(f"{header.engine:9} {header.dtype:9} {per_token:9,.0f} bytes a token, by the formula {formula:7,}")

# %%
# %llm lab check Q4

# %% [markdown]
# The weights do not appear in the formula: a model of which the weights are quantized to 4 bits has the same cache. For
# a smaller one, the cache itself must be quantized: `--dtype q8_0` with llama.cpp.
#
# ## Q5 Arithmetic and memory
#
# A forward pass multiplies with each weight of the layers once for each token, which is 2 operations. For each token it
# scores the keys and adds up the values that it sees: 4 × num_heads × head_dim operations for each pair of tokens and
# layer. Only the last token needs logits: 2 × vocab_size × hidden_size.
#
# And it moves bytes: all weights once, whatever the number of tokens; keys and values of all tokens, old and new, which
# attention reads; those of the new ones, which are written.
#
# **Predict** operations per byte, in F16 (269 MB of weights): of one decode step after 100 tokens, and of a prefill of
# 100 tokens. `%llm lab predict Q5 10,10`, or what you think.


# %%
def forward_flops(cfg: ModelConfig, num_new_tokens: int, num_computed_tokens: int) -> int:
    """Operations of one pass over the new tokens of one sequence, with the logits of the last one.

    The matrices of a layer: q and o [hidden_size, num_heads * head_dim], k and v [hidden_size, num_kv_heads *
    head_dim]; gate, up and down [hidden_size, intermediate_size].
    """
    # BEGIN SOLUTION Q5: about 7 lines
    width, kv_width = cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
    layer_weights = cfg.hidden_size * (2 * width + 2 * kv_width + 3 * cfg.intermediate_size)
    num_pairs = num_new_tokens * num_computed_tokens + num_new_tokens * (num_new_tokens + 1) // 2
    matrices = 2 * cfg.num_layers * layer_weights * num_new_tokens
    logits = 2 * cfg.vocab_size * cfg.hidden_size
    return matrices + 4 * cfg.num_layers * width * num_pairs + logits
    # END SOLUTION


def forward_bytes(
    cfg: ModelConfig, num_new_tokens: int, num_computed_tokens: int, weight_bytes: float, bytes_per_element: int = 2
) -> float:
    """Bytes that this pass moves: all weights once, keys and values read, keys and values written."""
    # BEGIN SOLUTION Q5: about 3 lines
    num_read, num_written = num_computed_tokens + num_new_tokens, num_new_tokens
    kv_token = 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * bytes_per_element
    return weight_bytes + (num_read + num_written) * kv_token
    # END SOLUTION


# %%
# %llm lab check Q5

# %%
WEIGHTS = 269e6
q5 = [forward_flops(cfg, n, c) / forward_bytes(cfg, n, c, WEIGHTS) for n, c in ((1, 100), (100, 0))]

# %%
# %llm lab check Q5

# %% [markdown]
# On the roofline of this machine, which is measured now. Crosses are real steps of llama.cpp: prefill of prompts of
# several lengths, and decode. Under which roof are they?

# %%
some = [cells.batch([list(range(100, 100 + n))], max_tokens=8, ignore_eos=True, salt=str(n)) for n in (16, 64, 200)]
points = []
for run in some:
    run.wait()
    for step in run.trace.step_records:
        for row in step.scheduled:
            new, old = row.num_tokens, row.num_computed_tokens
            flops = forward_flops(cfg, new, old)
            points.append((flops / forward_bytes(cfg, new, old, WEIGHTS), flops / step.forward_s))

# %%
roofline = plots.roofline("smollm2-135m", quant="F16", context=100)
x, y = zip(*points, strict=True)
roofline.add_scatter(x=x, y=y, mode="markers", name="steps of llama.cpp, measured", marker={"symbol": "x", "size": 9})

# %% [markdown]
# Decode is far to the left: it reads all weights to compute one token. With 16 sequences in a batch it reads them once
# for 16 tokens:

# %%
rates = {}
for count in (1, 16):
    batch = cells.batch([f"Write a story about the number {i}." for i in range(count)], max_tokens=48, ignore_eos=True)
    batch.wait()
    decodes = [s for s in batch.trace.step_records if s.scheduled and all(r.phase == "decode" for r in s.scheduled)]
    rates[count] = sum(len(s.tokens) for s in decodes) / sum(s.forward_s for s in decodes)
    print(f"{count:2} in a batch: {rates[count]:4.0f} tokens a second")

# %% [markdown]
# ## Q6 Reflect
#
# Two answers, each at least 15 words and with a number from your own runs: **1** You get a memory that is twice as
# fast, with the same processor. Which of prefill and decode gains, and how do you know? **2** Why does batching help
# decode, and what does each sequence of the batch still need for itself?

# %%
# BEGIN SOLUTION -> reflection = ["", ""]
reflection = [
    "Decode gains: it does 1 operation for each byte that it moves, prefill of 100 tokens about 79, which is at the "
    "roof of arithmetic already.",
    "The weights are read once for all 16 sequences, so each token costs less traffic; each sequence still reads the "
    "23,040 bytes a token of its own KV.",
]
# END SOLUTION

# %%
# %llm lab check Q6

# %%
# %llm unload --all

# %% [markdown]
# ## Hand it in
#
# One page with your predictions, results, hints and pictures:

# %%
# %llm lab report
