# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Inside the engine
#
# After this notebook you will be able to explain
#
# - where the KV cache of a request lies: its **block table**, and the one line of code that hands a block out;
# - what **one step** of an engine does, and in which order;
# - what a head of **attention** looks at, what the model would say after each **layer**, and where the time goes;
# - what a **policy**, a **sampler**, a **block pool** and an **attention** owe the engine, and how it notices when one
#   of them breaks its promise.
#
# The engine here is a few files of plain torch, to be read in an evening. It computes the answers of the others, with
# the same weights. Open its files beside this notebook, and change them.

# %%
# %load_ext llmlab

# %%
# %llm load smollm2-135m -e torch --kv-tokens 320 --block-size 8 --seqs 6 --step-tokens 64

# %% [markdown]
# ## One request, and where its blocks are
#
# The prompt below has 5 tokens, the answer 20, and a block holds the KV of 8. Before you run the cells: how many blocks
# does the request hold at its end, and in which steps does it get a new one?

# %%
import llmlab

engine = llmlab.current()
answer = engine.generate("The capital of France is", max_tokens=20, ignore_eos=True, raw=True)
answer

# %%
{step.step: list(*step.kv.allocated.values()) for step in answer.trace.step_records if step.kv.allocated}

# %% [markdown]
# Three blocks for 25 tokens: the KV of the last token is never needed, so it is never computed. Here is the block table
# when it was fullest. It turns a position in the text into a place in memory:

# %%
answer.trace.kv()

# %%
table, position = answer.trace.kv().block_id.tolist(), 13
table[position // 8] * 8 + position % 8

# %% [markdown]
# Where is a block allocated? In one place. Where does it become free? In another one.

# %%
import inspect

from llmlab.scheduling.block_pool import PagedPool

print(inspect.getsource(PagedPool._take))
print(inspect.getsource(PagedPool._release))

# %% [markdown]
# ## One step
#
# What does one step do? This is it:

# %%
from llmlab.engines.torch_paged import TorchEngine

print(inspect.getsource(TorchEngine._step))

# %% [markdown]
# | question | file in `llmlab/` | look for |
# |---|---|---|
# | Who computes how many tokens? | `scheduling/policies.py` | `ChunkedPrefill.schedule` |
# | Who gets room, who has to give his up? | `scheduling/scheduler.py` | `Scheduler.schedule`, `_preempt` |
# | When may somebody else use a block? | `scheduling/block_pool.py` | `commit`, `lookup` |
# | What is computed? | `engines/torch_model.py` | `Decoder.forward` |
# | How are the blocks read? | `engines/torch_attention.py` | `paged_attention` |
# | How is a token drawn? | `engines/torch_sampling.py` | `probabilities`, `draw` |
#
# Take the engine by the hand: two steps with two requests. Which numbers do you expect in the second line?

# %%
engine.pause()
pair = engine.batch(["The sea is", "The sky is"], max_tokens=12, ignore_eos=True, raw=True)
for step in engine.step(2):
    shares = {row.request_id: (row.phase, row.num_tokens) for row in step.scheduled}
    print(step.step, shares, "takes", step.kv.allocated, "draws", [token.text for token in step.tokens])
engine.resume()

# %%
pair.wait()
pair.trace.kv()

# %% [markdown]
# ## A crowd
#
# Six questions with the same instructions, in a cache of 40 blocks. Each grows to 12. Predict: which blocks are held by
# more than one request? Who is sent back to the queue, and what does that cost?

# %%
rules = "You are a patient teacher. You answer in two or three plain sentences, and you never use lists. "
questions = [f"Tell me one thing about {thing}." for thing in "rain snow fog wind ice hail".split()]
crowd = engine.batch(questions, system=rules, max_tokens=50, ignore_eos=True)
llmlab.watch(crowd)

# %%
crowd.wait()
requests = crowd.trace.requests
requests[["num_prompt_tokens", "num_cached_tokens", "num_output_tokens", "num_preemptions", "num_recomputed_tokens"]]

# %% [markdown]
# Step back in the picture to the triangles: those are the preemptions. A preempted request finds its first blocks again
# if nobody needed them meanwhile. Now the two questions that matter. Did the engine keep its books? An empty list means
# that every rule in `llmlab.trace.rules.RULES` was kept:

# %%
crowd.trace.validate()

# %% [markdown]
# And did anybody notice? The last two once more, each alone:

# %%
alone = [engine.generate(question, system=rules, max_tokens=50, ignore_eos=True) for question in questions[-2:]]
[one.token_ids == together.token_ids for one, together in zip(alone, crowd.results[-2:], strict=True)]

# %% [markdown]
# ## What attention looks at
#
# `inside()` computes a text once more and keeps what a forward pass throws away: the attention weights of every head,
# the hidden state after every layer. Predict: are there heads that always look at the very token before?

# %%
import numpy as np
import plotly.express as px

ids = engine.tokenize("The sun rises in the east and sets in the")
seen = engine.inside(ids)
attention = np.stack(list(seen["attention"].values()))  # [num_layers, num_heads, num_tokens, num_tokens]
before = np.diagonal(attention, -1, 2, 3).mean(-1)
px.imshow(before, labels={"x": "head", "y": "layer", "color": "weight of the<br>token before"}, height=480)

# %%
words = [f"{i} {piece.decode()}" for i, piece in enumerate(engine.pieces(ids))]
layer, head = np.unravel_index(before.argmax(), before.shape)
px.imshow(attention[layer, head], x=words, y=words, height=560, title=f"Layer {layer}, head {head}")

# %% [markdown]
# A row is a token that looks, a column a token that is looked at. The upper triangle is empty: that is the causal mask.
# Put in other heads: many park their weight on the first token. They have nothing to say, and the weights must
# sum to 1.
#
# A prefill computes all rows at once, a decode step the last one alone. `probe()` keeps the same of each step of a real
# run, here as heads x new tokens x tokens looked at. Predict the three shapes:

# %%
with engine.probe(layers=[layer]) as probed:
    engine.generate(ids, max_tokens=3, ignore_eos=True)
[found["attention"][layer].shape for step in probed for found in step.values()]

# %% [markdown]
# Run that cell a second time: the first shape is smaller. Which rows are missing, and where does their KV come from?
#
# ## What it would say after each layer
#
# The **logit lens** reads each hidden state as if it were the last. Predict: after how many of the 30 layers does the
# model know where the sun sets?

# %%
import pandas as pd

guesses = [state[-1][0] for state in seen["lens"]]
told = [engine.detokenize([token_id]) for token_id, _ in guesses]
pd.DataFrame({"next": told, "probability": [p for _, p in guesses]}).rename_axis("after layer").round(2)

# %% [markdown]
# ## Where the time goes
#
# Each step tells how long its parts took. Predict: which part takes most of a step that only decodes?

# %%
steps = [step for step in crowd.trace.step_records if step.scheduled]
kinds = ["decodes only" if all(row.phase == "decode" for row in s.scheduled) else "with prompts" for s in steps]
(1000 * pd.DataFrame([step.extra["phases_s"] for step in steps]).groupby(kinds).mean()).round(1)  # ms

# %% [markdown]
# And each step tells how many operations it took and how many bytes it had to move. On the roofline of this machine,
# which is measured now, the steps of the crowd stand like this. Which of the two roofs are they under?

# %%
from llmlab.views import plots

roofline = plots.roofline("smollm2-135m", quant="F32", kv_element_bytes=4, context=64)
work = pd.DataFrame([{"took_s": step.forward_s, **step.extra} for step in steps])
x, y = work.flops / work.bytes, work.flops / work.took_s
roofline.add_scatter(x=x, y=y, mode="markers", name="steps of the crowd, measured", marker={"color": "#d2521f"})

# %% [markdown]
# Before it goes: the bytes of every token, which you will need below.

# %%
pieces = engine.pieces(range(seen["logits"].shape[1]))
engine.unload()

# %% [markdown]
# ## A policy of your own
#
# Who computes how many tokens in the next step? A policy answers with a dict. Short prompts overtake long ones here:


# %%
class ShortestFirst:
    def schedule(self, state):
        plan, left = {}, state.token_budget
        waiting = sorted(state.waiting, key=lambda request: request.num_tokens)
        for request in (*state.running, *waiting)[: state.max_num_seqs]:
            if num_tokens := min(left, request.num_uncomputed_tokens):
                plan[request.request_id], left = num_tokens, left - num_tokens
        return plan

    def victim(self, state):
        return state.running[-1].request_id


# %% [markdown]
# Two seats, and the longest prompt comes first. Predict: who gets a first token last?

# %%
own = llmlab.load("smollm2-135m", engine="torch", policy=ShortestFirst, seqs=2, step_tokens=32)
prompts = ["Count: " + "one two three " * number for number in (30, 9, 6, 3, 1)]
run = own.batch(prompts, max_tokens=8, raw=True)
run.wait()
llmlab.timeline(run)

# %%
own.unload()
run.trace.requests[["num_prompt_tokens", "queue_s", "ttft_s"]].round(2)

# %% [markdown]
# ## A sampler of your own
#
# It gets the logits of one row and turns them into probabilities, then draws. This one never uses a token with an *e*.


# %%
class WithoutE:
    def __init__(self, pieces):
        self.is_cut = np.array([b"e" in piece.lower() for piece in pieces])

    def probs(self, logits, params):
        logits = np.where(self.is_cut, -np.inf, logits)  # a copy: the engine still needs its own
        weights = np.exp((logits - logits.max()) / params.temperature)
        return weights / weights.sum()

    def draw(self, probs, u):
        sums = probs.cumsum(dtype=np.float64)
        return int(np.searchsorted(sums, u * sums[-1], side="right"))


# %%
own = llmlab.load("smollm2-135m", engine="torch", sampler=WithoutE(pieces))
own.generate("Why is the sky blue?", max_tokens=40, temperature=0.7, seed=1)

# %% [markdown]
# It will never end by itself. Which token ends an answer of this model, and how is it spelt?
#
# ## An attention of your own
#
# In numpy, for one sequence and one layer. This one has a short memory: it looks back `window` tokens and no further.

# %%
own.unload()
window = 1000


def short_memory(q, k, v):
    num_new, num_heads, head_dim = q.shape
    k, v = (np.repeat(x, num_heads // x.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / head_dim**0.5
    age = np.arange(len(k) - num_new, len(k))[:, None] - np.arange(len(k))
    scores[:, (age < 0) | (age >= window)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hij,jhd->ihd", weights / weights.sum(-1, keepdims=True), v)


# %% [markdown]
# A class or a function of yours runs in this very process, so that you can change `window` while the engine is loaded.
# With a window of 1,000 it is the attention of the engine. Predict: how much does a window of 8 do to the answer?

# %%
own = llmlab.load("smollm2-135m", engine="torch", attention=short_memory, options={"prefix_caching": False})
ask = {"prompt": "The capital of France is", "max_tokens": 20, "ignore_eos": True, "raw": True}
same = own.generate(**ask)
window = 8
short = own.generate(**ask)
print(same.token_ids == answer.token_ids, short.text, sep="\n")

# %%
weights = own.inside(ids, layers=[layer])["attention"][layer][head]
px.imshow(weights, x=words, y=words, height=560, title=f"Layer {layer}, head {head}, window {window}")

# %%
own.unload()

# %% [markdown]
# ## A block pool with a bug
#
# A pool that somebody else wrote is checked after every call. This one is ours, with one line too many. Predict: when
# does anybody notice?


# %%
class LosesOne(PagedPool):
    def free(self, seq_id):
        self._tables[seq_id].pop()
        super().free(seq_id)


broken = llmlab.load("smollm2-135m", engine="torch", block_pool=LosesOne, kv_tokens=160, block_size=8)
try:
    broken.batch(["Name a fruit.", {"prompt": "Count to ten.", "max_tokens": 4}], max_tokens=30).wait()
except llmlab.LlmlabError as error:
    lesson = error
lesson

# %% [markdown]
# The sentence names the step, the call and the block; the picture is the cache as it was before that step. Without the
# checks the engine would have gone on, one block poorer with each request, until nobody finds room any more.
#
# The next bug is worse: a block that gets new content keeps the hash of the old one.


# %%
class RemembersTooLong(PagedPool):
    def _forget_hash(self, block):
        pass


broken.unload()
broken = llmlab.load("smollm2-135m", engine="torch", block_pool=RemembersTooLong, kv_tokens=64, block_size=8)
try:
    for prompt in ("one two three " * 6, "red green blue " * 19, "one two three " * 6):
        broken.generate(prompt, max_tokens=2, raw=True)
except llmlab.LlmlabError as error:
    print(error)

# %% [markdown]
# Nothing would have crashed. The third request would have read the KV of the second one's colours as if it were its own
# numbers, and answered fluently.

# %%
# %llm unload --all

# %% [markdown]
# ## Questions to think about
#
# 1. Why does a block get its hash in `commit`, after the forward pass, and not in `allocate`? What could go wrong when
#    a pass is broken off in between?
# 2. `victim` names the newest request. What would happen if it named the oldest?
# 3. `ShortestFirst` is fast for most. For whom is it terrible, and what would the engine say if you waited long enough?
# 4. The steps that only decode lie far to the left on the roofline. What moves them to the right: a faster processor,
#    a larger batch, or a quantized model?
# 5. `LosesOne` was caught by counting. Which bug of a block pool could no count ever find, and which one no answer?

# %% [markdown]
# ## Go on
#
# - The same policy in another engine: `llmlab.load("smollm2-135m", engine="llamacpp", policy=ShortestFirst)`.
# - The same bug in a copy of `block_pool.py`: break `append`, `fork` or `commit`, and see whether you get away with it.
# - In which order everything happens in *every* engine: `docs/architecture.md`.
