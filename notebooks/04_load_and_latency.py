# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Load and latency
#
# After this notebook you will be able to explain
#
# - why an engine that serves one user in a blink can make the tenth wait, and what **open loop** and **closed loop**
#   have to do with it;
# - what **throughput**, **TTFT**, **TPOT** and **goodput** say, and what each of them hides;
# - where the **knee** of a throughput-latency curve is, and why one does not run an engine beyond it.
#
# Everything here runs on one real engine, llama.cpp, on this machine. The figures are yours: on a busy laptop they are
# smaller, and the spread between two repeats is larger.

# %%
# %load_ext llmlab

# %%
# %llm load smollm2-135m -e llamacpp -q Q4_1 --ctx 512 --seqs 8 --as q4

# %% [markdown]
# ## What is asked
#
# A measurement is worth what its **workload** is worth. These come with llmlab; each has a data sheet in
# `datasets/workloads/`.

# %%
from llmlab.bench import workloads

for name, workload in workloads().items():
    print(f"{name:21} {workload.load:g} {workload.load_unit}: {workload.about.split('.')[0]}.")

# %% [markdown]
# ## Closed loop: users who wait
#
# Each of N users sends a question, waits for the answer, and sends the next one. Predict before you run: with 4 users
# instead of 1, does each user wait four times as long? Does the engine write four times as many tokens in a second?

# %%
# %llm bench --workload closed_loop --sweep 1,2,4,8 -n 8 --repeats 1 -o closed

# %% [markdown]
# Read the first picture from left to right. As long as the line runs to the right, more users get more out of the
# engine: one forward pass serves them all, and the weights are read once for all of them. Where it turns upward, the
# arithmetic is the limit: from there on, more users only wait longer. That is the knee.

# %%
print(closed.knee().sentence)

# %% [markdown]
# ## Open loop: users who come anyway
#
# In real life nobody waits for a stranger's answer before asking. Requests arrive at random times (a Poisson process),
# however busy the engine is. Above its capacity the queue grows for as long as the load lasts.

# %%
# %llm bench --workload poisson --sweep 1,4,16 -n 10 --repeats 1 --slo ttft=0.5 -o opened

# %% [markdown]
# The same engine, and three loads. Compare the median TTFT with its p99: who pays when a queue forms?
#
# **Goodput** counts only the requests that met your limit, here a first token within half a second. Throughput may
# rise with the load while goodput falls: the engine is busy with answers that come too late to please anybody.

# %%
opened.table()[["load", "throughput_tps", "goodput_rps", "ttft_p50_s", "ttft_p99_s", "tpot_p50_s"]].round(3)

# %% [markdown]
# ## Is the generator itself honest?
#
# The clock of a request starts when it was **due**, not when the engine had time for it. A generator that waits for a
# slow engine before it sends the next request would hide the queue; that mistake is called coordinated omission. How
# late was the latest request, the forward pass that ran in that moment not counted? And what did the notebook itself
# take from the processor?

# %%
for m in opened.measurements:
    late_ms = 1000 * m.schedule_error_s
    print(f"load {m.load:g}: latest {late_ms:.1f} ms, notebook {m.notebook_cpu_s:.2f} s of processor time")

# %% [markdown]
# ## What a shared prefix is worth
#
# A company assistant has the same long instructions before every question. The prefix cache computes them once. The
# column `hits` says which share of the prompt tokens was found there.

# %%
# %llm bench --workload shared_system_prompt --sweep 2 -n 6 --repeats 1

# %% [markdown]
# ## Unload

# %%
# %llm unload --all

# %% [markdown]
# ## Go on
#
# - `--repeats 3` shows how far repeats are apart. Which of the differences above would you still report?
# - `%llm bench -e A B --sweep 1,2,4 --report choice.html --price 0.5` measures two engines and writes a report that
#   chooses one, with its reasons. Which figure would have to change for the other to win?
# - Write a workload of your own: copy one of the JSON files, change it, and give `--workload` its path.
