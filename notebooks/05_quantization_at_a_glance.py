# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quantization at a glance
#
# After this notebook you will be able to explain
#
# - what fewer bits a weight save in memory, and why they also make each token come sooner;
# - what they cost in quality, measured as **perplexity** and in questions with one right answer;
# - why a difference of two or three right answers out of 24 is no evidence, and a difference in perplexity can be.
#
# The same model three times, on llama.cpp: 16, 8 and 4 bits a weight.

# %%
# %load_ext llmlab

# %%
import llmlab

quants = ["F16", "Q8_0", "Q4_0"]
engines = [llmlab.load("smollm2-135m", "llamacpp", quant=q, ctx=512, seqs=8, name=q) for q in quants]

# %% [markdown]
# ## Size
#
# Predict: 135 million weights. How many bytes in each format? (A Q8_0 block holds 32 weights in 34 bytes, a Q4_0 block
# in 18.) Then look. Why is Q4_0 larger than you thought? One matrix of this model, the embedding, is a fifth of it.

# %%
for engine in engines:
    print(f"{engine.name}: {engine.memory()['weights'] / 1e6:.0f} MB of weights, as llama.cpp reports them")

# %% [markdown]
# ## Speed
#
# For one user a token costs one pass over all weights: the memory bus is the limit, and fewer bytes come through it
# sooner. With four users at once one pass serves all four, and arithmetic counts more.

# %%
result = llmlab.bench(engines, workload="closed_loop", sweep=[1, 4], num_requests=4, repeats=1, warm_up=1)
result

# %% [markdown]
# ## Quality
#
# Perplexity: how surprised the model is by a text that it has not seen, here one that was written for llmlab. A value
# of 40 means: as unsure as if it had to choose among 40 equally likely tokens at each place. Lower is better.

# %%
from llmlab.shipped import shipped

text = shipped("texts/harbour.txt").read_text()[:1500]
surprise = {engine.name: llmlab.perplexity(engine, text) for engine in engines}
surprise

# %% [markdown]
# The interval in each line is for *another text*. All three read the same one, so their values may be compared more
# closely than that: what matters is by how much they differ on these very tokens.
#
# And 24 questions with one right answer each:

# %%
right = {engine.name: llmlab.exact_answers(engine) for engine in engines}
right

# %% [markdown]
# A model of this size knows little. The 95 % interval says how little such a small set can tell: two shares near one
# half that are 5 percentage points apart need some 800 questions each before one may call them different.
#
# ## All of it on one page
#
# A report holds them against each other. It recommends an engine only for figures of this run that differ by more than
# chance, and it says what would speak for another.

# %%
report = llmlab.report(result, perplexities=surprise, exact=right, with_load_times=False)
report.choice

# %% [markdown]
# ## Unload

# %%
# %llm unload --all

# %% [markdown]
# ## Go on
#
# - `llmlab.report(result, path="quants.html", price=0.5)` also measures load times and quality, and computes what a
#   million tokens cost on a machine of half a euro an hour.
# - Load `Q4_1` as well: these weights were published in that format. Why is its perplexity nearer to F16 than Q4_0 is?
# - `llmlab.parity(engines[0], engines[2])` shows how far apart the distributions are, token by token.
