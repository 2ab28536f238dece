"""Record the runs that `llmlab.labs.recorded` plays where no engine is installed: `python labs/record.py`.

Each is a run of a cell of a lab.py, and is written into the folder recorded/ of that lab. When a cell changes, it must
change here, but for a list of prompts that the lab.py writes out: that is read there.
"""

from __future__ import annotations

import ast
import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import llmlab
from llmlab.trace import Trace

Floats = NDArray[np.float32]
LABS = Path(__file__).resolve().parent
NUM_DRAWS = 2000


def tokens_and_sampling() -> None:
    with llmlab.load("smollm2-135m", engine="llamacpp", quant="F16", ctx=1024) as ours:
        words = [{"prompt": text, "raw": True} for text in ("strawberry", " strawberry", "😀")]
        _keep("lab01", "q1", _done(ours.batch(words, max_tokens=1)))
        _keep("lab01", "q2", _done(ours.batch(["Send me a smile."], choice=["😀"])))
        sentence = {"prompt": "The capital of France is", "raw": True}
        _keep("lab01", "q3", _done(ours.batch([sentence], max_tokens=1, logprobs=8)))
        _keep_array("lab01", "q3_logits", _shifted(ours.logits(sentence["prompt"])[-1]))
        asked = ours.generate("Name a colour.", max_tokens=1).prompt_token_ids
        logits = _shifted(ours.logits(asked)[-1])
        _keep_array("lab01", "q4_logits", logits)
        ours_first, usual = ("temp", "min_p", "top_p"), ("top_p", "min_p", "temp")
        _keep_array("lab01", "q5_draws", _draws(logits.astype(np.float32), ours_first))
        _keep_array("lab01", "q5_draws_usual", _draws(logits.astype(np.float32), usual))
        _keep("lab01", "q6", _done(ours.batch(_prompts("lab01"), max_tokens=160)))


def kv_cache() -> None:
    with llmlab.load("smollm2-135m", engine="torch", options={"prefix_caching": False}) as ours:
        prompt = list(range(100, 200))
        with_cache = ours.batch([prompt], max_tokens=64, ignore_eos=True)
        answer = with_cache.wait()[0].token_ids
        _keep("lab02", "q1_with_cache", with_cache.trace)
        without = []
        for i in range(len(answer)):
            without.append(ours.batch([prompt + list(answer[:i])], max_tokens=1, ignore_eos=True))
            without[-1].wait()
        _keep("lab02", "q1_without_cache", ours.trace_of(without))
    with llmlab.load("smollm2-135m", engine="llamacpp", quant="F16", ctx=1024) as cells:
        _keep("lab02", "q3", _done(cells.batch([list(range(100, 250))], max_tokens=51, ignore_eos=True)))


def paged_kv() -> None:
    with llmlab.load("smollm2-135m", engine="torch", kv_tokens=384, block_size=16) as ours:
        _keep("lab03", "q1", _done(ours.batch([list(range(100, 137))], max_tokens=40, ignore_eos=True)))
    things = "rain snow fog wind".split()
    prompts = [f"Write one sentence about {thing} {place}." for thing in things for place in ("at sea", "in the hills")]
    with llmlab.load("smollm2-135m", engine="llamacpp", ctx=1024, seqs=4) as cells:
        _keep("lab03", "cells", _done(cells.batch(prompts, max_tokens=16)))


def _prompts(lab_id: str) -> Any:
    """The list of prompts that a lab.py writes out."""
    body = ast.parse((_lab(lab_id) / "lab.py").read_text(encoding="utf-8")).body
    [said] = [node.value for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "prompts"]
    return ast.literal_eval(said)


def _done(run: Any) -> Trace:
    run.wait()
    trace: Trace = run.trace
    return trace


def _shifted(logits: Floats) -> NDArray[np.float16]:
    """Less the largest, so that float16 is fine where probabilities are large."""
    return (logits - logits.max()).astype(np.float16)


def _draws(logits: Floats, order: Sequence[str]) -> NDArray[np.int32]:
    """By llama.cpp's own chain of samplers: temperature 1.5, top-p 0.9, min-p 0.02, in this order."""
    import llama_cpp as lib

    make: dict[str, Callable[[], Any]] = {
        "temp": lambda: lib.llama_sampler_init_temp(1.5),
        "min_p": lambda: lib.llama_sampler_init_min_p(0.02, 1),
        "top_p": lambda: lib.llama_sampler_init_top_p(0.9, 1),
        "dist": lambda: lib.llama_sampler_init_dist(0),
    }
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for name in (*order, "dist"):
        lib.llama_sampler_chain_add(chain, make[name]())
    drawn = np.empty(NUM_DRAWS, np.int32)
    for i in range(NUM_DRAWS):
        rows = np.zeros(len(logits), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        rows["id"], rows["logit"] = np.arange(len(logits)), logits
        candidates = lib.llama_token_data_array(rows.ctypes.data_as(lib.llama_token_data_p), len(rows), -1, False)
        lib.llama_sampler_apply(chain, ctypes.byref(candidates))
        drawn[i] = candidates.data[candidates.selected].id
    lib.llama_sampler_free(chain)
    return drawn


def _keep(lab_id: str, name: str, trace: Trace) -> None:
    path = _folder(lab_id) / f"{name}.jsonl.gz"
    trace.save(path)
    print(f"{path.relative_to(LABS)}: {trace!r}, {path.stat().st_size:,} bytes")


def _keep_array(lab_id: str, name: str, array: NDArray[Any]) -> None:
    path = _folder(lab_id) / f"{name}.npy"
    np.save(path, array)
    print(f"{path.relative_to(LABS)}: {array.shape} {array.dtype}, {path.stat().st_size:,} bytes")


def _folder(lab_id: str) -> Path:
    folder = _lab(lab_id) / "recorded"
    folder.mkdir(exist_ok=True)
    return folder


def _lab(lab_id: str) -> Path:
    [lab] = LABS.glob(f"{lab_id}_*")
    return lab


if __name__ == "__main__":
    for record in (tokens_and_sampling, kv_cache, paged_kv):
        record()
