# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart
#
# After this notebook you will be able to explain
#
# - what happens between a prompt and its answer: **prefill** reads the prompt, **decode** writes one token at a time;
# - why the first token takes longer than the next ones (**TTFT** and the time between tokens);
# - why eight answers at once do not take eight times as long (**continuous batching**);
# - where to look when you want to know what the engine really did: the **trace**.
#
# Everything runs on this computer, without network. The model is small (SmolLM2, 135 million weights), so do not
# believe what it says: watch how it says it.

# %%
# %load_ext llmlab

# %% [markdown]
# ## Load
#
# The engine, llama.cpp, lives in a process of its own. If it crashes, this notebook goes on.

# %%
# %llm load smollm2-135m -e llamacpp

# %% [markdown]
# ## Ask
#
# What is not a verb is a prompt. `-n` limits the answer (in tokens), `-t 0` always takes the most likely token. The
# line below the answer says who answered and how fast.

# %%
# %llm Why is the sky blue? -n 48 -t 0

# %% [markdown]
# A longer prompt gets a cell of its own. Names in braces are filled in from the notebook, and `-o` keeps the answer in
# a variable. The stop button of the toolbar ends an answer on the engine too; what has come stays.

# %%
fruits = ["apples", "bananas", "cherries"]

# %% magic_args="-n 40 -t 0 -o answer" language="llm"
# Write one sentence about {fruits[1]}.

# %% [markdown]
# The answer is an object. The prompt was read in one go (prefill); then each token of the answer took its own turn
# (decode), and has its own time.

# %%
print("prompt tokens:", answer.num_prompt_tokens, "| answer tokens:", answer.num_output_tokens)
print("first token after", round(answer.ttft_s * 1000), "ms")
print("then one every", round(sum(answer.itl_s) / len(answer.itl_s) * 1000), "ms on average")

# %% [markdown]
# Every line of `%llm` is one call of the library, and `--show-code` prints it.

# %%
# %llm Name three colors. -n 32 -t 0 --show-code

# %% [markdown]
# ## Stream
#
# In Python, tokens can be taken one by one, as they come. A word may be several tokens.

# %%
import llmlab

engine = llmlab.current()
for token in engine.stream("What is photosynthesis?", max_tokens=32):
    print(token.text, end="|")

# %% [markdown]
# ## Eight at once
#
# The next cell says how long one answer took. Guess before you go on: how long will eight such answers take, asked at
# the same time?

# %%
print(f"one answer: {answer.e2e_s:.1f} s, {answer.num_output_tokens} tokens")

# %% magic_args="batch -n 40 -t 0 -o run" language="llm"
# Name three fruits.
# What is gravity?
# Write a line about the sea.
# Who was Ada Lovelace?
# Why do we sleep?
# What is bread made of?
# What is a poem?
# Name three colors.

# %% [markdown]
# ## What did the engine do?
#
# The trace has one row for each step of the engine. In a step, each request either reads its prompt (many prefill
# tokens) or writes (one decode token), and all of them share one pass through the model.

# %%
steps = run.trace.steps
steps[["step", "num_running", "num_prefill_tokens", "num_decode_tokens", "num_output_tokens", "forward_s"]].head(10)

# %% [markdown]
# One row for each request, with its times in seconds.

# %%
requests = run.trace.requests
requests[["request_id", "num_prompt_tokens", "num_output_tokens", "ttft_s", "tpot_s", "e2e_s", "finish_reason"]]

# %% [markdown]
# Was your guess right? This is where the speed of a batch comes from: a step for eight requests reads the weights of
# the model once, as a step for one request does, and it gives eight tokens.

# %%
one, eight = (trace.steps["forward_s"].median() for trace in (answer.trace, run.trace))
print(f"a step with one request:    {one * 1000:.0f} ms")
print(f"a step with eight requests: {eight * 1000:.0f} ms, {eight / one:.1f} times as long for eight tokens")

# %% [markdown]
# A trace can be saved, sent to somebody, and played again on a computer without the engine
# (`%llm trace replay quickstart.jsonl.gz`).

# %% [markdown]
# ## Unload
#
# The engine's process ends, and all of its memory returns.

# %%
# %llm mem

# %%
# %llm unload

# %% [markdown]
# ## Go on
#
# - Load the engine again and run the batch with `--rate 2`: two requests a second, instead of all at once.
# - Drive the engine by hand: `%llm slow 0.2` before a prompt; or `%llm pause`, a batch, and `%llm step 3`.
# - `%llm help` lists all that can be typed, `%llm doctor` says what this computer can run.
