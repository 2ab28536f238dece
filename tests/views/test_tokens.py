"""The data of the tokens view: what is said about the tokens of an answer, and a distribution to sample from."""

from __future__ import annotations

import base64
import ctypes
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from llmlab.engines.base import SamplingParams
from llmlab.engines.result import Result
from llmlab.errors import RequestError, TraceError
from llmlab.trace import Header, Token
from llmlab.trace.example import two_requests
from llmlab.views.tokens import sampler_data, tokens_data, tokens_data_of, tokens_page
from llmlab.views.tokens_view import TokensView

STATIC = Path(__file__).resolve().parents[2] / "llmlab" / "views" / "static"


def token(token_id: int, text: str, share: float | None = None, **others: float) -> Token:
    """A token with its probability, and those of other candidates, whose ids count from 100."""
    top = [(token_id, share, text)] if share is not None else []
    top += [(100 + i, p, text) for i, (text, p) in enumerate(others.items())]
    return Token(
        request_id="r1",
        token_id=token_id,
        text=text,
        logprob=None if share is None else math.log(share),
        top=tuple((i, math.log(p), text) for i, p, text in sorted(top, key=lambda entry: -entry[1])),
    )


def answer(*tokens: Token, **fields) -> Result:
    header = Header(engine="llamacpp", engine_version="0.3.36", model="smollm2-135m", quant="F16", device="cpu")
    asked = {"sampling": {"temperature": 0.0}, "finish_reason": "length", "token_times_s": (0.25, 0.5, 1.0, 1.25)}
    fields = asked | fields
    fields["token_times_s"] = fields["token_times_s"][: len(tokens)]
    return Result("r1", header, "Why?", (1, 2, 3), tokens, **fields)


def test_others_are_what_the_listed_candidates_leave_and_unknown_tokens_count_as_one_in_the_entropy():
    first, second = tokens_data(answer(token(7, "a", 0.5, b=0.25), token(8, " c", 0.125)))["tokens"]
    assert (first["others"], first["entropy_bits"]) == (pytest.approx(0.25), pytest.approx(1.5))  # 1/2, 1/4 and 1/4
    assert second["others"] == pytest.approx(0.875)
    assert second["entropy_bits"] == pytest.approx(0.125 * 3 + 0.875 * math.log2(8 / 7))


def test_a_token_that_was_drawn_from_far_below_is_not_counted_among_the_others():
    candidates = {f"c{i}": 0.1 for i in range(8)}
    (only,) = tokens_data(answer(token(7, "a", 0.05, **candidates)))["tokens"]
    assert only["others"] == pytest.approx(0.35)  # six of 0.1 and the chosen one are listed
    assert len(only["top"]) == 9


def test_without_logprobs_nothing_is_said_about_probabilities():
    data = tokens_data(answer(token(7, "a"), token(8, " b")))
    assert [(t["logprob"], t["others"], t["entropy_bits"], t["top"]) for t in data["tokens"]] == [
        (None, None, None, [])
    ] * 2
    assert data["subtitle"].endswith("greedy · 3 prompt tokens, 2 out · cut at max_tokens")


def test_the_first_gap_is_the_time_to_the_first_token_and_the_median_leaves_it_out():
    data = tokens_data(answer(*(token(i, "x", 0.5) for i in range(4))))
    assert [t["gap_ms"] for t in data["tokens"]] == [250.0, 250.0, 500.0, 250.0]
    assert data["median_gap_ms"] == 250.0
    assert data["timed"] == "arrival in the notebook"
    assert tokens_data(answer(token(1, "x")))["median_gap_ms"] is None


def test_the_subtitle_says_what_ran_and_how_it_ended():
    stopped = answer(
        token(7, "a", 0.5),
        finish_reason="stop",
        stopped_by="END",
        sampling={"temperature": 0.8, "top_k": 20, "seed": 3},
    )
    assert tokens_data(stopped)["subtitle"] == (
        "llama.cpp 0.3.36 · smollm2-135m · F16 · cpu · temperature 0.8, top_k 20, seed 3 · 3 prompt tokens, 1 out"
        " · ended by 'END' · probabilities measured"
    )
    assert "still running" in tokens_data(answer(finish_reason=None))["subtitle"]


def test_bytes_are_those_of_the_text_where_it_tells_them():
    halves = answer(token(1, " é"), token(2, ""), token(3, "😀"), token(4, "!"))
    tokens = tokens_data(halves)["tokens"]
    # the third token ends a character that the second began: its text is longer than it is
    assert [t["bytes"] for t in tokens] == ["20 c3 a9", None, None, "21"]
    assert [t["mark"] for t in tokens] == ["", "id 2", "", ""]


def test_the_engine_tells_the_bytes_of_half_a_character_and_the_name_of_a_marker():
    told = {1: b" \xc3\xa9", 2: b"\xf0\x9f", 3: b"\x98\x80", 4: b"<|im_end|>"}
    halves = answer(token(1, " é"), token(2, ""), token(3, "😀"), token(4, ""))
    tokens = tokens_data(halves, pieces=lambda ids: [told[i] for i in ids])["tokens"]
    assert [t["bytes"] for t in tokens] == ["20 c3 a9", "f0 9f", "98 80", "3c 7c 69 6d 5f 65 6e 64 7c 3e"]
    assert [t["mark"] for t in tokens] == ["", "F0 9F", "", "<|im_end|>"]


def test_a_request_of_a_trace_has_the_times_of_the_engine():
    data = tokens_data_of(two_requests(), "b")
    assert [t["t_s"] for t in data["tokens"]] == [1.5, 3.5]  # it arrived at 0.5, its steps end at 2 and 4
    assert data["timed"] == "end of its step in the engine"
    assert data["source"] == "simulated"
    assert data["num_prompt_tokens"] == 5


def test_a_request_that_the_trace_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(TraceError, match=r"Unknown request 'c'\. Known: a, b"):
        tokens_data_of(two_requests(), "c")


def test_a_page_holds_no_markup_of_the_model_and_no_second_file():
    page = tokens_page(tokens_data(answer(token(7, "</script><img src=x>", 0.5))), title="<b>")
    assert "<img" not in page and "<b>" not in page
    assert not re.search(r'\b(src|href)="|@import|^import |https?://(?!www\.w3\.org)', page, re.MULTILINE)
    assert (
        json.loads(re.search(r'id="llmlab-data">(.*?)</script>', page)[1])["tokens"][0]["text"]
        == "</script><img src=x>"
    )


def test_a_view_for_a_projector_is_written_as_one(tmp_path: Path):
    result = answer(token(7, "yes", 0.5))
    pages = [
        TokensView(result, presentation=is_on).to_html(tmp_path / f"{is_on}.html").read_text()
        for is_on in (False, True)
    ]
    told = [json.loads(re.search(r'id="llmlab-data">(.*?)</script>', page)[1])["presentation"] for page in pages]
    assert told == [False, True]


# ---- the sampler


class FakeHandle:
    """Logits of a vocabulary of 50: token i has -i / 4, but 9 is as likely as 3."""

    header = Header(engine="llamacpp", model="m", quant="F16")

    def __init__(self):
        self.asked: list[int] = []

    def logits(self, ids):
        self.asked = list(ids)
        row = -np.arange(50, dtype=np.float32) / 4 + 100
        row[9] = row[3]
        return np.stack([np.zeros(50, np.float32), row])

    def tokenize(self, text):
        return [ord(c) for c in text]

    def pieces(self, ids):
        return [b"t%d" % i for i in ids]

    def detokenize(self, ids):
        return "".join(f"t{i}" for i in ids)


def test_the_whole_distribution_travels_as_log_probabilities():
    data = sampler_data(FakeHandle(), "Hi")
    logprobs = np.frombuffer(base64.b64decode(data["logprobs"]), "<f4")
    assert len(logprobs) == 50
    assert np.exp(logprobs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-6)
    assert logprobs[0] - logprobs[4] == pytest.approx(1, abs=1e-5)
    assert [i for i, _ in data["texts"]][:6] == [0, 1, 2, 3, 9, 4]
    assert data["texts"][4] == [9, "t9"] and len(data["texts"]) == 40


def test_an_answer_is_sampled_before_the_token_that_is_asked_for():
    handle = FakeHandle()
    data = sampler_data(handle, answer(token(7, "a"), token(8, " b")), at=1, top_k=5)
    assert handle.asked == [1, 2, 3, 7]
    assert (data["at"], data["prompt"]) == (1, "Why?a")
    assert data["params"] == {"temperature": 1.0, "top_k": 5, "top_p": 1.0, "min_p": 0.0}


def test_a_place_behind_the_answer_and_a_value_out_of_range_are_refused():
    with pytest.raises(RequestError, match="at is 3; the answer has 1 token"):
        sampler_data(FakeHandle(), answer(token(7, "a")), at=3)
    with pytest.raises(RequestError, match="top_p is 7"):
        sampler_data(FakeHandle(), "Hi", top_p=7)


def engine_probs(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """What llama.cpp's own sampler chain, as our engine builds it, leaves of the logits; it needs no model."""
    from llmlab.engines.llamacpp_library import lib
    from llmlab.engines.llamacpp_sampling import TokenSampler

    sampler = TokenSampler(SimpleNamespace(), params)
    lib.llama_sampler_free(
        lib.llama_sampler_chain_remove(sampler._chain, lib.llama_sampler_chain_n(sampler._chain) - 1)
    )
    rows = np.zeros(len(logits), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    rows["id"], rows["logit"] = np.arange(len(logits)), logits
    pointer = ctypes.cast(ctypes.c_void_p(rows.ctypes.data), ctypes.POINTER(lib.llama_token_data))
    array = lib.llama_token_data_array(pointer, len(logits), -1, False)
    lib.llama_sampler_apply(sampler._chain, ctypes.byref(array))
    sampler.close()
    left, probs = rows[: array.size], np.zeros(len(logits))
    probs[left["id"]] = np.exp(left["logit"].astype(np.float64) - left["logit"].max())
    return probs / probs.sum()


NODE = """
import { readFileSync } from "node:fs";
import { samplerFloats, samplerKeep, samplerOrder } from "STATIC/sampler.js";
const answers = JSON.parse(readFileSync(0)).map(([base64, params]) => {
  const logits = samplerFloats(base64);
  const order = samplerOrder(logits);
  const { shares, kept, keptShare } = samplerKeep(Float32Array.from(order, (id) => logits[id]), params);
  return Array.from(order.slice(0, kept), (id, j) => [id, shares[j] / keptShare]);
});
console.log(JSON.stringify(answers));
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_sliders_keep_what_the_engine_keeps():
    pytest.importorskip("llama_cpp")
    random = np.random.default_rng(5)
    cases = []
    for _ in range(40):
        logits = random.normal(0, 3, 1000).astype(np.float32)
        params = {
            "temperature": float(random.choice([0.3, 0.8, 1.0, 2.0])),
            "top_k": int(random.choice([0, 3, 40])),
            "top_p": float(random.choice([0.35, 0.9, 1.0])),
            "min_p": float(random.choice([0.0, 0.02, 0.3])),
        }
        cases.append((logits, params))
    told = json.dumps([[base64.b64encode(logits.tobytes()).decode(), params] for logits, params in cases])
    code = NODE.replace("STATIC", STATIC.as_uri())
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code], input=told, capture_output=True, text=True, check=True
    )
    for (logits, params), kept in zip(cases, json.loads(done.stdout), strict=True):
        want = engine_probs(logits, SamplingParams(**params))
        got = np.zeros(len(want))
        got[[i for i, _ in kept]] = [share for _, share in kept]
        assert set(np.flatnonzero(got)) == set(np.flatnonzero(want)), params
        assert np.abs(got - want).max() < 1e-5, params
