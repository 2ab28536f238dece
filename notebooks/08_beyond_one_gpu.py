# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Beyond one GPU
#
# After this notebook you will be able to explain
#
# - what two GPUs gain that share every layer (**tensor parallel**), and why it is not twice as much;
# - why their KV cache has **more than twice** the room;
# - what a **pipeline** is, where its bubbles come from, and for whom it is no faster at all;
# - when two small engines are better than one large one, and when prompts and answers want machines of their own.
#
# No GPU is needed. What was measured on GPUs was recorded there; what is computed says **computed** or **simulated**.
# Each part begins with a question. Write your answer down before you run the next cell: it is worth more when wrong.

# %%
# %load_ext llmlab

# %%
import json
from statistics import median

import pandas as pd

import llmlab
from llmlab.shipped import shipped
from llmlab.views import plots

# %% [markdown]
# ## Two GPUs that share every layer
#
# A model in the shape of Llama-3-8B, 16 GB of weights in bfloat16. Each of two GPUs has half of every matrix, computes
# half of every layer for **every** request, and after each half layer the two add their results up: an **all-reduce**,
# twice a layer. Predict: with how many times the tokens a second, when 1, 32 or 256 requests run at once?

# %%
predicted = {1: 2.0, 32: 2.0, 256: 2.0}  # requests -> gain of two GPUs: yours, please

# %%
files = {int(path.stem.split("_")[1][2:]): path for path in sorted(shipped("traces").glob("vllm_tp*_8b.json"))}
measured = {gpus: json.loads(path.read_text()) for gpus, path in files.items()}
{f"{gpus} GPUs": run["machine"]["gpu"] for gpus, run in measured.items()}


# %%
def rate(gpus, requests, on):
    series = measured[gpus]["series"]
    return median(series[f"8B-shaped bfloat16, {requests} requests: llmlab on {on}"]["values"])


def gain(gpus, requests):
    one, all_of_them = rate(gpus, requests, "one GPU"), rate(gpus, requests, f"{gpus} GPUs")
    you = predicted[requests] if gpus == 2 else None
    told = {"tok/s on one": one, "tok/s on all": all_of_them, "gain": all_of_them / one, "you said": you}
    return {"GPUs": gpus, "requests": requests, **told}


# %%
pd.DataFrame([gain(gpus, requests) for gpus in measured for requests in predicted]).round(2)

# %% [markdown]
# Measured by `benchmarks/bench_vllm.py`, vLLM through our handle, traced; every run has its own "one GPU".
#
# ## Where the rest went
#
# With one request a step makes one token, so its time is one over the rate. Almost all of a step is reading the weights
# from memory. Predict: how much of it is left on each of two GPUs, and what is an all-reduce of 8 kB worth?
#
# How fast the memory really was, nobody measured here. So take a range: a share of what the data sheet says. What two
# GPUs need beyond half of the reading, and the same rest of a step, went into 64 all-reduces.

# %%
from llmlab.engines.cost_model import MACHINES, AllReduce, Machine, RooflineCost, Work
from llmlab.models import ModelConfig

shape = ModelConfig("llama", 32, 4096, 14336, 32, 8, 128, 128256, max_model_len=8192)
sheet = next(MACHINES[name] for name in ("h200", "h100", "a100") if name in measured[2]["machine"]["gpu"].lower())
one_ms, two_ms = (1000 / rate(2, 1, on) for on in ("one GPU", "2 GPUs"))
weights_bytes = RooflineCost.of(shape, sheet).weights_bytes
{"weights, GB": round(weights_bytes / 1e9, 1), "a step on one GPU, ms": round(one_ms, 2), "on two": round(two_ms, 2)}


# %%
def account(share):
    read_ms = 1000 * weights_bytes / (share * sheet.bytes_per_s)
    all_reduces_us = 1000 * (two_ms - (one_ms - read_ms / 2))
    told = {"reading, ms": read_ms, "rest of a step, ms": one_ms - read_ms, "all-reduces, us": all_reduces_us}
    return {f"of {sheet.bytes_per_s / 1e12:g} TB/s": share, **told, "each, us": all_reduces_us / (2 * shape.num_layers)}


pd.DataFrame([account(share) for share in (1.0, 0.9, 0.8)]).round(2)

# %% [markdown]
# Two reasons then: the rest of a step (launching, scheduling, sampling) is done by everybody and does not halve, and
# the all-reduces come on top. They carry 8 kB each: what they cost is **waiting for each other**, not bytes.
#
# So the link decides. Predict: does tensor parallel still help across two machines, over 100 or 10 Gbit/s Ethernet?
# Computed, with a guess of the time one message takes:

# %%
rest_s, each_s = (account(0.8)[name] / 10**n for name, n in (("rest of a step, ms", 3), ("each, us", 6)))
machine = Machine(f"{sheet.name}, as measured", sheet.flops, sheet.bytes_per_s, step_s=rest_s, efficiency=0.8)
alone = RooflineCost.of(shape, machine)
guesses = {"PCIe": (25e-6, 2.5e10), "100 Gbit/s": (40e-6, 1.2e10), "10 Gbit/s": (80e-6, 1.2e9)}  # (s, bytes/s)
links = {
    name: AllReduce(shape.num_layers, 2 * shape.hidden_size, *told)
    for name, told in {"NVLink, as measured": (each_s, 3e11), **guesses}.items()
}


# %%
def decode(requests):
    return Work(0, requests, 256 * requests, 256 * requests)  # one token each, after some 256


def over(name, requests):
    return alone.seconds(decode(requests)) / alone.split(2, links[name]).seconds(decode(requests))


pd.DataFrame({f"{n} requests": {name: over(name, n) for name in links} for n in (1, 32, 256)}).round(2)

# %% [markdown]
# The first row is also the test of this little model: compare it with what was measured above. It was fitted to one
# request, so it must be right there, and only there. Below 1 two machines are slower than one.
#
# ## Look at it
#
# One scheduler plans for all workers; each computes its part of the plan. So a trace of two GPUs looks like a trace of
# one, with more blocks and shorter steps. What is there to look at here?

# %%
runs = {way: llmlab.recorded(f"burst_of_64_{way}") for way in ("tp1", "tp2")}


# %%
def figures(trace):
    head, steps = trace.header, trace.step_records
    told = {"device": head.device, "blocks": head.num_blocks, "KV cache, MB": round(head.kv_cache_bytes / 1e6)}
    told |= {"steps": len(steps), "most requests in one": max(len(step.scheduled) for step in steps)}
    return {**told, "tok/s": round(llmlab.metrics.throughput_tps(trace), 1)}


print(runs["tp1"].header.model)
pd.DataFrame({name: figures(trace) for name, trace in runs.items()})

# %%
llmlab.before_after(runs["tp1"], runs["tp2"])

# %% [markdown]
# The same plan, step by step: one GPU had blocks enough for all 32 seats. The second one makes each step shorter, by
# less than half: every layer waits twice for what the other GPU has computed.
#
# Where the cache is small, its blocks count more. Worker processes on a CPU, 32 MB of cache each; predict the steps:

# %%
small = {way: llmlab.recorded(f"burst_of_16_cpu_{way}") for way in ("tp1", "tp2")}
pd.DataFrame({way: figures(trace) for way, trace in small.items()})

# %% [markdown]
# Twice the blocks let more requests run at once, so there are fewer steps, and each has more to do. The times of these
# two say little: their cores had other work as well, and were the same two.
#
# ## The KV cache of two
#
# A block is a run of tokens in **all** layers and KV heads. Each of two GPUs keeps half of the heads, so half of each
# block. Predict: an 8B model on GPUs of 24 GB. How many times the tokens has the cache of two, compared with one? Of
# four? And on GPUs of 141 GB?

# %%
from llmlab.models import kv_bytes_per_token


def kv_tokens(gpu_gb, gpus):
    """At most: of 90 % of the memory, what the weights leave. vLLM needs some for activations, too."""
    left = 0.9 * gpu_gb * 1e9 * gpus - weights_bytes
    return int(left // kv_bytes_per_token(shape))


room = pd.DataFrame({f"{gb} GB": {gpus: kv_tokens(gb, gpus) for gpus in (1, 2, 4)} for gb in (24, 80, 141)})
pd.concat({"tokens": room, "times": (room / room.loc[1]).round(1)}, axis=1)

# %% [markdown]
# The weights are there **once**, however many GPUs: what the second one brings is nearly all cache. More cache means
# larger batches and fewer preemptions. Predict: sixteen long answers in a cache of 1,024 tokens, recorded on one GPU;
# some are preempted. What if two GPUs had run it, with twice the blocks and nothing else? (Simulated.)

# %%
crowded = llmlab.recorded("preemption")
doubled = {gpus: crowded.replay(tensor_parallel=gpus) for gpus in (1, 2, 4)}
pd.DataFrame(
    {
        "GPUs": gpus,
        "blocks": run.header.num_blocks,
        "preemptions": llmlab.metrics.num_preemptions(run),
        "computed twice": llmlab.metrics.recomputed_tokens(run),
        "steps": len(run.steps),
    }
    for gpus, run in doubled.items()
)

# %% [markdown]
# ## A pipeline
#
# Another way to cut a model in two: the first GPU has layers 0 to 15, the second 16 to 31. Between them travels one
# vector a token, **once** a step and not 64 times: a slow link will do. Predict: how much faster is one request?

# %%
from llmlab.engines.pipeline import bubble, pipeline

step_s = alone.seconds(decode(1))
plots.stages(pipeline([step_s] * 6, 2, num_in_flight=1))

# %% [markdown]
# Not at all: its next token needs the one before, so one of the two always waits. That is a **bubble**. With two groups
# of requests, each in a batch of its own, the stages take turns:

# %%
plots.stages(pipeline([step_s] * 6, 2))

# %% [markdown]
# That is what vLLM does. In a trace of a real pipeline (recorded, two workers on a CPU) most neighbouring steps have no
# request in common; with tensor parallel all have some. How many of how many pairs:

# %%
from itertools import pairwise


def turns_taken(trace):
    batches = [{row.request_id for row in step.scheduled} for step in trace.step_records]
    return sum(one.isdisjoint(other) for one, other in pairwise(batches)), len(batches) - 1


{way: turns_taken(llmlab.recorded(f"burst_of_16_cpu_{way}")) for way in ("tp2", "pp2")}

# %% [markdown]
# Batches are not alike, though: some have a prompt in them. Predict: what does one long batch in four do to the others?

# %%
uneven = [step_s * (4 if batch % 4 == 0 else 1) for batch in range(16)]
plots.stages(pipeline(uneven, 2))

# %% [markdown]
# Chunked prefill keeps steps alike, and so keeps a pipeline full. How much of their time do eight stages wait, by the
# number of batches that are on their way?

# %%
{n: round(bubble(pipeline([step_s] * 200, 8, num_in_flight=n)), 2) for n in (1, 2, 4, 8)}

# %% [markdown]
# ## Four ways to use two GPUs
#
# | | each GPU has | they exchange |
# |---|---|---|
# | tensor parallel (TP) | half of every layer | all-reduces, twice a layer |
# | pipeline parallel (PP) | half of the layers | one vector a token, once a step |
# | data parallel (DP) | the whole model | nothing |
# | disaggregated | the whole model | the KV of each prompt, once |
#
# Predict for 1, 32 and 512 requests: which way makes most tokens a second, and with which does one answer come fastest?


# %%
def ways(requests):
    """Tokens a second of all, and ms between two tokens of one answer; computed, for decode alone."""
    one_s, half_s = (alone.seconds(decode(n)) for n in (requests, -(-requests // 2)))  # half: of two batches or engines
    tp_s = alone.split(2, links["NVLink, as measured"]).seconds(decode(requests))
    found = {"one GPU": one_s, "TP 2": tp_s, "PP 2": half_s, "DP 2": half_s}
    return {way: f"{requests / took_s:,.0f} tok/s, {1000 * took_s:.1f} ms" for way, took_s in found.items()}


pd.DataFrame({f"{n} requests": ways(n) for n in (1, 32, 512)})

# %% [markdown]
# - **TP** alone makes one answer faster, and it helps at every load: it halves the reading.
# - **PP** and **DP** do nothing for few requests, which read the weights as slowly as before. They gain when a step has
#   so many requests that computing and their KV take longer than the weights.
# - PP costs no second copy of the weights: the memory of DP went into one, that of PP into KV cache. DP needs no link,
#   and when one engine dies the other goes on.
#
# ## Whole runs
#
# The same for real requests: prompts and answers of a recorded trace, the prices of this 8B model on that GPU.
# Four of the twelve prompts are long. Watch the longest gap: somebody reads an answer while a long prompt comes in.

# %%
long = llmlab.recorded("chunked_prefill")
settings = {"cost": alone, "model": shape, "kv_tokens": 40_000, "token_budget": 2048, "max_num_seqs": 64}
choices = {
    "one GPU": {},
    "TP 2": {"cost": alone.split(2, links["NVLink, as measured"])},
    "DP 2": {"data_parallel": 2},
    "prefill | decode": {"prefill_workers": 1, "decode_workers": 1},
}
simulated = {way: long.replay(**{**settings, **change}) for way, change in choices.items()}


# %%
def latencies(trace):
    times = llmlab.metrics.request_times(trace).values()
    firsts = [llmlab.metrics.ttft_s(one) for one in times]
    gaps = [gap for one in times for gap in llmlab.metrics.itl_s(one)]
    told = {"tok/s": llmlab.metrics.throughput_tps(trace)}
    for name, values in {"first token, ms": firsts, "gap, ms": gaps}.items():
        told |= {f"{name}: median": 1000 * median(values), f"{name}: longest": 1000 * max(values)}
    return told


pd.DataFrame({way: latencies(trace) for way, trace in simulated.items()}).T.round(1)

# %%
llmlab.before_after(simulated["DP 2"], simulated["prefill | decode"])

# %% [markdown]
# ## One large machine, or two small ones?
#
# First: does it fit? Weights of 16 bits, on GPUs of which 90 % may be used; a fifth of that is left for the KV cache.
# Predict for a model of 70 billion parameters.

# %%
sizes = {"8B": 8.03e9, "32B": 32.8e9, "70B": 70.6e9}
memories = {"l4": 24, "a100": 80, "h200": 141}
pd.DataFrame(
    {gpu: {name: -(-2 * n // (0.9 * 0.8 * gb * 1e9)) for name, n in sizes.items()} for gpu, gb in memories.items()}
).astype(int)

# %% [markdown]
# What does not fit must be split, TP inside a machine, PP between machines. What fits has a choice. 64 requests at once
# for the 8B model: an H200 (4.8 TB/s), two A100s (4.1 together), eight L4s (2.4, no NVLink). Predict who is first by
# tokens a second, and who by the gap between two tokens. Simulated, with the 60 % of a data sheet that kernels reach:


# %%
def fleet(name, num_gpus, *, engines=1, link="NVLink, as measured"):
    cost = RooflineCost.of(shape, MACHINES[name])
    if engines < num_gpus:
        cost = cost.split(num_gpus // engines, links[link])
    return latencies(burst.replay(**{**settings, "cost": cost, "data_parallel": engines}))


burst = llmlab.recorded("burst_of_64")
fleets = {"h200": fleet("h200", 1), "2 a100, TP": fleet("a100", 2), "2 a100, DP": fleet("a100", 2, engines=2)}
fleets["8 l4, TP"], fleets["8 l4, DP"] = fleet("l4", 8, link="PCIe"), fleet("l4", 8, engines=8)
pd.DataFrame(fleets).T.round(1)

# %% [markdown]
# | you have | take | because |
# |---|---|---|
# | a model that fits, many users | an engine on each GPU (DP) | nothing is exchanged, nothing is shared, one may die |
# | a model that fits, and each answer must be fast | TP, over NVLink | only TP makes a single step shorter |
# | a model that just fits | TP 2 | the weights are there once: most of the second GPU is KV cache |
# | a model that does not fit into a machine | TP inside, PP between | 64 all-reduces a step want the fast link |
# | long prompts, and gaps that must stay short | prefill and decode apart | no prompt is in the batch of an answer |
# | the price of one large GPU or two small | the large one | no all-reduce, one copy of the weights; but it is one |
#
# ## On machines of yours
#
# - Two GPUs in the machine: `%llm load MODEL -e vllm --opt tensor_parallel_size=2` (or `pipeline_parallel_size=2`). The
#   handle, the live views and the trace are those of one GPU. On a CPU the same starts two worker processes.
# - Two machines with GPUs: `vllm serve` on a Ray cluster, connected with `%llm connect URL --trace`:
#   `docs/several_gpus.md`. To see that on a laptop: `python deploy/ray/two_nodes.py` makes two nodes of one machine.
# - Record what you see here on your own GPUs: `python -m benchmarks.record_traces --workers tp1 tp2`.
#
# ## Go on
#
# 1. From how many requests on is DP 2 faster than TP 2 in tokens a second? Why does it have to do with KV?
# 2. `long.replay(..., prefill_workers=1, decode_workers=1, link_bytes_per_s=1e9)`: at which rate does the way of the KV
#    take as long as the prefill itself?
# 3. A pipeline of four stages, TP 2 in each: how many all-reduces, how many hops has a step of 32 layers?
# 4. Eight GPUs, a 70B model: TP 8, or two engines of TP 4? What would you have to know about the load?
