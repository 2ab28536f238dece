# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The same model on two engines
#
# After this notebook you will be able to explain
#
# - what must be equal before the answers of two engines may be compared at all: the **parity manifest**;
# - how vLLM keeps its KV cache in **blocks** and llama.cpp in **cells**, and how each shares a common prefix;
# - why two answers part at one token although "it is the same model", and how to **test** what caused it.
#
# vLLM runs on Linux, with an NVIDIA GPU or an x86-64 processor. Elsewhere the next load says so, and offers two
# llama.cpp engines that can be compared in the same way.

# %%
# %load_ext llmlab

# %% [markdown]
# ## Load both
#
# One line loads the same weights twice, each engine in a process of its own, in formats that agree. Then it holds them
# against each other. Read the manifest from top to bottom: what goes in, the numbers, the room, what comes out.

# %%
# %llm load smollm2-135m -e both --ctx 1024

# %% [markdown]
# A line is equal, or it is marked. The log probabilities of two programs are never equal to the last bit, since they
# add the same numbers in another order: float32 allows them to be 0.01 nats apart. How much of that did they use?
#
# Two engines are a pair in Python, too.

# %%
import llmlab

vllm, llamacpp = llmlab.handles().values()
vllm, llamacpp

# %% [markdown]
# ## One prompt through both

# %% magic_args="smollm2-135m-vllm -n 32 -t 0 -o by_vllm" language="llm"
# Why is the sky blue?

# %% magic_args="smollm2-135m-llamacpp -n 32 -t 0 -o by_llamacpp" language="llm"
# Why is the sky blue?

# %%
print("the same prompt tokens:", by_vllm.prompt_token_ids == by_llamacpp.prompt_token_ids)
print("the same answer tokens:", by_vllm.token_ids == by_llamacpp.token_ids)

# %% [markdown]
# ## Where is the KV cache?
#
# Three questions that begin with the same instructions. The first one is asked alone; the others come when its KV
# exists already. Guess: which parts of the cache will they share?

# %%
rules = "You answer in one short sentence, in plain English, without lists and without emoji. " * 3
questions = ["What is rain?", "What is snow?", "What is fog?"]


def ask(engine):
    return engine.batch(questions, system=rules, max_tokens=24, arrivals=[0, 0.5, 0.6]).wait()


of_vllm, of_llamacpp = (ask(engine)[0].trace for engine in (vllm, llamacpp))

# %% [markdown]
# **vLLM** cuts the cache into blocks of 32 tokens. Each request has a block table: its first block, its second block,
# and where they lie in memory. A block with `ref_count` 3 stands in three block tables: the instructions were computed
# once. Only full blocks are shared, so the tail of the prefix is computed again.

# %%
of_vllm.kv()

# %% [markdown]
# **llama.cpp** has no blocks. A cell holds the KV of one token, and knows which requests may look at it. One row is a
# run of neighbouring cells. The instructions are one run that belongs to all three requests, up to their last equal
# token. The very first cells are shared with one request more: that of the question above, which has ended, and whose
# cells are kept in case somebody needs them.

# %%
cells = of_llamacpp.kv()
cells.head(6)

# %% [markdown]
# After their prompts, all requests write one cell for each step, in turns: many runs of one cell.

# %%
cells.groupby("request_ids")["num_cells"].agg(["count", "sum"]).set_axis(["runs", "cells"], axis=1)

# %% [markdown]
# Both engines found the prefix. How many prompt tokens did each request not have to compute?

# %%
for trace in (of_vllm, of_llamacpp):
    print(trace.header.engine)
    display(trace.requests[["request_id", "num_prompt_tokens", "num_cached_tokens"]])

# %% [markdown]
# ## The same model, in fewer bits
#
# The weights of this model were published with 5 bits each (Q4_1), and vLLM computed with exactly these, written as
# float32. llama.cpp can also compute with them as they are: then it rounds the numbers that flow through the model to
# 8 bits. Does the answer stay the same?

# %%
# %llm load smollm2-135m -e llamacpp -q Q4_1 --ctx 1024 --as q4

# %%
q4 = llmlab.current()
llmlab.first_divergence(vllm, q4, "Why is the sky blue?", max_tokens=32)

# %% [markdown]
# The card shows the first token that differs, with the most likely tokens on either side. Then the causes, in the order
# in which they were tested: did another prompt go in, are these other weights, does the format move the two candidates
# by more than rounding can, does it matter who else is in the batch, did one of them draw at random?
#
# Was it close? Compare the gap between the two candidates with how far the formats are apart over all prompts:

# %%
quantized = llmlab.parity(vllm, q4, max_tokens=1)
for name in ("log probabilities", "KL divergence", "most likely token"):
    print(f"{name}: {quantized[name].note}")

# %% [markdown]
# ## Unload

# %%
# %llm unload --all

# %% [markdown]
# ## Go on
#
# - Load `-q Q8_0` or `-q Q4_0` instead of Q4_1. Which line of the manifest turns red, and why may Q4_0 be worse than
#   the Q4_1 that it was made from?
# - Load with `--block-size 64`: what does a larger block change in the first table, and in what is shared?
# - `llmlab.first_divergence(a, b, "your prompt")` works for any two engines with the same vocabulary.
