# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 6: quantization
#
# After this lab you will be able to explain
#
# - what a **block format** stores: small codes, and one scale for 32 weights;
# - where each byte of llama.cpp's **Q8_0** and **Q4_0** comes from;
# - how to judge size, speed and **perplexity** by your own measurement instead of by the label of a file.
#
# It takes about 85 minutes. You write 30 lines of numpy that give the very bytes of llama.cpp. For each question:
# predict, run, look, write, check. `%llm lab hint Q2` gives a hint; hints cost nothing, your report counts them.

# %%
# %load_ext llmlab
# %llm lab start lab06

# %%
import math
from collections.abc import Sequence

import numpy as np

# %%
import pandas as pd

import llmlab
import llmlab.models.weights
import llmlab.shipped

# %% [markdown]
# ## Q1 What a file holds
#
# The model has 134.5 million weights; as F16 they take 2 bytes each, and the file has 271 MB. Q4 means 4 bits. **How
# many MB has the Q4_0 file: 68, 76, 92?** Write your guess down before you run the next cells:
# `%llm lab predict Q1 68`, or what you think.

# %%
model = llmlab.models.get("smollm2-135m")
files = {quant: model.gguf(quant) for quant in ("F32", "F16", "Q8_0", "Q4_0")}
q1 = round(files["Q4_0"].stat().st_size / 1e6)

# %%
# %llm lab check Q1

# %% [markdown]
# Of which types are the tensors in that file, and which is the largest one?

# %%
tensors = {quant: list(llmlab.models.check_gguf(path).tensors.values()) for quant, path in files.items()}
print(pd.Series([tensor.type.name for tensor in tensors["Q4_0"]]).value_counts().to_dict())
largest = max(tensors["Q4_0"], key=lambda tensor: tensor.num_bytes)
print(f"{largest.name} {largest.shape} is {largest.type.name}: {largest.num_bytes / 1e6:.1f} MB")

# %% [markdown]
# The embedding is the output matrix of this model, too: every token is chosen by it. llama.cpp keeps it in Q8_0, and
# in a model this small it is a third of the file. The label names the type of *most* tensors.
#
# ## Two block formats
#
# Both cut a tensor, row by row, into blocks of 32 weights. A block keeps one scale `d` and 32 codes:
#
# | format | bytes of a block | weight of code q |
# |---|---|---|
# | Q8_0 | `d` as float16 (2 bytes, little endian), then 32 codes as int8 | `d * q` |
# | Q4_0 | `d` as float16, then 16 bytes of two codes each | `d * (q - 8)` |
#
# This is the code that you write. `quantize` takes weights of any shape (float32, the last dimension is a multiple of
# 32), leaves them as they are, and returns one row of bytes a block, `[num_blocks, bytes_per_block]`, uint8.
# `dequantize` takes those rows and returns the weights as float32, `[num_blocks * 32]`. Compute on whole arrays: a
# Python loop over blocks takes 50 times as long. The sections below say how; come back here to write it.


# %%
class Q8_0:
    name = "Q8_0"
    bytes_per_block = 34

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Q2: [..., 32 n] float32 -> [num_blocks, 34] uint8."""
        # BEGIN SOLUTION Q2: about 8 lines
        blocks = x.reshape(-1, 32)
        d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        scaled = blocks * inverse
        codes = np.trunc(scaled)
        codes += np.sign(scaled) * (np.abs(scaled - codes) >= 0.5)
        return np.hstack([d.astype("<f2").view(np.uint8), codes.astype(np.int8).view(np.uint8)])
        # END SOLUTION

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        """Q4: [num_blocks, 34] uint8 -> [num_blocks * 32] float32."""
        # BEGIN SOLUTION Q4: about 3 lines
        d = blocks[:, :2].copy().view("<f2").astype(np.float32)
        codes = blocks[:, 2:].copy().view(np.int8)
        return (d * codes).reshape(-1)
        # END SOLUTION


class Q4_0:
    name = "Q4_0"
    bytes_per_block = 18

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Q3: [..., 32 n] float32 -> [num_blocks, 18] uint8."""
        # BEGIN SOLUTION Q3: about 8 lines
        blocks = x.reshape(-1, 32)
        place = np.abs(blocks).argmax(axis=1)[:, None]
        d = np.take_along_axis(blocks, place, axis=1) / np.float32(-8)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        codes = np.minimum(np.trunc(blocks * inverse + np.float32(8.5)), 15).astype(np.uint8)
        packed = codes[:, :16] | codes[:, 16:] << 4
        return np.hstack([d.astype("<f2").view(np.uint8), packed])
        # END SOLUTION

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        """Q4: [num_blocks, 18] uint8 -> [num_blocks * 32] float32."""
        # BEGIN SOLUTION Q4: about 4 lines
        d = blocks[:, :2].copy().view("<f2").astype(np.float32)
        codes = np.hstack([blocks[:, 2:] & 15, blocks[:, 2:] >> 4])
        return (d * (codes.astype(np.float32) - 8)).reshape(-1)
        # END SOLUTION


# %% [markdown]
# ## Q2 Q8_0
#
# - `d` is the largest magnitude of the block divided by 127: that weight gets the code 127 or -127.
# - A code is the weight times `1 / d`, rounded as C's `roundf` does: to the nearest whole number, and a half **away
#   from zero**. Is that what `np.round` does?
# - A block of zeros has the scale 0: take 0 for `1 / d` then, and let numpy not divide by it.
# - All of it is computed in float32. `d` is stored as float16, but the codes are made with the float32 one.
#
# Bytes, not nearly bytes: the check compares yours with those that the llama.cpp of this computer makes.

# %%
# %llm lab check Q2

# %% [markdown]
# ## Q3 Q4_0
#
# - Four bits are 16 codes, 0 to 15, for the levels -8 to 7. There is one more level below zero than above, so the
#   weight of the largest magnitude is put on level -8: `d` is that weight **with its sign** divided by -8. Of several
#   equal magnitudes the first one counts.
# - A code is the weight times `1 / d`, plus 8.5, without what follows the point; at most 15.
# - A block of zeros: `d` is 0 / -8, minus zero (its sign is a bit, too), and all codes are 8.
# - Byte j of a block holds the code of weight j in its low four bits and that of weight j + 16 in its high four.

# %%
# %llm lab check Q3

# %% [markdown]
# Now the real thing. Every tensor of llama.cpp's two files against what your code makes of the same weights:

# %%
weights = llmlab.models.check_gguf(files["F32"])
q3 = {}
for quantizer in (Q8_0(), Q4_0()):
    num_differing, num_bytes = 0, 0
    for tensor in tensors[quantizer.name]:
        if tensor.type.name == quantizer.name:
            theirs = np.fromfile(files[quantizer.name], np.uint8, tensor.num_bytes, offset=tensor.offset)
            yours = quantizer.quantize(llmlab.models.weights.read_gguf_tensor(weights, tensor.name))
            num_differing += int((yours.ravel() != theirs).sum())
            num_bytes += tensor.num_bytes
    q3[quantizer.name] = (num_differing, num_bytes)

# %%
# %llm lab check Q3

# %% [markdown]
# ## Q4 Back again, and the error
#
# `dequantize` reads the scale back as float16, converts it to float32, and multiplies.
#
# **Predict**: how far is a weight at most from what comes back, in percent of the largest magnitude of its block?
# With Q8_0, with Q4_0: `%llm lab predict Q4 1,6`, or what you think.

# %%
# %llm lab check Q4

# %%
some = llmlab.models.weights.read_gguf_tensor(weights, "blk.0.ffn_down.weight").reshape(-1, 32)
some = some[np.abs(some).max(axis=1) > 0]
q4 = []
for quantizer in (Q8_0(), Q4_0()):
    error = np.abs(quantizer.dequantize(quantizer.quantize(some)).reshape(-1, 32) - some)
    q4.append(round(float(100 * (error.max(axis=1) / np.abs(some).max(axis=1)).max()), 2))

# %%
# %llm lab check Q4

# %% [markdown]
# ## Q5 The size of a model
#
# Write `model_bytes`: how many bytes do these tensors take? Each is a shape and one of the types F32, F16, Q8_0,
# Q4_0. A block of 32 weights has 34 bytes in Q8_0 and 18 in Q4_0. So how many bits does a weight really have?
#
# **Predict**: the weights of the Q8_0 file, in MB. `%llm lab predict Q5 135`, or what you think.


# %%
def model_bytes(tensors: Sequence[tuple[tuple[int, ...], str]]) -> int:
    """Q5: bytes of all tensors; each is (shape, "F32" | "F16" | "Q8_0" | "Q4_0")."""
    # BEGIN SOLUTION Q5: about 2 lines
    bits = {"F32": 32, "F16": 16, "Q8_0": 8.5, "Q4_0": 4.5}
    return sum(int(math.prod(shape) * bits[name]) // 8 for shape, name in tensors)
    # END SOLUTION


# %%
sizes = {q: model_bytes([(t.shape, t.type.name) for t in tensors[q]]) / 1e6 for q in files}
q5 = round(sizes["Q8_0"])
for quant, path in files.items():
    print(f"{quant:5} {sizes[quant]:6.1f} MB of weights, {path.stat().st_size / 1e6:6.1f} MB in the file")

# %%
# %llm lab check Q5

# %% [markdown]
# What a file has beside its weights is mostly the tokenizer: 49,152 tokens and how they are merged.
#
# ## Q6 Measure
#
# Five files of one model. **Predict** their order by decode speed, the fastest first:
# `%llm lab predict Q6 Q4_0,Q4_K_M,Q8_0,F16,F32`, or what you think. And which has the worst perplexity?

# %%
text = llmlab.shipped.shipped("texts/harbour.txt").read_text()[:1500]
rows = {}
for quant in ("F32", "F16", "Q8_0", "Q4_K_M", "Q4_0"):
    with llmlab.load("smollm2-135m", "llamacpp", quant=quant, ctx=512, name=quant) as engine:
        answer = engine.generate("Tell me about the sea.", max_tokens=24, ignore_eos=True)
        perplexity = float(llmlab.perplexity(engine, text))
    rows[quant] = (model.gguf(quant).stat().st_size / 1e6, perplexity, 1 / np.median(answer.itl_s))

# %%
measured = pd.DataFrame(rows, ["MB", "perplexity", "tokens/s"]).T
q6 = ",".join(measured["tokens/s"].sort_values(ascending=False).index)
measured.style.bar(color="#8fabd9", vmin=0).format("{:.1f}")

# %%
# %llm lab check Q6

# %% [markdown]
# For one user a step reads all weights once, so fewer bytes come sooner, as long as unpacking them costs less than
# reading would have. Reading a long prompt is arithmetic instead: there a smaller file may well be slower than F16.
# The KV cache has a type of its own and does not shrink with the weights.
#
# ## Q7 Labels
#
# Q4_K_M and Q5_K_M are "K-quants": blocks of 256 weights with a second level of scales, and some tensors in a finer
# type than others. **Predict**: which of the two has the better perplexity here? `%llm lab predict Q7 Q5_K_M`, or
# what you think.

# %%
with llmlab.load("smollm2-135m", "llamacpp", quant="Q5_K_M", ctx=512, name="Q5_K_M") as engine:
    perplexities = {"Q4_K_M": rows["Q4_K_M"][1], "Q5_K_M": float(llmlab.perplexity(engine, text))}
q7 = min(perplexities, key=perplexities.get)
print(perplexities)

# %%
# %llm lab check Q7

# %%
for quant in perplexities:
    found = llmlab.models.check_gguf(model.gguf(quant)).tensors.values()
    print(quant, pd.Series([tensor.type.name for tensor in found]).value_counts().to_dict())

# %% [markdown]
# A row of this model has 576 weights, and 576 is not a multiple of 256: llama.cpp falls back to another type for most
# tensors, as it does for no large model. What you loaded under the label of a K-quant is something else. Count the
# types, and measure.
#
# ## Q8 Reflect
#
# Eight questions, each asked alone and then all at once, greedily. How many of the eight answers are the same tokens?

# %%
things = "rain snow fog wind ice hail sun dust".split()
q8 = {}
for quant in ("F32", "Q4_K_M"):
    with llmlab.load("smollm2-135m", "llamacpp", quant=quant, ctx=512, seqs=8, name=quant) as engine:
        questions = [f"Write one sentence about {thing}." for thing in things]
        alone = [engine.generate(question, max_tokens=20).token_ids for question in questions]
        together = [result.token_ids for result in engine.batch(questions, max_tokens=20).wait()]
    q8[quant] = sum(one == other for one, other in zip(alone, together, strict=True))
print(q8)

# %% [markdown]
# Two answers, each at least 15 words and with a number from your own runs: **1** Which of the files would you give to
# a class, and which of your figures say so? **2** Of the answers of Q4_K_M only some are the same in a batch. Is that a
# bug? (Think of what is multiplied with the weights: is it rounded, too?)

# %%
# BEGIN SOLUTION -> reflection = ["", ""]
reflection = [
    "Q8_0: it has 145 MB instead of the 540 of F32, decodes faster, and its perplexity is the same within 1 percent; "
    "Q4_0 saves another 53 MB and costs 15 percent more perplexity.",
    "No. A quantized product rounds the activations to 8 bits as well, so a sum that a batch adds up in another order "
    "falls on other codes; with F32 nothing is rounded that coarsely, and 8 of 8 answers are equal.",
]
# END SOLUTION

# %%
# %llm lab check Q8

# %% [markdown]
# ## Hand it in
#
# One page with your predictions, results, hints and pictures:

# %%
# %llm lab report
