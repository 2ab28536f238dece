"""Sampling on llama.cpp: the order of the filters, grammars, a student's own sampler."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest

from llmlab.engines.base import SamplingParams
from llmlab.engines.llamacpp_library import lib
from llmlab.engines.llamacpp_sampling import TokenSampler
from llmlab.errors import RequestError
from tests.engines.llamacpp_support import engine
from tests.engines.serving import request, serve, text, token_ids


@pytest.fixture(scope="module")
def q4():
    with_q4 = engine("Q4_1")
    yield with_q4
    with_q4.close()


def reference_probs(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The contract, in its own words: temperature, min-p, top-k, top-p on what is left, renormalised."""
    scaled = logits.astype(np.float64) / params.temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    p[p < params.min_p * p.max()] = 0
    order = np.lexsort((np.arange(len(p)), -p))
    if params.top_k:
        p[order[params.top_k :]] = 0
    p /= p.sum()
    if params.top_p < 1:
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= params.top_p]] = 0
    return p / p.sum()


def chain_probs(q4, logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """What is left of the logits behind our chain, without its last link, which draws."""
    sampler = TokenSampler(q4.context, params)
    drawing = lib.llama_sampler_chain_remove(sampler._chain, lib.llama_sampler_chain_n(sampler._chain) - 1)
    rows = np.zeros(len(logits), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    rows["id"], rows["logit"] = np.arange(len(logits)), logits
    pointer = ctypes.cast(ctypes.c_void_p(rows.ctypes.data), ctypes.POINTER(lib.llama_token_data))
    array = lib.llama_token_data_array(pointer, len(logits), -1, False)
    lib.llama_sampler_apply(sampler._chain, ctypes.byref(array))
    lib.llama_sampler_free(drawing)
    sampler.close()
    left = rows[: array.size]
    probs = np.zeros(len(logits))
    probs[left["id"]] = np.exp(left["logit"].astype(np.float64) - left["logit"].max())
    return probs / probs.sum()


def test_sixty_parameter_sets_give_the_distribution_of_the_contract(q4):
    logits = q4.logits(q4.tokenize("Name a colour. The colour is"))[-1]
    random = np.random.default_rng(0)
    for _ in range(60):
        params = SamplingParams(
            temperature=float(random.choice([0.3, 0.7, 1.0, 1.5])),
            top_k=int(random.choice([0, 5, 40])),
            top_p=float(random.choice([0.5, 0.9, 1.0])),
            min_p=float(random.choice([0.0, 0.02, 0.1])),
        )
        want, got = reference_probs(logits, params), chain_probs(q4, logits, params)
        assert set(np.flatnonzero(got)) == set(np.flatnonzero(want)), params
        assert np.abs(got - want).max() < 1e-5, params


@pytest.mark.parametrize("num_draws", [200, pytest.param(600, marks=pytest.mark.soak)])
def test_hundreds_of_draws_follow_the_probabilities(num_draws: int):
    on = engine("F16")  # quantized logits differ from batch to batch, and with them the edge of what is kept
    params = dict(temperature=1.5, top_p=0.9, min_p=0.02)
    prompt = on.tokenize("Name a colour. The colour is")
    want = reference_probs(on.logits(prompt)[-1], SamplingParams(**params))
    requests = [request(on, f"r{i}", prompt, max_tokens=1, seed=i, **params) for i in range(num_draws)]
    trace = serve(on, requests)
    on.close()
    counts = np.zeros(len(want))
    for i in range(num_draws):
        counts[token_ids(trace, f"r{i}")[0]] += 1
    print(f"{counts[want == 0].sum():.0f} of {num_draws} draws outside")
    assert counts[want == 0].sum() <= num_draws / 100
    expected = want[want * num_draws >= 5] * num_draws
    chi_square = ((counts[want * num_draws >= 5] - expected) ** 2 / expected).sum()
    # With 600 draws the wrong order of the filters gives 12 times the degrees of freedom.
    assert chi_square < 2.0 * len(expected)


def test_a_seed_repeats_an_answer_and_another_seed_changes_it(q4):
    def answer(seed: int) -> list[int]:
        drawn = serve(q4, [request(q4, "r", "Once upon a time", temperature=1.0, seed=seed, max_tokens=12)])
        return token_ids(drawn, "r")

    assert answer(7) == answer(7)
    assert len({tuple(answer(seed)) for seed in range(4)}) > 1


def test_greedy_takes_the_lowest_id_among_equal_logits(q4, monkeypatch):
    sampler = TokenSampler(q4.context, SamplingParams(temperature=0.0))
    row = np.zeros(q4.model.num_vocab, np.float32)
    row[[40, 90]] = 3.0
    monkeypatch.setattr(q4.context, "logits", lambda _row: row)
    assert sampler.sample(0) == 40


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_json_schema_gives_an_answer_that_satisfies_it(q4, temperature):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 120}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    asked = request(q4, "r", "A person as JSON:", json_schema=schema, max_tokens=60, temperature=temperature)
    answer = json.loads(text(serve(q4, [asked]), "r"))
    assert isinstance(answer["name"], str) and isinstance(answer["age"], int)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_grammar_allows_nothing_else(q4, temperature):
    requests = [
        request(q4, f"r{i}", "Is the sea dry?", grammar='root ::= "yes" | "no"', temperature=temperature, seed=i)
        for i in range(6)
    ]
    trace = serve(q4, requests)
    assert {text(trace, f"r{i}") for i in range(6)} <= {"yes", "no"}


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_choice_allows_nothing_else(q4, temperature):
    choice = ['it "is"', "it is not"]
    asked = request(q4, "r", "Is the sea dry?", choice=choice, temperature=temperature)
    assert text(serve(q4, [asked]), "r") in choice


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [({"regex": "a+"}, "llama.cpp follows no regular expressions"), ({"lora": "/a"}, "load it with `--lora PATH`")],
)
def test_what_only_vllm_does_is_refused_with_what_there_is(q4, asked, sentence):
    with pytest.raises(RequestError, match=sentence):
        q4.add_request(request(q4, "r", "Hi", **asked))
    assert not q4.has_unfinished_requests()


class AlwaysTheThird:
    """A student's sampler: draws the third most likely token."""

    def probs(self, logits, params):
        probs = np.zeros_like(logits)
        probs[np.argsort(-logits)[2]] = 1
        return probs

    def draw(self, probs, u):
        return int(probs.argmax())


def test_a_sampler_of_ones_own_plugs_in():
    on = engine("Q4_1", sampler=AlwaysTheThird())
    trace = serve(on, [request(on, "r", "The capital of France is", max_tokens=1, logprobs=3, temperature=1.0)])
    (token,) = trace.step_records[0].tokens
    assert token.token_id == token.top[2][0]
    on.close()
