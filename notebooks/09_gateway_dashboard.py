# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One door over several engines
#
# After this notebook you will be able to explain
#
# - what a **gateway** does that no engine does: it decides who gets a request, by model, prompt length, load and price;
# - how a decision is checked afterwards: every line of its **log** has a reason, a count of tokens and a cost;
# - what happens to running and to new requests when an engine is **killed**, and when it comes back;
# - what a **quota** looks like from the other side of the door.
#
# Two real engines run on this machine, each behind an endpoint of its own. Instead of the large one on a GPU server
# there is the same small model twice; only its price is a large one's.

# %%
# %load_ext llmlab

# %%
import llmlab

main = llmlab.load("smollm2-135m", engine="llamacpp", quant="Q8_0", name="main", ctx=1024, seqs=8)
laptop = llmlab.load("smollm2-135m", engine="llamacpp", quant="Q4_1", name="laptop", ctx=512, seqs=2)
servers = {engine.name: llmlab.serve(engine) for engine in (main, laptop)}

# %% [markdown]
# ## The configuration
#
# It names backends, models, prices and rules. It has no key in it: it names the environment variables that do.

# %%
import os
import secrets

for name, server in servers.items():
    os.environ[f"{name.upper()}_KEY"] = server.token
os.environ["NO_PROXY"] = "127.0.0.1"  # all of it is on this machine
for student in ("ANN", "BEN"):
    os.environ[f"{student}_TOKEN"] = secrets.token_urlsafe(24)

# %%
CONFIG = f"""
backends:
  laptop: {{url: {servers["laptop"].url}, api_key_env: LAPTOP_KEY, price: {{prompt: 0, output: 0}}, seats: 2}}
  main: {{url: {servers["main"].url}, api_key_env: MAIN_KEY, price: {{prompt: 0.10, output: 0.40}}, seats: 8}}
models:
  chat: {{backends: {{laptop: laptop, main: main}}, prefer: load, rules: [{{prompt_tokens_over: 60, use: main}}]}}
keys:
  ann: {{token_env: ANN_TOKEN}}
  ben: {{token_env: BEN_TOKEN, requests_per_minute: 3}}
"""

# %%
from pathlib import Path
from tempfile import mkdtemp

file = Path(mkdtemp()) / "config.yaml"
file.write_text(CONFIG)
door = llmlab.gateway(file)
door

# %% [markdown]
# ## A morning's traffic
#
# To its clients the gateway is one server with OpenAI's API. Predict before you run: twelve short questions at once,
# and four with a long text in front. How many of the short ones does the laptop take, with its two seats? Where do the
# long ones go?

# %%
far = llmlab.connect(door.url, api_key_env="ANN_TOKEN", model="chat", name="door")
text = "The gateway keeps a log with a line for each request that it took. " * 6
short = [f"Name {number} fruits." for number in range(2, 14)]
long = [f"{text} In one sentence, and in style {number}: what is kept?" for number in range(4)]
run = far.batch(short + long, max_tokens=24)
run.wait()[0]

# %%
from llmlab.gateway import read_log

log = read_log(door.log_path)
log.tail(6)[["client", "backend", "reason", "num_prompt_tokens", "num_output_tokens", "cost", "ttft_s", "e2e_s"]]

# %% [markdown]
# ## The dashboard
#
# Each bar is a request, from when it came to when its answer had ended. Hover over one: the reason is there.

# %%
import plotly.express as px

bars = {"x_start": "at", "x_end": "ended_at", "y": "request_id", "color": "backend"}
px.timeline(log, **bars, hover_data=["reason", "num_prompt_tokens", "cost"], height=420)

# %% [markdown]
# Least busy is counted by **seats**: two requests on the laptop's two seats weigh as much as eight on the main engine's
# eight. The long prompts went by their rule.
#
# Who wrote how much, and what was it worth? The engines counted the tokens (`counted_by`: reported); the prices are
# those of the configuration, for a million tokens.

# %%
log.groupby(["backend", "counted_by"])[["num_prompt_tokens", "num_output_tokens", "cost"]].sum()

# %% [markdown]
# Why did each go where it went? The reasons, with their numbers left out, counted:

# %%
log["reason"].str.replace(r"\d+", "N", regex=True).value_counts()

# %% [markdown]
# ## Kill the main engine
#
# Four long answers run on it, by the rule. Then its process gets a `kill -9`. Predict: what do the four get? And where
# does the next long prompt go, though the rule says *main*?

# %%
import signal
import time

stories = [f"{text} Tell a long story of a reader of this log, in style {number}." for number in range(4)]
run = far.batch(stories, max_tokens=300)
while run.num_tokens < 40 and not run.done:  # some words of each have come
    time.sleep(0.05)
os.kill(main.pid, signal.SIGKILL)
try:
    run.wait()
except llmlab.LlmlabError as error:
    print(str(error)[:300])

# %%
next_one = far.generate(long[0], max_tokens=12)
log = read_log(door.log_path)
log.tail(5)[["backend", "status", "error", "num_output_tokens", "counted_by", "reason"]]

# %% [markdown]
# An answer of which words had been sent cannot go on elsewhere: the other engine would say something else. It ends with
# an error, and what had come stays. An answer of which nothing had been sent is asked for again, and its client only
# waits a little longer. Everybody who comes later goes past the dead engine at once.
#
# ## A quota
#
# Ben may ask three times a minute. His fourth request is told when to come back.

# %%
ben = llmlab.connect(door.url, api_key_env="BEN_TOKEN", model="chat", name="ben")
for _ in range(3):
    ben.generate("Name a fruit.", max_tokens=4)

# %%
import urllib.error
import urllib.request

body = b'{"model": "chat", "messages": [{"role": "user", "content": "And another?"}]}'
headers = {"Authorization": f"Bearer {os.environ['BEN_TOKEN']}"}
try:
    urllib.request.urlopen(urllib.request.Request(f"{door.url}/v1/chat/completions", body, headers))
except urllib.error.HTTPError as refused:
    print(refused.status, "Retry-After:", refused.headers["Retry-After"], refused.read().decode())

# %% [markdown]
# ## The whole morning
#
# One picture for a lecturer: what each client asked, how it ended, and what it cost.

# %%
log = read_log(door.log_path)
log.pivot_table(index="client", columns="status", values="at", aggfunc="count", fill_value=0)

# %%
px.ecdf(log, x="e2e_s", color="backend", height=360, labels={"e2e_s": "seconds from asked to answered"})

# %% [markdown]
# Try it: give `main` a `max_waiting: 0` in the configuration and send the traffic again. Which of its reasons are new?

# %%
door.stop()
llmlab.unload(all=True)
