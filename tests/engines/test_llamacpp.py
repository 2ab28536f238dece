"""The llama.cpp engine on the real library and the embedded model."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from llmlab import models
from llmlab.engines.llamacpp_cells import MirroredCells, agrees_with_public_state
from llmlab.errors import EngineError, PlanRefused, RequestError
from llmlab.models.lora import adapter_gguf
from llmlab.scheduling.contracts import SchedulerState
from llmlab.scheduling.policies import StaticBatching
from llmlab.trace import Trace
from llmlab.trace.kv_state import state_for
from tests.engines.llamacpp_support import engine
from tests.engines.serving import reason, request, serve, text, token_ids
from tests.models.adapters import save_adapter

PROMPTS = [f"Question {i}: what makes the number {i * 7} interesting? Answer:" for i in range(16)]
PREFIX = "You are a careful assistant who answers questions about rivers, mountains and the sea. " * 12


@pytest.fixture(scope="module")
def q4():
    with_q4 = engine("Q4_1")
    yield with_q4
    with_q4.close()


@pytest.fixture(autouse=True)
def nothing_is_left_running(request: pytest.FixtureRequest):
    yield
    if "q4" in request.fixturenames:
        assert not request.getfixturevalue("q4").has_unfinished_requests()


def test_it_answers_a_question(q4):
    trace = serve(q4, [request(q4, "r", "The capital of France is")])
    assert "Paris" in text(trace, "r")
    assert trace.validate() == []


def test_its_arithmetic_passes_the_self_test(q4):
    assert q4.self_test() is None


def test_it_reads_the_real_cells_here(q4):
    assert q4.capabilities.cell_source == "raw"


@pytest.mark.slow
@pytest.mark.parametrize("alone_each", [3, pytest.param(1, marks=pytest.mark.soak)])
def test_a_batch_with_preemptions_equals_each_request_alone_token_for_token(alone_each: int):
    tight = engine("F32", kv_tokens=256, max_num_seqs=8, token_budget=64)
    asked = dict(max_tokens=40, ignore_eos=True)
    together = serve(tight, [request(tight, f"r{i}", p, **asked) for i, p in enumerate(PROMPTS[:8])])
    tight.close()
    assert sum(len(step.preempted) for step in together.step_records) > 0
    assert together.validate() == []
    roomy = engine("F32", options={"prefix_caching": False})
    for i, prompt in list(enumerate(PROMPTS[:8]))[::alone_each]:
        alone = serve(roomy, [request(roomy, f"r{i}", prompt, **asked)])
        assert token_ids(alone, f"r{i}") == token_ids(together, f"r{i}")
    roomy.close()


@pytest.mark.parametrize(("num_requests", "num_tokens"), [(9, 24), pytest.param(16, 48, marks=pytest.mark.soak)])
def test_the_mirror_and_the_public_state_agree_with_the_raw_cells_in_every_step(num_requests: int, num_tokens: int):
    tight = engine("Q4_1", kv_tokens=256, max_num_seqs=8, token_budget=32)
    for i, prompt in enumerate(PROMPTS[:num_requests]):
        tight.add_request(request(tight, f"r{i}", prompt, max_tokens=num_tokens, ignore_eos=True))
    state, num_preempted = None, 0
    while tight.has_unfinished_requests():
        step = tight.step()
        num_preempted += len(step.preempted)
        state = state or state_for(step.kv)
        assert state.apply(step.kv) == []
        raw, mirror = tight._watcher.reader.read(), MirroredCells(tight.pool).read()
        assert np.array_equal(raw.position, mirror.position) and np.array_equal(raw.seats, mirror.seats)
        assert raw.head == mirror.head
        assert agrees_with_public_state(MirroredCells(tight.pool), tight.context.pointer, tight.context.num_seats)
    assert num_preempted > 0
    tight.close()


def test_without_the_raw_reader_the_trace_is_the_same_and_says_so():
    traces = []
    for raw in (True, False):
        on = engine("Q4_1", kv_tokens=256, max_num_seqs=4, token_budget=64, options={"raw_cells": raw})
        traces.append(serve(on, [request(on, f"r{i}", p, max_tokens=12) for i, p in enumerate(PROMPTS[:8])]))
        on.close()
    raw, predicted = traces
    assert predicted.header.capabilities.cell_source == "predicted"
    assert [s.kv for s in raw.step_records] == [s.kv for s in predicted.step_records]


def test_eight_requests_with_300_shared_tokens_compute_them_once(q4):
    names = [f"r{i}" for i in range(8)]
    requests = [request(q4, n, PREFIX + f"Question {i}?", max_tokens=4) for i, n in enumerate(names)]
    num_shared = len(q4.tokenize(PREFIX))
    assert num_shared >= 180
    serve(q4, requests[:1])
    trace = serve(q4, requests[1:])
    hits = {name: n for step in trace.step_records for name, n in step.prefix_hits.items()}
    assert set(hits) == set(names[1:]) and all(n >= num_shared - 1 for n in hits.values())


def test_a_prompt_longer_than_the_budget_is_computed_in_chunks():
    on = engine("Q4_1", token_budget=32)
    trace = serve(on, [request(on, "r", PREFIX, max_tokens=2)])
    chunks = [share.num_tokens for step in trace.step_records for share in step.scheduled if share.phase == "prefill"]
    assert len(chunks) > 5 and max(chunks) == 32 and sum(chunks) == len(on.tokenize(PREFIX))
    on.close()


def test_urgent_requests_go_first():
    on = engine("Q4_1", max_num_seqs=1)
    names = {"slow": 1, "normal": 0, "urgent": -1}
    trace = serve(on, [request(on, n, "Hello", priority=p, max_tokens=3, ignore_eos=True) for n, p in names.items()])
    assert [name for step in trace.step_records for name in step.finished] == ["urgent", "normal", "slow"]
    on.close()


def test_an_abort_frees_its_cells_and_is_reported_once(q4):
    for name in ("gone", "stays"):
        q4.add_request(request(q4, name, f"A story about {name}:", max_tokens=8, ignore_eos=True))
    q4.step()
    q4.abort_request("gone")
    q4.abort_request("gone")
    finished = []
    while q4.has_unfinished_requests():
        finished.append(q4.step().finished)
    assert [f for f in finished if f] == [{"gone": "abort"}, {"stays": "length"}]
    assert q4.pool.num_free_blocks == q4.context.num_cells


def test_an_abort_of_the_last_request_is_still_reported(q4):
    q4.add_request(request(q4, "only", "Hello", max_tokens=50))
    q4.abort_request("only")
    assert q4.has_unfinished_requests()
    step = q4.step()
    assert step.finished == {"only": "abort"} and step.scheduled == ()


def test_an_interrupted_forward_pass_is_repeated_with_the_same_answer():
    on = engine("F32", options={"prefix_caching": False})
    question = PREFIX + " In one word, the topic is"
    want = token_ids(serve(on, [request(on, "whole", question, max_tokens=6)]), "whole")
    asked = request(on, "broken", question, max_tokens=6)
    on.add_request(asked)
    threading.Timer(0.05, on.interrupt).start()
    steps = []
    while on.has_unfinished_requests():
        steps.append(on.step())
    assert not steps[0].scheduled and not steps[0].finished and steps[0].kv.num_used == 0
    trace = Trace(on.header, (asked,), tuple(steps))
    assert token_ids(trace, "broken") == want and trace.validate() == []
    on.close()


def test_a_stop_string_ends_the_answer_and_is_not_shown(q4):
    whole = text(serve(q4, [request(q4, "r", "Count: one, two, three,", max_tokens=20)]), "r")
    word = whole.split()[2]
    trace = serve(q4, [request(q4, "r", "Count: one, two, three,", max_tokens=20, stop=[word])])
    assert text(trace, "r") == whole[: whole.index(word)]
    assert reason(trace, "r") == "stop"
    assert [step.stopped_by for step in trace.step_records if step.stopped_by] == [{"r": word}]


def test_the_text_of_the_tokens_is_the_text_of_the_answer(q4):
    trace = serve(q4, [request(q4, "r", "Emoji: 😀😃😄😁😆😅🤣😂🙂", max_tokens=30, ignore_eos=True)])
    joined = b"".join(q4.model.piece(i) for i in token_ids(trace, "r")).decode("utf-8", "replace")
    assert text(trace, "r") == joined


def test_logprobs_are_those_of_the_logits(q4):
    trace = serve(q4, [request(q4, "r", "The capital of France is", max_tokens=2, logprobs=5, temperature=0.7)])
    logits = q4.logits(q4.tokenize("The capital of France is"))[-1].astype(np.float64)
    want = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    token = trace.step_records[0].tokens[0]
    assert token.logprob == pytest.approx(want[token.token_id], abs=0.05)  # quantized: batches differ a little
    best = np.argsort(-want)[:5]
    assert token.top[0][0] == best[0] and len(token.top) == 5
    assert [lp for _, lp, _ in token.top] == sorted((lp for _, lp, _ in token.top), reverse=True)


def test_answers_end_at_the_limit_of_the_context():
    on = engine("Q4_1", max_model_len=40)
    trace = serve(on, [request(on, "r", list(range(100, 130)), max_tokens=500, ignore_eos=True)])
    assert len(token_ids(trace, "r")) == 10 and reason(trace, "r") == "length"
    on.close()


@pytest.mark.parametrize(
    ("prompt", "sampling", "sentence"),
    [
        ([], {}, "The prompt is empty"),
        ([5] * 5000, {}, "Prompt is 5000 tokens, max_model_len is 4096 and the answer needs one more. Cut 905 tokens"),
        ([49152], {}, "token id 49152 is not in the vocabulary of 49152 tokens"),
        ([5], {"max_tokens": 0}, "max_tokens is 0; it must be 1 or more"),
        ([5], {"temperature": -1}, "temperature is -1; it must be 0 (greedy) or more"),
        ([5], {"temperature": "hot"}, "wrong type"),
        ([5], {"stop": [""]}, "none of them empty"),
        ([5], {"stop": [5]}, "give a list of strings"),
        ([5], {"temprature": 1}, "Unknown sampling parameter 'temprature'"),
        ([5], {"grammar": "root ::= ("}, "llama.cpp cannot read the grammar"),
        ([5], {"json_schema": {"type": "banana"}}, "json_schema cannot be turned into a grammar"),
    ],
)
def test_a_bad_request_is_refused_in_words_and_changes_nothing(q4, prompt, sampling, sentence):
    before = (q4.scheduler.num_waiting, q4.pool.num_free_blocks, dict(q4._generations))
    with pytest.raises(RequestError) as refused:
        q4.add_request(request(q4, "r", prompt, **sampling))
    assert sentence in str(refused.value)
    assert (q4.scheduler.num_waiting, q4.pool.num_free_blocks, dict(q4._generations)) == before


def test_ten_thousand_requests_wait_without_trouble():
    on = engine("Q4_1")
    for i in range(10_000):
        on.add_request(request(on, f"r{i}", [5, 6, 7], max_tokens=1))
    started = time.perf_counter()
    step = on.step()
    assert step.num_waiting == 10_000 - 16 and len(step.waiting) == 64
    print(f"one step with 10,000 waiting: {1e3 * (time.perf_counter() - started):.0f} ms")
    for i in range(10_000):
        on.abort_request(f"r{i}")
    assert len(on.step().finished) == 10_000 - 16
    on.close()


@pytest.mark.slow
def test_a_lora_adapter_of_peft_is_applied_when_it_is_loaded_with_one(tmp_path):
    model = models.get("smollm2-135m")
    save_adapter(tmp_path, model.hf_dir, scale=0.1, alpha=8)
    logits = []
    for lora in (None, str(adapter_gguf(tmp_path, model))):
        on = engine("Q4_1", lora=lora)
        logits.append(on.logits(on.tokenize("The capital of France is"))[-1])
        on.close()
    assert np.abs(logits[0] - logits[1]).max() > 0.5


def test_a_lora_adapter_that_is_none_is_refused():
    with pytest.raises(EngineError, match=r"llama\.cpp cannot load the LoRA adapter"):
        engine("Q4_1", lora=str(models.get("smollm2-135m").gguf("Q4_1")))


class Nonsense(StaticBatching):
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        return {"nobody": 1}


def test_a_policy_plugs_in_and_a_wrong_one_is_refused_in_words():
    static = engine("Q4_1", policy=StaticBatching(), max_num_seqs=2)
    trace = serve(static, [request(static, f"r{i}", "Hi", max_tokens=3 + i, ignore_eos=True) for i in range(3)])
    assert [sorted(step.finished) for step in trace.step_records if step.finished] == [["r0"], ["r1"], ["r2"]]
    first_of_r2 = next(s.step for s in trace.step_records if "r2" in {x.request_id for x in s.scheduled})
    assert first_of_r2 == 4  # after both of the first batch have ended
    static.close()
    wrong = engine("Q4_1", policy=Nonsense())
    wrong.add_request(request(wrong, "r", "Hi"))
    with pytest.raises(PlanRefused, match="step 0: 'nobody' is neither waiting nor running"):
        wrong.step()
    wrong.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"theads": 2}, "Unknown option 'theads'"),
        ({"block_pool": "mine"}, "llama.cpp keeps its KV cache in cells, not blocks"),
        ({"policy": "lifo"}, "Unknown policy 'lifo'. Known: chunked, fcfs, static"),
    ],
)
def test_an_option_it_does_not_have_is_refused(options, sentence):
    with pytest.raises(EngineError) as refused:
        engine("Q4_1", options=options)
    assert sentence in str(refused.value)


def test_an_unknown_kv_dtype_is_refused():
    with pytest.raises(EngineError, match=r"Unknown KV cache dtype 'f12'\. Known: f16, f32, q4_0, q8_0"):
        engine("Q4_1", dtype="f12")


@pytest.mark.parametrize(("dtype", "bytes_per_token"), [("f32", 46080), ("f16", 23040), ("q8_0", 12240)])
def test_the_kv_cache_has_the_bytes_of_the_formula(dtype, bytes_per_token):
    on = engine("Q4_1", dtype=dtype, kv_tokens=512)
    assert on.header.kv_cache_bytes == 512 * bytes_per_token
    assert on.memory_bytes()["kv_used"] == 0
    on.add_request(request(on, "r", [5, 6, 7], max_tokens=2, ignore_eos=True))
    on.step()
    assert on.memory_bytes()["kv_used"] == 3 * bytes_per_token
    on.close()
