# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Side by side
#
# After this notebook you will be able to explain
#
# - where the answers of two **quants** of one model part, and why all later text follows from that one token;
# - how a **cause is tested** instead of guessed: the engines are asked again with one thing changed;
# - when speeds may be compared, and when they **share one machine**;
# - how to judge answers **blind**, and how little a handful of votes proves (**Wilson intervals**).

# %%
# %load_ext llmlab

# %% [markdown]
# ## Two quants of one model
#
# F16 keeps 16 bits of each weight, Q4_0 keeps four and a scale for each group of 32. Before you run the comparison,
# guess: after how many tokens will the two answers part?

# %%
# %llm load smollm2-135m -e llamacpp -q F16 --as F16 --ctx 1024

# %%
# %llm load smollm2-135m -e llamacpp -q Q4_0 --as Q4_0 --ctx 1024

# %% magic_args="compare -e F16 Q4_0 -n 24 --logprobs 5 -o sky" language="llm"
# Why is the sky blue? Answer in one sentence.

# %% [markdown]
# Grey text is equal in both columns. The diamond marks the first token that differs; below it stand both distributions
# at that place, on one scale, and what was tested. `probabilities` colours each token by how likely it was: does the
# coarse quant become sure of itself, or unsure?
#
# The comparison is an object. Its first divergence is what you would find by hand in the token ids:

# %%
parting = sky.first_divergence
for name in sky.names:
    print(name, sky[name][0].token_ids[parting.index - 1 : parting.index + 3])
print(parting.sentence)

# %% [markdown]
# ## The causes, one by one
#
# Each line was tested on these two engines. `excluded` means that the test found it equal or too small, `possible` that
# it could not be told.

# %%
for cause in parting.causes:
    print(cause)

# %% [markdown]
# ## One engine, two settings
#
# A list of values makes a column of each. At temperature 0 the seed does not matter; above it, it is the cause.

# %%
import llmlab

drawn = llmlab.compare("Name an animal.", "F16", temperature=[0, 1.0], seed=[1, 2], max_tokens=12)
drawn.table()[["column", "answer", "differs_at"]]

# %%
for parting in drawn.known_partings():
    print(parting.names[1], "parts at token", parting.index, "because of", parting.cause and parting.cause.name)

# %% [markdown]
# ## A set of prompts
#
# One prompt is an anecdote. A list, a column of a table or a JSON Lines file makes a table of medians. One after the
# other, each engine has the machine for itself. Compare with `together=True`: which figures change, and which do not?

# %%
questions = ["What is rain?", "Name a fruit.", "Count to five.", "Say hello in French."]
alone = llmlab.compare(questions, ["F16", "Q4_0"], max_tokens=12, causes=False)
shared = llmlab.compare(questions, ["F16", "Q4_0"], max_tokens=12, causes=False, together=True)
for run in (alone, shared):
    print(run.conditions)
    display(run.summary()[["column", "ttft_s", "tokens_per_s", "num_equal", "num_parted"]])

# %% [markdown]
# ## Blind
#
# Names and figures are hidden, and the places are drawn for each prompt. Vote in the view with its buttons, or in code,
# as here, where a stubborn judge always likes the longer answer.

# %%
blind = llmlab.compare(questions, ["F16", "Q4_0"], max_tokens=12, causes=False, blind=True)
answers = blind.table()
for number, (_, pair) in enumerate(answers.groupby("prompt", sort=False)):
    longer = pair["answer"].str.len().idxmax()
    blind.vote(answers["column"][longer], number)
blind.reveal()
blind.win_rates()

# %% [markdown]
# Four votes: look at `low` and `high`. How many votes would it take to call a column better with 95 % confidence?

# %%
from llmlab.compare import wilson

for num_votes in (4, 20, 100):
    low, high = wilson(3 * num_votes // 4, num_votes)
    print(f"3 of 4 in {num_votes} votes: between {low:.2f} and {high:.2f}")

# %%
# %llm unload --all

# %% [markdown]
# ## Go on
#
# - `%llm load smollm2-135m -e both` loads vLLM beside llama.cpp: which cause is named for two engines in float32?
# - `--grid quant=F16,Q8_0,Q4_0` loads what is missing. Where does Q8_0 part?
# - `sky.to_html("sky.html")` writes a page to hand in; `sky.to_json("sky.json")` keeps every token id.
