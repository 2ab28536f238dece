# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Watch the engine
#
# After this notebook you will be able to explain
#
# - what one **step** of an engine is, and why sixteen answers in one batch are not sixteen times as slow as one;
# - where the **KV cache** of a request lies: in blocks (vLLM) or in cells (llama.cpp), and who shares what;
# - what happens when the cache is full: **preemption**, and what it costs;
# - how likely the model found each token that it wrote.
#
# Everything you see is what the engine did. Nothing is drawn that did not happen.

# %%
# %load_ext llmlab

# %% [markdown]
# ## A small engine, so that it gets crowded
#
# llama.cpp with room for 768 tokens, eight requests at a time.

# %%
# %llm load smollm2-135m -e llamacpp -q Q4_1 --kv-tokens 768 --seqs 8 --step-tokens 64

# %%
import llmlab

questions = [f"Tell me one thing about {thing}." for thing in "rain snow fog wind ice hail dew sun".split()]
rules = "You are a patient teacher. You answer in two or three plain sentences, and you never use lists. "
run = llmlab.current().batch(questions, system=rules, max_tokens=60, temperature=0.0)
run.view

# %% [markdown]
# The upper picture is the memory, the lower one is time; they share one cursor. While the run goes on, the picture
# follows it; step back with the left arrow, and the engine goes on without you. Things to find:
#
# 1. In the first step only one prompt is computed. In which step do all eight decode together?
# 2. The instructions are the same for all. How many sequences share their cells?
# 3. How many cells does attention read in each step, and how many of them hold a token of anybody?

# %%
run.wait()
run.trace.steps[["batch_size", "num_prefill_tokens", "num_decode_tokens", "kv_used", "num_attended"]].describe()

# %% [markdown]
# ## Drive it by hand
#
# A paused engine takes requests and waits. `%llm step` lets it take one step; the picture says in words what happened.

# %%
# %llm pause

# %%
slow = llmlab.current().batch(questions[:3], system=rules, max_tokens=8, temperature=0.0)

# %%
# %llm step 3

# %%
llmlab.kv_cache(slow)

# %%
# %llm resume

# %%
[result.text for result in slow.wait()]

# %% [markdown]
# ## The same on a GPU, with blocks
#
# This is vLLM on an NVIDIA H200, recorded block by block: sixteen long answers in a cache of 64 blocks. Before you
# look: when the last free block is gone, who has to give his up, and what happens to his tokens?

# %%
trace = llmlab.recorded("preemption")
llmlab.watch(trace)

# %% [markdown]
# Jump from event to event with Shift and the arrows. A triangle is a preemption, a diamond a prefix that was found in
# the cache. Select a request that was preempted: what did it find again, what had to be recomputed?

# %%
trace.requests[trace.requests.num_preemptions > 0][
    ["request_id", "num_output_tokens", "num_preemptions", "num_recomputed_tokens", "ttft_s", "e2e_s"]
]

# %% [markdown]
# ## How sure was it?
#
# Each token of an answer was drawn from a distribution. The colour says how likely it was; hover for the others.

# %%
answer = llmlab.current().generate("Why is the sky blue?", max_tokens=48, temperature=0.7, seed=1, logprobs=5)
llmlab.tokens(answer)

# %% [markdown]
# ## Unload

# %%
# %llm unload

# %% [markdown]
# ## Go on
#
# - `llmlab.watch(llmlab.recorded("shared_prefix"))`: one system prompt, 24 questions. Which blocks never leave?
# - Load with `--seqs 2` and run the first cell again. What changes in the lower picture, and what in the time?
# - `llmlab.watch(trace).to_html("preemption.html")` is a page that still scrubs, for a slide or a friend.
