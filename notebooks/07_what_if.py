# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What if?
#
# After this notebook you will be able to explain
#
# - why an engine that closes its batches (**static batching**) wastes most of its steps, though each step is as fast;
# - what **blocks** cost and save: their size, the prefixes they share, and what memory was like before them;
# - what a larger KV cache, a smaller step budget or a second worker would have changed in **the same run**;
# - how far to trust a simulation, and how to find out.
#
# No GPU is needed. The runs are real, recorded on an NVIDIA H200; what would have been is **simulated**, and says so.

# %%
# %load_ext llmlab

# %%
import llmlab

trace = llmlab.recorded("burst_of_64")
trace.header.engine, trace.header.device, trace.header.source

# %% [markdown]
# ## First: does it get the original right?
#
# `replay()` sends the same requests at the same moments to our scheduler and our block pool. Instead of a forward pass
# there are prices, fitted to the steps of this very trace: so much a step, so much a token.

# %%
from llmlab.engines.cost_model import fit

fit(trace)

# %%
same = trace.replay()
llmlab.before_after(trace, same)

# %% [markdown]
# Above is what happened, below what the simulator makes of it. Compare the number of steps: nobody told it. Every
# later answer is as good as this picture, and no better. From here on *before* and *after* are both simulated, so that
# their difference is the change alone.
#
# ## What if a batch had to be finished before the next one may begin?
#
# That was the way of serving before 2022. Predict: how many times as many steps?

# %%
static = trace.replay(policy="static")
llmlab.before_after(same, static)

# %% [markdown]
# A step takes as long as before. Look at the white space to the right of each short answer: its seat stays empty until
# the last of its batch is done.
#
# ## What if the blocks were larger?
#
# 24 questions share one long system prompt here. Only full blocks can be shared. Predict: what happens to the tokens
# found in the prefix cache when a block has 128 tokens instead of 16?

# %%
import pandas as pd

shared = llmlab.recorded("shared_prefix")


# %%
def figures(name, run):
    hits = run.steps.num_prefix_hit_tokens.sum()
    waste, tps = llmlab.metrics.waste(run).last_block, llmlab.metrics.throughput_tps(run)
    return {"": name, "found": hits, "empty rest of last blocks": waste, "tok/s (simulated)": tps}


sizes = {size: shared.replay(block_size=size) for size in (4, 16, 32, 64, 128, 256)}
pd.DataFrame([figures(f"blocks of {size}", run) for size, run in sizes.items()]).round(3)

# %% [markdown]
# ## What if there were no blocks?
#
# Before paging, each sequence reserved one run of memory, as long as it could ever become: here 1,024 tokens. The same
# 64 questions with 8,192 tokens of room. Predict: how many run at once?

# %%
reserved = trace.replay(kv="contiguous", max_model_len=1024)
max(step.num_running for step in same.step_records), max(step.num_running for step in reserved.step_records)

# %%
llmlab.before_after(same, reserved)

# %% [markdown]
# Eight reservations fill the memory, though each holds a hundred tokens. The last line of the table says that all of it
# is in use; look at who uses it:

# %%
llmlab.kv_cache(reserved)

# %% [markdown]
# ## What if there had been more memory?
#
# Sixteen long answers in a cache of 1,024 tokens: some are preempted and computed again. Predict: from which size on is
# nobody preempted, and what does the last doubling still bring?

# %%
crowded = llmlab.recorded("preemption")
rooms = {n: crowded.replay(kv_tokens=n) for n in (1024, 1536, 2048, 3072, 4096)}
pd.DataFrame(
    {
        "KV tokens": n,
        "preemptions": llmlab.metrics.num_preemptions(run),
        "computed twice": llmlab.metrics.recomputed_tokens(run),
        "tok/s (simulated)": llmlab.metrics.throughput_tps(run),
    }
    for n, run in rooms.items()
).round(0)

# %% [markdown]
# ## What if there were two of them?
#
# **Data parallel**: two engines, each with a KV cache of its own, share the requests. **Disaggregated**: one computes
# prompts, the other decodes, and the KV travels between them. Both take two machines.
#
# Four of these twelve prompts are long. The model is so small that on an H200 each step takes the same time, whatever
# it computes. So let it be laptops: the prices then follow from the operations and bytes of the model, and the ceilings
# of such a machine, fitted to nothing.

# %%
long = llmlab.recorded("chunked_prefill")
laptop = {"machine": "laptop", "model": "smollm2-135m"}
alone = long.replay(**laptop)
two = long.replay(data_parallel=2, **laptop)
llmlab.before_after(alone, two)

# %%
apart = long.replay(prefill_workers=1, decode_workers=1, link_bytes_per_s=1e9, **laptop)
llmlab.before_after(two, apart)

# %% [markdown]
# Which is better depends on what hurts: the first token, or the gap between two tokens of an answer that already runs.
# Try a link of `1e7` bytes a second. At which speed does the transfer take as long as the prefill?
#
# ## What if it were another machine?
#
# The 64 questions on four machines, with computed prices: a bound to reason with, not a forecast.

# %%
machines = {name: trace.replay(machine=name, model="smollm2-135m") for name in ("laptop", "l4", "a100", "h200")}
{name: round(llmlab.metrics.throughput_tps(run)) for name, run in machines.items()}

# %% [markdown]
# ## An engine to play with
#
# The simulator can be loaded like any engine. It streams at the pace that it computes; its answers say what they are.

# %%
# %llm load smollm2-135m -e simulated --opt machine=laptop

# %%
# %llm Why is the sky blue? -n 24

# %%
# %llm unload

# %% [markdown]
# ## Go on
#
# - In one line: `%llm trace replay datasets/traces/burst_of_64.jsonl.gz --what-if policy=static block=32`.
# - Fit to one run, foretell another: `llmlab.recorded("chunked_prefill").replay(cost=trace)`. How far off is it from
#   what was measured? `benchmarks/bench_simulator.py` asks that of llama.cpp and vLLM.
# - Write a policy of your own and pass it: `trace.replay(policy=MyPolicy())`.
