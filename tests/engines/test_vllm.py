"""The vLLM engine on the real library and the embedded model, in this process."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from llmlab import models
from llmlab.errors import EngineError, ModelError, RequestError
from tests.engines.serving import reason, request, text, token_ids
from tests.engines.vllm_support import (
    CROWD,
    PREFIX,
    answers_outlive_25_stops,
    crowd_equals_each_alone,
    engine,
    no_block_is_held,
    serve,
)
from tests.models.nasty_strings import nasty_strings

pytestmark = pytest.mark.slow
COUNT = "Count: one, two, three,"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def on():
    loaded = engine(options={"scheduling_policy": "priority"})
    yield loaded
    loaded.close()


@pytest.fixture(autouse=True)
def nothing_is_left_running(on):
    yield
    assert not on.has_unfinished_requests() and no_block_is_held(on)
    assert (on._tracer.num_errors, on._tracer.last_error) == (0, None)


def test_it_answers_a_question_and_its_trace_is_sound(on):
    trace = serve(on, [request(on, "r", "The capital of France is")])
    assert "Paris" in text(trace, "r")
    assert trace.validate() == []


def test_its_header_says_what_it_has(on):
    header = on.header
    assert (header.engine, header.dtype, header.device, header.num_threads) == ("vllm", "float32", "CPU", 1)
    assert (header.block_size, header.num_blocks, header.max_model_len, header.token_budget) == (32, 20, 384, 128)
    assert header.kv_cache_bytes == 21 * 32 * 46_080  # block 0, which nobody gets, is there too
    assert on.memory_bytes() == {"weights": 538_060_032, "kv_cache": 20 * 32 * 46_080, "kv_used": 0}
    assert (on.capabilities.kv, on.capabilities.block_table, on.capabilities.priority) == ("blocks", True, True)


def test_its_arithmetic_passes_the_self_test(on):
    assert on.self_test() is None


def test_its_token_ids_and_bytes_are_those_of_llama_cpp(on):
    from llmlab.engines.llamacpp_library import Model, start_library

    start_library()
    other = Model(str(models.get("smollm2-135m").gguf("Q4_1")), extra_bufts=False)
    for string in nasty_strings():
        ids = on.tokenize(string)
        assert ids == other.tokenize(string), string
        assert on.pieces(ids) == [other.piece(i, special=True) for i in ids], string
    every_id = range(other.num_vocab)
    assert [on.vocabulary.answer_bytes(i) for i in every_id] == [other.piece(i) for i in every_id]
    assert (on.bos_token, on.eos_token, on.chat_template) == (other.bos_token, other.eos_token, other.chat_template)
    other.close()


def test_the_text_of_the_tokens_is_the_text_of_the_answer(on):
    trace = serve(on, [request(on, "r", "Emoji: 😀😃😄😁😆😅🤣😂🙂", max_tokens=30, ignore_eos=True)])
    assert text(trace, "r") == b"".join(on.pieces(token_ids(trace, "r"))).decode("utf-8", "replace")


@pytest.mark.soak  # with a tiny model in test_vllm_scheduling.py
def test_a_crowd_with_preemptions_and_shared_prefixes_equals_each_request_alone(on):
    crowd_equals_each_alone(on, CROWD, PREFIX)


@pytest.mark.soak  # likewise
def test_after_25_random_stops_the_same_prompts_have_the_same_answers(on):
    answers_outlive_25_stops(on, [[*PREFIX, *range(2000 + 50 * i, 2020 + 50 * i)] for i in range(6)])


def test_a_stop_string_ends_the_answer_and_is_not_shown(on):
    whole = text(serve(on, [request(on, "r", COUNT, max_tokens=20)]), "r")
    word = whole.split()[2]
    asked = [request(on, "r", COUNT, max_tokens=20, stop=[word]), request(on, "s", COUNT, max_tokens=20)]
    trace = serve(on, asked)
    assert (text(trace, "r"), text(trace, "s")) == (whole[: whole.index(word)], whole)
    assert (reason(trace, "r"), reason(trace, "s")) == ("stop", "length")
    assert [step.stopped_by for step in trace.step_records if step.stopped_by] == [{"r": word}]
    assert trace.validate() == []


def test_what_might_have_become_a_stop_string_is_shown_when_it_does_not(on):
    whole = text(serve(on, [request(on, "r", COUNT, max_tokens=6)]), "r")
    trace = serve(on, [request(on, "r", COUNT, max_tokens=6, stop=[whole[-2:] + "###"])])
    assert text(trace, "r") == whole and reason(trace, "r") == "length"


def test_the_end_of_an_answer_has_no_text_and_can_be_ignored(on):
    prompt = on.tokenize("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    ended = serve(on, [request(on, "r", prompt)])
    assert (text(ended, "r"), reason(ended, "r")) == ("The capital of France is Paris.", "stop")
    assert token_ids(ended, "r")[-1] == on.tokenize("<|im_end|>")[0]
    ignored = serve(on, [request(on, "r", prompt, ignore_eos=True)])
    assert reason(ignored, "r") == "length" and len(token_ids(ignored, "r")) == 24


def test_an_abort_frees_its_blocks_and_is_reported_once(on):
    for name in ("gone", "stays"):
        on.add_request(request(on, name, f"A story about {name}:", max_tokens=8, ignore_eos=True))
    on.step()
    on.abort_request("gone")
    on.abort_request("gone")
    assert on.core.num_free_blocks == on.core.num_blocks - 1
    finished = []
    while on.has_unfinished_requests():
        finished.append(on.step().finished)
    assert [f for f in finished if f] == [{"gone": "abort"}, {"stays": "length"}]


def test_an_abort_of_the_last_request_is_still_reported(on):
    on.add_request(request(on, "only", "Hello", max_tokens=50))
    on.abort_request("only")
    assert on.has_unfinished_requests()
    step = on.step()
    assert step.finished == {"only": "abort"} and step.scheduled == ()


def test_urgent_requests_go_first(on):
    names = [f"normal{i}" for i in range(10)]
    asked = [request(on, name, "Hello", max_tokens=2, ignore_eos=True) for name in names]
    trace = serve(on, [*asked, request(on, "urgent", "Hello", priority=-1, max_tokens=2, ignore_eos=True)])
    assert "urgent" in trace.step_records[1].finished and "normal9" not in trace.step_records[1].finished


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 0.01}])
def test_each_filter_at_its_narrowest_leaves_the_greedy_token(on, narrow):
    greedy = token_ids(serve(on, [request(on, "r", COUNT, max_tokens=8)]), "r")
    assert (
        token_ids(serve(on, [request(on, "r", COUNT, max_tokens=8, **{"temperature": 1.5, **narrow})]), "r") == greedy
    )


def test_a_seed_repeats_an_answer_and_another_seed_changes_it(on):
    asked = dict(temperature=1.0, max_tokens=12, ignore_eos=True)
    seeds = (7, 7, 8, 2**32 - 1)
    trace = serve(on, [request(on, f"r{i}", "Once upon a time", seed=s, **asked) for i, s in enumerate(seeds)])
    answers = [token_ids(trace, f"r{i}") for i in range(4)]
    assert answers[0] == answers[1] and len({tuple(a) for a in answers}) == 3


def test_logprobs_are_those_of_the_logits(on):
    prompt = "The capital of France is"
    trace = serve(on, [request(on, "r", prompt, max_tokens=2, logprobs=5, temperature=0.7)])
    logits = on.logits(on.tokenize(prompt))
    assert np.abs(np.exp(logits.astype(np.float64)).sum(axis=1) - 1).max() < 1e-3  # they are log probabilities
    token = trace.step_records[0].tokens[0]
    assert token.logprob == pytest.approx(logits[-1][token.token_id], abs=1e-4)
    best = np.argsort(-logits[-1])[:5]
    assert [i for i, _, _ in token.top] == best.tolist()
    assert [lp for _, lp, _ in token.top] == pytest.approx(logits[-1][best].tolist(), abs=1e-4)
    assert token.top[0][2] == " Paris"


def test_the_logits_of_a_long_text_are_those_of_its_beginning(on):
    ids = (on.tokenize("It was the best of times, it was the worst of times, ") * 20)[:300]  # three chunks
    logits = on.logits(ids)
    assert logits.shape == (300, 49152)
    assert np.abs(logits[:40] - on.logits(ids[:40])).max() < 1e-3
    assert on.logits(ids[:1]).shape == (1, 49152)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_keeps_to_the_form_that_was_asked_for(on, temperature):
    forms = {
        "schema": ("A person as JSON:", {"json_schema": SCHEMA, "max_tokens": 80}),
        "grammar": ("Is the sea dry?", {"grammar": 'root ::= "yes" | "no"'}),
        "choice": ("Is the sea dry?", {"choice": ["perhaps", "never"]}),
        "regex": ("A phone number: ", {"regex": r"\d{3}-\d{4}"}),
    }
    asked = [request(on, n, p, temperature=temperature, seed=1, **more) for n, (p, more) in forms.items()]
    trace = serve(on, asked)
    person = json.loads(text(trace, "schema"))
    assert isinstance(person["name"], str) and isinstance(person["age"], int)
    assert text(trace, "grammar") in ("yes", "no")
    assert text(trace, "choice") in ("perhaps", "never")
    assert re.fullmatch(r"\d{3}-\d{4}", text(trace, "regex"))
    assert {reason(trace, name) for name in forms} == {"stop"}


@pytest.mark.parametrize(
    ("prompt", "asked", "sentence"),
    [
        ([], {}, "The prompt is empty"),
        ([5] * 600, {}, "Prompt is 600 tokens, max_model_len is 384 and the answer needs one more. Cut 217 tokens"),
        ([49152], {}, "token id 49152 is not in the vocabulary of 49152 tokens"),
        ([5], {"max_tokens": 0}, "max_tokens is 0; it must be 1 or more"),
        ([5], {"temprature": 1}, "Unknown sampling parameter 'temprature'"),
        ([5], {"grammar": "root ::= ("}, "vLLM refuses the request: Invalid grammar"),
        ([5], {"json_schema": {"type": "banana"}}, "Invalid type: banana"),
        ([5], {"regex": "("}, "vLLM refuses the request"),
        ([5], {"choice": "yes"}, "choice is 'yes'; give a list of texts"),
        ([5], {"choice": ["a"], "regex": "a"}, "regex and choice were given together"),
        ([5], {"lora": "/nowhere"}, "Load it with `--opt enable_lora=true`"),
    ],
)
def test_a_bad_request_is_refused_in_words_and_changes_nothing(on, prompt, asked, sentence):
    before = (on.core.scheduler.get_request_counts(), on.core.num_free_blocks, set(on._running))
    with pytest.raises((RequestError, ModelError)) as refused:
        on.add_request(request(on, "r", prompt, **asked))
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert (on.core.scheduler.get_request_counts(), on.core.num_free_blocks, set(on._running)) == before


def test_what_vllm_does_not_take_is_said_by_its_name(on):
    with pytest.raises(EngineError, match=r"vLLM has no option 'max_model_length'\. Did you mean 'max_model_len'"):
        engine(options={"max_model_length": 5})
    with pytest.raises(EngineError, match=r"Total number of attention heads \(9\) must be divisible by.*size \(2\)"):
        engine(options={"tensor_parallel_size": 2})
