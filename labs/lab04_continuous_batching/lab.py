# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 4: continuous batching
#
# After this lab you will be able to explain
#
# - what a **scheduler** decides in each step of an engine;
# - why **chunked prefill** keeps the gaps between the tokens of running answers short, and what it costs;
# - what **preemption** throws away, and what **fairness** between users costs whom.
#
# It takes about 90 minutes. You write 60 lines of plain Python, and **llama.cpp** is scheduled by them. For each
# question: predict, run, look, write, check. `%llm lab hint Q2` gives a hint; hints cost nothing, your report counts
# them.

# %%
# %load_ext llmlab
# %llm lab start lab04

# %%
from dataclasses import replace

# %%
import llmlab

# %%
from llmlab.scheduling.contracts import RequestView, SchedulerState

# %% [markdown]
# ## The workload
#
# Fourteen requests. Twelve have short prompts and come one after the other, one in three steps; two have long prompts
# and come before steps 12 and 20. The engine has 8 seats: at most 8 sequences run at a time.

# %%
shape = [(10 + 7 * i % 31, 8 + 23 * i % 57, 3 * i) for i in range(12)] + [(240, 16, 12), (230, 16, 20)]
work = [
    {"prompt": list(range(1000 + 500 * i, 1000 + 500 * i + prompt)), "max_tokens": answer, "arrival_step": step}
    for i, (prompt, answer, step) in enumerate(shape)
]
room = {"engine": "llamacpp", "quant": "F16", "seqs": 8, "kv_tokens": 2048, "step_tokens": 512}
room["options"] = {"prefix_caching": False}
print(*shape)

# %% [markdown]
# ## Q1 Look at a static batch
#
# Before 2022 a batch was closed: who comes later waits until its last answer is complete. llmlab has such a policy,
# by the name `static`. **In what share of the seats does nobody sit, while others wait?** A share is a number from 0
# to 1. Write your guess down before you run the next cells: `%llm lab predict Q1 0.1`, or what you think.

# %%
with llmlab.load("smollm2-135m", policy="static", **room) as engine:
    q1 = llmlab.labs.play(engine, work, ignore_eos=True)
llmlab.timeline(q1)

# %%
# %llm lab check Q1

# %% [markdown]
# ## The contract of a policy
#
# Before each step the engine asks a policy: who computes how many tokens? The answer is a dict, `request_id` ->
# number of tokens. Naming a request that waits admits it. The policy sees a `SchedulerState`:
#
# - `state.waiting`, in order of arrival, and `state.running`, in order of admission. Both hold `RequestView`s;
# - `state.token_budget`: the plan may have at most so many tokens in all;
# - `state.max_num_seqs`: the number of seats.
#
# Of a `RequestView` you need `request_id`, `user`, `num_uncomputed_tokens` and `phase`: `"prefill"` until its prompt
# is computed, then `"decode"` with 1 uncomputed token in each step, `"recompute"` after a preemption. A plan that
# gives a request 0 tokens or more than it has uncomputed, exceeds the budget or takes too many seats is refused, with
# a sentence. Policies have no clock, and keep nothing from step to step (but for Q6).
#
# ## Q2 Static batching
#
# When nothing runs, admit those who wait, up to `max_num_seqs`, whole prompts, as far as the budget goes. When
# something runs, only that goes on, until its last request has ended.


# %%
class StaticBatching:
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q2: a closed batch."""
        # BEGIN SOLUTION Q2: about 7 lines
        plan, left = {}, state.token_budget
        for request in state.running or state.waiting[: state.max_num_seqs]:
            if request.num_uncomputed_tokens > left:
                break
            plan[request.request_id] = request.num_uncomputed_tokens
            left -= plan[request.request_id]
        return plan
        # END SOLUTION


# %%
# %llm lab check Q2

# %% [markdown]
# Now llama.cpp asks your class:

# %%
with llmlab.load("smollm2-135m", policy=StaticBatching, **room) as engine:
    q2 = llmlab.labs.play(engine, work, ignore_eos=True)

# %%
# %llm lab check Q2

# %% [markdown]
# ## Q3 Continuous batching
#
# Decide anew in each step. Every running request gets its uncomputed tokens; then those who wait are admitted, whole
# prompts, in order, as long as there are seats and budget. Nobody overtakes. No prompt is longer than the budget here.
#
# **Predict**: a prompt of 240 tokens comes in while others are answered. They get no token until that step is over.
# At most how many tokens does the engine compute between two tokens of a running answer?
# `%llm lab predict Q3 8`, or what you think.


# %%
class ContinuousBatching:
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q3: whole prompts; a free seat is taken in the next step."""
        # BEGIN SOLUTION Q3: about 8 lines
        plan, left = {}, state.token_budget
        num_seats = state.max_num_seqs - len(state.running)
        for request in (*state.running, *state.waiting[:num_seats]):
            if request.num_uncomputed_tokens > left:
                break
            plan[request.request_id] = request.num_uncomputed_tokens
            left -= plan[request.request_id]
        return plan
        # END SOLUTION


# %%
# %llm lab check Q3

# %%
with llmlab.load("smollm2-135m", policy=ContinuousBatching, **room) as engine:
    q3 = llmlab.labs.play(engine, work, ignore_eos=True)
llmlab.timeline(q3)

# %%
# %llm lab check Q3

# %% [markdown]
# ## Q4 Chunked prefill
#
# A budget of 32 tokens a step. Each decode gets its token first. What is left goes to unfinished prompts in order of
# admission, then to admissions in order of arrival: a prompt is computed in chunks, one a step. No budget stays unused
# while there is work and a seat. (`victim` is the matter of Q5.)
#
# **Predict** the longest gap again, in tokens, and the mean number of steps from the arrival of a request to its first
# token: `%llm lab predict Q4 240,1`, or what you think. The check of Q3 told both for whole prompts.


# %%
class ChunkedPrefill:
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q4: decodes, then unfinished prompts, then admissions."""
        # BEGIN SOLUTION Q4: about 10 lines
        plan, left = {}, state.token_budget
        decodes_first = sorted(state.running, key=lambda request: request.phase != "decode")
        num_seats = state.max_num_seqs - len(state.running)
        for request in (*decodes_first, *state.waiting[:num_seats]):
            if left == 0:
                break
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
        return plan
        # END SOLUTION

    def victim(self, state: SchedulerState) -> str:
        """Q5: the id of the running request that loses its place."""
        # BEGIN SOLUTION Q5: about 1 line
        return state.running[-1].request_id
        # END SOLUTION


# %%
# %llm lab check Q4

# %%
chunked = room | {"step_tokens": 32}
with llmlab.load("smollm2-135m", policy=ChunkedPrefill, **chunked) as engine:
    q4 = llmlab.labs.play(engine, work, ignore_eos=True)
llmlab.timeline(q4)

# %%
# %llm lab check Q4

# %% [markdown]
# What did each policy do with the same 14 requests?

# %%
for name, trace in {"static": q2, "continuous": q3, "chunked": q4}.items():
    gap, waits = llmlab.metrics.longest_gap(trace), llmlab.metrics.steps_to_first_token(trace).values()
    print(
        f"{name:10} {len(trace.step_records):4} steps, {llmlab.metrics.throughput_tps(trace):5.1f} tokens/s, "
        f"first token after {sum(waits) / len(waits):4.1f} steps, longest gap {gap.num_tokens:3} tokens, "
        f"{gap.gap_s * 1000:4.0f} ms"
    )

# %% [markdown]
# A policy knows no engine. On our torch engine yours makes the very same plans:

# %%
with llmlab.load("smollm2-135m", policy=ChunkedPrefill, **(chunked | {"engine": "torch", "quant": None})) as engine:
    on_torch = llmlab.labs.play(engine, work, ignore_eos=True)
print([step.scheduled for step in on_torch.step_records] == [step.scheduled for step in q4.step_records])

# %% [markdown]
# And how the professionals do it: vLLM on an H200, with a budget of 256 and prompts of 1,200 tokens.

# %%
recorded = llmlab.recorded("chunked_prefill")
print(llmlab.metrics.longest_gap(recorded))
llmlab.timeline(recorded)

# %% [markdown]
# ## Q5 Preemption
#
# KV room can run out while answers grow. Then the engine asks `victim` who loses its place: the KV of that request is
# thrown away, it waits, and what it had computed is computed again. Never name the request that runs longest, or
# nobody ever finishes. Write `victim` in the class above. It is asked again as long as room is short; a request that is
# alone always has enough.
#
# **Predict**: eight requests come at once, each with 16 prompt tokens and an answer of 40. There are 256 cells. How
# often does a request lose its place, and how many tokens are computed again? `%llm lab predict Q5 1,20`, or what you
# think.

# %%
# %llm lab check Q5

# %%
growing = [{"prompt": list(range(1000 + 50 * i, 1016 + 50 * i)), "max_tokens": 40} for i in range(8)]
with llmlab.load("smollm2-135m", policy=ChunkedPrefill, **(chunked | {"kv_tokens": 256})) as engine:
    q5 = llmlab.labs.play(engine, growing, ignore_eos=True)
llmlab.timeline(q5)

# %%
# %llm lab check Q5

# %% [markdown]
# Which of the others is the victim hardly matters: a large one loses more work, and makes more room. Try it.
#
# ## Q6 Fairness
#
# User a sends 20 requests at once, user b four short ones at step 6. First come, first served lets b wait for all of a.
# A **virtual token counter** is fairer. `served[user]` counts the tokens that a user was given:
#
# - at each grant, `served[user] += num_tokens`: prompts and decodes alike, admissions as well;
# - the next admission is the earliest request of the user with the smallest counter. Among equal counters the order of
#   arrival decides. Count each admission before you choose the next one;
# - being away gives no credit. A user is *present* while a request of his runs or waits. One who was not present in
#   the step before starts at `max(own, min over those who were present then and are now)`.
#
# Only admissions differ: `super().schedule(replace(state, waiting=()))` plans the rest, as your `ChunkedPrefill` does.
# Keep the counters in the instance: each run makes a new one. Source: Sheng et al., Fairness in Serving Large Language
# Models, OSDI 2024.
#
# **Predict**: how many steps does user b wait for first tokens, as a share of what he waits under first come, first
# served? `%llm lab predict Q6 0.9`, or what you think.


# %%
class FairPolicy(ChunkedPrefill):
    def __init__(self) -> None:
        self.served: dict[str, int] = {}
        self.present: set[str] = set()

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q6: as ChunkedPrefill, but admissions by the counters of the users."""
        # BEGIN SOLUTION Q6: about 20 lines
        here = {request.user for request in (*state.running, *state.waiting)}
        least = min((self.served[user] for user in here & self.present), default=0)
        for user in here - self.present:
            self.served[user] = max(self.served.get(user, 0), least)
        self.present = here
        plan = super().schedule(replace(state, waiting=()))
        for request in state.running:
            self.served[request.user] += plan.get(request.request_id, 0)
        left, waiting = state.token_budget - sum(plan.values()), list(state.waiting)
        for _ in range(state.max_num_seqs - len(state.running)):
            if left == 0 or not waiting:
                break
            request = self.next_of(waiting)
            waiting.remove(request)
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
            self.served[request.user] += plan[request.request_id]
        return plan
        # END SOLUTION

    # BEGIN SOLUTION -> # Methods of your own, if you like.
    def next_of(self, waiting: list[RequestView]) -> RequestView:
        """The earliest request of the user with the smallest counter: min() takes the first of equals."""
        return min(waiting, key=lambda request: self.served[request.user])

    # END SOLUTION


# %%
# %llm lab check Q6

# %%
crowd = [("a", list(range(1000 + 50 * i, 1030 + 50 * i)), 8, 0) for i in range(20)]
crowd += [("b", list(range(9000 + 50 * i, 9012 + 50 * i)), 12, 6) for i in range(4)]
two_users = [
    {"user": user, "prompt": prompt, "max_tokens": answer, "arrival_step": step} for user, prompt, answer, step in crowd
]
traces = []
for policy in (ChunkedPrefill, FairPolicy):
    with llmlab.load("smollm2-135m", policy=policy, **(chunked | {"seqs": 4})) as engine:
        traces.append(llmlab.labs.play(engine, two_users, ignore_eos=True))
q6 = tuple(traces)
llmlab.timeline(q6[1])

# %%
# %llm lab check Q6

# %% [markdown]
# ## Q7 Reflect
#
# Two answers, each at least 15 words and with a number from your own runs: **1** Which of your policies would you
# choose for a chat, and why? **2** Which for a batch of 10,000 prompts over night, and why?

# %%
# BEGIN SOLUTION -> reflection = ["", ""]
reflection = [
    "For a chat chunked prefill: the longest gap of a running answer held 32 tokens of work and not 281, so that "
    "nobody sees the text stop; fair counters on top when users share it.",
    "Over night nobody looks at gaps, so whole prompts in continuous batching: fewest steps; static batching needed "
    "160 steps and left 74 % of the seats empty while others waited.",
]
# END SOLUTION

# %%
# %llm lab check Q7

# %% [markdown]
# ## Hand it in
#
# One page with your predictions, results, hints and pictures:

# %%
# %llm lab report
