# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 1: tokens and sampling
#
# After this lab you will be able to explain
#
# - what one decode step hands back: a row of **logits**, one for each of 49,152 tokens, and nothing else;
# - how a row becomes a token: **temperature**, **min-p**, **top-k**, **top-p**, and one random number;
# - why two engines with the same parameters and the same seed may draw from **different distributions**.
#
# It takes about 75 minutes. You write 40 lines of plain Python, and real engines run on them. For each question:
# predict, run, look, write, check. `%llm lab hint Q2` gives a hint; hints cost nothing, your report counts them.

# %%
# %load_ext llmlab
# %llm lab start lab01

# %%
import codecs

import numpy as np

import llmlab
from llmlab.engines.base import SamplingParams
from llmlab.parity.draws import chi_square
from llmlab.quality.loops import find_loop

# %% [markdown]
# **No engine on this computer?** All code is written and checked as on any other, and your predictions are held against
# runs of this notebook that were recorded. Pass over the cells that need an engine, and type a line of these where the
# lab fills that variable:
#
# ```python
# q1 = [one.num_prompt_tokens for one in llmlab.labs.recorded("q1").results]
# q2 = llmlab.labs.recorded("q2").results[0].tokens
# q3 = llmlab.labs.recorded("q3").results[0]
# q3_mine = logprob(llmlab.labs.recorded("q3_logits"), q3.token_ids[0])
# logits = llmlab.labs.recorded("q4_logits")
# q4 = int(np.count_nonzero(Sampler().probs(logits, SamplingParams(0.7, 40, 0.95, 0.05))))
# hot = SamplingParams(temperature=1.5, top_p=0.9, min_p=0.02)
# q5 = chi_square(llmlab.labs.recorded("q5_draws"), Sampler().probs(logits, hot))
# q5_usual = chi_square(llmlab.labs.recorded("q5_draws_usual"), Sampler().probs(logits, hot))
# q6 = llmlab.labs.recorded("q6")
# ```
#
# The 2,000 draws are those of llama.cpp's own sampler, in the order of this lab and in its usual one.

# %%
# %llm load smollm2-135m -e llamacpp -q F16 --ctx 1024 --as ours

# %%
ours = llmlab.current()

# %% [markdown]
# ## Q1 A token is not a word
#
# A model reads and writes **tokens**: pieces of text that were frequent when its tokenizer was made. **How many tokens
# is `strawberry`? How many is ` strawberry`, with the space in front? How many is one 😀?** Write your guess down
# before you run the next cells: `%llm lab predict Q1 1,1,1`, or what you think.

# %%
q1 = [len(ours.tokenize(text)) for text in ("strawberry", " strawberry", "😀")]

# %%
# %llm lab check Q1

# %% [markdown]
# Here is what the model sees. How many letters r does it see in `strawberry`? What does it see of a number?

# %%
# %llm tokens strawberry, a strawberry, 2026 and 😀

# %% [markdown]
# ## Q2 Half a character
#
# Tokens are **bytes**, and a character may take up to four of them, in several tokens. Somebody who shows each token at
# once shows broken characters: �. Here the model is made to say one emoji. **After which token does the 😀 appear?**
# `%llm lab predict Q2 1`, or what you think.

# %%
q2 = list(ours.stream("Send me a smile.", choice=["😀"]))
[(piece, event.text) for event, piece in zip(q2, ours.pieces(event.token_id for event in q2), strict=True)]

# %% [markdown]
# Every engine has a `StreamDecoder`. Write one: bytes of tokens go in, whole characters come out.
#
# - `push()` shows a character as soon as its last byte is there, and never half of one;
# - it never holds back more than the bytes of one character: what is whole is shown at once;
# - bytes that can never become a character are shown as �, and do not hold up the rest;
# - `flush()` is called at the end: an answer that stops inside a character ends with one �.


# %%
class StreamDecoder:
    """Bytes of tokens in, whole characters out. One object for each answer."""

    def __init__(self) -> None:
        # BEGIN SOLUTION -> self.held = b""  # bytes that are no whole character yet
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # END SOLUTION

    def push(self, piece: bytes) -> str:
        """The characters that are whole now."""
        # BEGIN SOLUTION Q2: 1 to 12 lines
        return self.decoder.decode(piece)
        # END SOLUTION

    def flush(self) -> str:
        """The end: one � if bytes are left."""
        # BEGIN SOLUTION Q2: 1 or 2 lines
        return self.decoder.decode(b"", final=True)
        # END SOLUTION


# %%
# %llm lab check Q2

# %% [markdown]
# Now on a real stream. Your decoder should show the same text after the same tokens as the engine:

# %%
q2_stream = list(ours.stream("Say it.", choice=["Grüße 😀 aus 東京!"]))
decoder, token_ids = StreamDecoder(), [event.token_id for event in q2_stream[:-1]]  # the last one is the end
q2_mine = [decoder.push(piece) for piece in ours.pieces(token_ids)]
list(zip(q2_mine, (event.text for event in q2_stream), strict=False))

# %%
# %llm lab check Q2

# %% [markdown]
# ## Q3 From logits to log probabilities
#
# A decode step gives one number for each token of the vocabulary: its **logit**. The probability of token *i* is
# `exp(logit[i]) / sum(exp(logits))`, the **softmax**. Engines report its natural logarithm, the **logprob**.
#
# **Predict** the logprob of the first token that the model says after `The capital of France is`. A probability of 50 %
# is about -0.7, 10 % about -2.3, 1 % about -4.6. `%llm lab predict Q3 -2.3`, or what you think.

# %%
sentence = "The capital of France is"
q3 = ours.generate(sentence, raw=True, max_tokens=1, logprobs=8)
llmlab.tokens(q3)

# %% [markdown]
# Now compute it from the logits. Beware: `exp(800)` is infinite, and some models have logits like that. Subtract the
# largest logit first: the softmax does not change.


# %%
def logprob(logits: np.ndarray, token_id: int) -> float:
    """Natural log of the probability of a token, of logits as large as you like. logits: [vocab_size]."""
    # BEGIN SOLUTION Q3: about 3 lines
    shifted = logits.astype(np.float64) - logits.max()
    return float(shifted[token_id] - np.log(np.exp(shifted).sum()))
    # END SOLUTION


# %%
# %llm lab check Q3

# %%
q3_mine = logprob(ours.logits(sentence)[-1], q3.token_ids[0])
print(f"yours {q3_mine:.4f}, the engine's {q3.logprobs[0]:.4f}")

# %%
# %llm lab check Q3

# %% [markdown]
# ## Q4 The sampler
#
# From logits to probabilities, in **this order** (vLLM's; the order is a part of the contract):
#
# 1. `temperature`: divide the logits by it, then softmax. 0 means greedy: all probability to the largest logit, to the
#    lowest id among equal ones.
# 2. `min_p`: keep tokens with p >= min_p × the largest p. 0 = off.
# 3. `top_k`: keep the k most likely. 0 = off. Among equal ones the lower id stays.
# 4. `top_p`: of what is left, made to sum to 1 again, keep a token while the mass strictly **in front of it** is below
#    top_p. 1 = off: skip it, sums of floats would cut the tail.
#
# Every cut token gets exactly 0, the rest sums to 1. Do not write into the logits: the engine still needs them.
#
# **Predict**: the question is `Name a colour.`, with temperature 0.7, min_p 0.05, top_k 40 and top_p 0.95. How many of
# the 49,152 tokens survive? `%llm lab predict Q4 40`, or what you think.


# %%
class Sampler:
    """Logits to a token. An engine calls draw(probs(logits, params), u) with a random u of the request's own."""

    def probs(self, logits: np.ndarray, params: SamplingParams) -> np.ndarray:
        """Q4: [vocab_size] -> [vocab_size]; sums to 1, exactly 0 where cut. Does not change the logits."""
        # BEGIN SOLUTION Q4: about 18 lines
        if params.temperature == 0:
            probs = np.zeros_like(logits)
            probs[logits.argmax()] = 1
            return probs
        probs = np.exp((logits - logits.max()) / params.temperature)
        probs /= probs.sum()
        probs[probs < params.min_p * probs.max()] = 0
        left = np.flatnonzero(probs)
        order = left[np.argsort(-probs[left], kind="stable")]  # the most likely first, of equal ones the lower id
        ranked = probs[order]
        if params.top_k:
            ranked[params.top_k :] = 0
        ranked /= ranked.sum()
        if params.top_p < 1:
            ranked[ranked.cumsum() - ranked >= params.top_p] = 0
        probs[order] = ranked / ranked.sum()
        return probs
        # END SOLUTION

    def draw(self, probs: np.ndarray, u: float) -> int:
        """Q5: the first id whose cumulative sum exceeds u, 0 <= u < 1; never an id of probability 0."""
        # BEGIN SOLUTION Q5: about 2 lines
        sums = probs.cumsum(dtype=np.float64)
        return int(np.searchsorted(sums, u * sums[-1], side="right"))
        # END SOLUTION


# %%
# %llm lab check Q4

# %% [markdown]
# The logits of a real question. `prompt_token_ids` has what the chat template added around it:

# %%
question = "Name a colour."
asked = ours.generate(question, max_tokens=1).prompt_token_ids
logits = ours.logits(asked)[-1]
params = SamplingParams(temperature=0.7, min_p=0.05, top_k=40, top_p=0.95)
kept = Sampler().probs(logits, params)
q4 = int(np.count_nonzero(kept))
{ours.detokenize([i]): round(float(kept[i]), 3) for i in np.argsort(-kept)[:q4]}

# %%
# %llm lab check Q4

# %% [markdown]
# llama.cpp's **usual order** is another one: it filters first, and applies the temperature last. Your sampler can do
# that, too: once with the filters at temperature 1, then once more with the temperature alone.


# %%
def usual_order(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The same filters in llama.cpp's usual order: what is left at temperature 1, then the temperature."""
    filters = SamplingParams(min_p=params.min_p, top_k=params.top_k, top_p=params.top_p)
    left = Sampler().probs(logits, filters)
    return Sampler().probs(np.log(left + 1e-30), SamplingParams(temperature=params.temperature))


# %%
q4_usual = np.count_nonzero(usual_order(logits, params) > 1e-9)
print("tokens that survive:", q4, "in this order,", q4_usual, "in the other")

# %% [markdown]
# ## Q5 Draw
#
# Inverse of the cumulative sum: think of the probabilities as pieces of a line from 0 to 1, and of u as a point on it.
# In which piece does it lie? Write `draw` in the cell above.
#
# How do you know that 2,000 draws follow the probabilities? Count, and add up (observed - expected)² / expected over
# all tokens that are expected at least 5 times. This is **chi-square**. **Predict**: of 2,000 draws that are right,
# spread over some 115 such tokens, how large is it? `%llm lab predict Q5 0`, or what you think.

# %%
# %llm lab check Q5

# %%
mine = llmlab.load("smollm2-135m", engine="llamacpp", quant="F16", name="mine", ctx=1024, sampler=Sampler)
hot = {"temperature": 1.5, "top_p": 0.9, "min_p": 0.02}
run = mine.batch([question] * 2000, max_tokens=1, **hot)  # each request has a seed of its own: 0, 1, 2, ...
expected = Sampler().probs(logits, SamplingParams(**hot))
q5 = chi_square([one.token_ids[0] for one in run.wait()], expected)
print(q5)

# %%
# %llm lab check Q5

# %% [markdown]
# The same draws, held against llama.cpp's usual order. Would chi-square have told you that the orders differ?

# %%
q5_usual = chi_square([one.token_ids[0] for one in run.results], usual_order(logits, SamplingParams(**hot)))
mine.unload()
print(q5_usual)

# %% [markdown]
# And two samplers that you did not write: llama.cpp's own chain, which llmlab builds in the order of this lab, and
# vLLM's. Where vLLM does not run (macOS, Windows), take `engine="torch"`.

# %%
other = llmlab.load("smollm2-135m", engine="vllm", name="other", ctx=512)

# %%
q5_others = []
for engine in (ours, other):
    drawn = engine.batch([question] * 400, max_tokens=1, **hot).wait()
    q5_others.append(chi_square([one.token_ids[0] for one in drawn], expected))
    print(engine.engine, q5_others[-1])

# %% [markdown]
# Both logprobs of Q3 once more, from vLLM. Neither knows of a temperature: logprobs are those of the model, before
# temperature and filters.

# %%
q3_other = other.generate(sentence, raw=True, max_tokens=1, logprobs=8, temperature=2.0, top_k=1)
print(f"{other.engine} {q3_other.logprobs[0]:.4f}, llamacpp {q3.logprobs[0]:.4f}")

# %%
# %llm lab check Q3

# %% [markdown]
# ## Q6 Why greedy repeats itself
#
# Greedy decoding takes the most likely token, always. What was said before makes itself more likely. **Predict**: six
# prompts, 160 tokens each, greedy. How many of the six answers end in a loop, the same words again and again?
# `%llm lab predict Q6 6`, or what you think.

# %%
prompts = [
    "Write a poem about rain.",
    "Why is the sky blue?",
    "Name three uses of a brick.",
    {"prompt": "The best way to learn is", "raw": True},
    {"prompt": "Once upon a time", "raw": True},
    {"prompt": "The three most important things in life are", "raw": True},
]
q6 = ours.batch(prompts, max_tokens=160)
for one in q6.wait():
    print(find_loop(one.token_ids), repr(one.text[-60:]))

# %%
# %llm lab check Q6

# %% [markdown]
# Those that did, with a temperature. Where did the loops go?

# %%
looped = [prompt for prompt, one in zip(prompts, q6.results, strict=True) if find_loop(one.token_ids)]
[find_loop(one.token_ids) for one in ours.batch(looped, max_tokens=160, temperature=0.8).wait()]

# %% [markdown]
# ## Q7 Reflect
#
# Both engines, one prompt, temperature 0.8, one seed:

# %%
q7 = llmlab.compare("Name a colour.", engines=[ours, other], temperature=0.8, seed=1, max_tokens=24)
llmlab.side_by_side(q7)

# %% [markdown]
# Two answers, each at least 15 words and with a number from your own runs: **1** Same model, same parameters, same
# seed: why do two engines not give one text? **2** Somebody says: "top-p 0.9 keeps 90 % of the tokens, and its place
# in the chain does not matter." What do you answer?

# %%
# BEGIN SOLUTION -> reflection = ["", ""]
reflection = [
    "The seed starts another random generator in each engine, and logits differ in the last bits: both draw among the "
    "same 5 tokens that survived in Q4, but with other random numbers.",
    "It keeps 90 % of the probability, which was 5 of 49,152 tokens here; and cutting before the temperature kept more "
    "tokens than cutting after it.",
]
# END SOLUTION

# %%
# %llm lab check Q7

# %%
# %llm unload --all

# %% [markdown]
# ## Hand it in
#
# One page with your predictions, results, hints and pictures:

# %%
# %llm lab report
