"""The handle, its runs and results, on the fake engine inline; test_host.py has what a process adds."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from fake_loading import LoadFake, sound

from llmlab.errors import RequestError
from llmlab.trace import Token


def test_generate_gives_the_answer_with_all_that_belongs_to_it(load_fake: LoadFake):
    eng = load_fake(step_s=0.01)
    result = eng.generate("abc", max_tokens=5)
    assert str(result) == f"{result}" == result.text == "abcab"
    assert result.token_ids == tuple(map(ord, "abcab"))
    assert bytes(result.prompt_token_ids).decode() == result.prompt_text == "<user>abc"
    assert (result.num_prompt_tokens, result.num_output_tokens, result.finish_reason) == (9, 5, "length")
    assert result.ttft_s is not None
    assert 0.01 <= result.ttft_s < result.e2e_s
    assert len(result.itl_s) == 4
    assert min(result.itl_s) > 0
    assert result.logprobs == (None,) * 5
    assert result.seed == 0
    assert eng.last is result
    assert sound(result.trace).step_records[-1].finished == {result.request_id: "length"}


def test_the_footer_names_engine_model_seed_tokens_and_times(load_fake: LoadFake):
    result = load_fake(step_s=0.02).generate("abc", max_tokens=3, seed=7)
    parts = result.footer.split(" · ")
    assert parts[:4] == ["fake 1", "a-model", "seed 7", "9+3 tokens"]
    assert parts[4].startswith("TTFT ")
    assert parts[5].endswith(" tok/s")
    assert repr(result) == f"{result.text}\n[{result.footer}]"


def test_what_was_not_measured_is_a_dash_in_the_footer(load_fake: LoadFake):
    eng = load_fake()
    eng.pause()
    run = eng.batch(["abc"])
    assert run.results[0].footer == "fake 1 · a-model · seed 0 · 0+0 tokens · TTFT – ms · – tok/s"
    assert (run.results[0].ttft_s, run.results[0].tokens_per_s, run.results[0].finish_reason) == (None, None, None)


def test_words_of_the_model_are_text_in_html_whatever_they_say(load_fake: LoadFake):
    words = "</div><script>alert(1)</script>"
    result = replace(load_fake().generate("abc"), tokens=(Token(request_id="r1", token_id=1, text=words),))
    shown = result._repr_html_()
    assert result.text == words
    assert "&lt;script&gt;alert(1)" in shown
    assert "<script" not in shown
    assert shown.count("<div") == shown.count("</div>") == 2


def test_a_stream_gives_each_token_as_it_comes(load_fake: LoadFake):
    stream = load_fake(step_s=0.01).stream("abc", max_tokens=4)
    events = list(stream)
    assert "".join(event.text for event in events) == stream.result.text == "abca"
    assert events[0].t_s == stream.result.ttft_s
    assert [event.t_s for event in events] == sorted(event.t_s for event in events)


def test_leaving_the_loop_over_a_stream_stops_the_answer_on_the_engine(load_fake: LoadFake):
    eng = load_fake(step_s=0.01)
    for number, _ in enumerate(stream := eng.stream("abc", max_tokens=200)):
        if number == 2:
            break
    assert stream.result.finish_reason == "interrupted"
    assert 3 <= stream.result.num_output_tokens < 200
    assert eng.num_open_requests == 0
    assert eng.memory()["kv_used"] == 0


def test_a_stream_is_an_iterator_too(load_fake: LoadFake):
    stream = load_fake().stream("abc", max_tokens=2)
    assert [next(stream).text, next(stream).text] == ["a", "b"]
    with pytest.raises(StopIteration):
        next(stream)


def test_a_batch_returns_at_once_and_its_results_are_in_the_order_of_the_prompts(load_fake: LoadFake):
    eng = load_fake(step_s=0.02, seqs=4)
    started = time.monotonic()
    run = eng.batch([f"prompt {i}" for i in range(10)], max_tokens=12)
    assert time.monotonic() - started < 0.1
    assert not run.done
    assert [result.text for result in run.wait()] == [f"prompt {i}prompt"[:12] for i in range(10)]
    assert run.progress == (10, 10)
    assert sound(run.trace).requests.shape[0] == 10


def test_each_prompt_of_a_batch_has_a_seed_of_its_own_and_may_have_more(load_fake: LoadFake):
    prompts = ["a", {"prompt": "b", "max_tokens": 2, "user": "ann"}, {"prompt": [97, 98], "seed": 99}]
    run = load_fake(seed=5).batch(prompts, max_tokens=3, temperature=0.5)
    results = run.wait()
    assert [(r.seed, r.num_output_tokens) for r in results] == [(5, 3), (6, 2), (99, 3)]
    assert [r.user for r in run.trace.request_records] == ["", "ann", ""]
    assert {r.sampling["temperature"] for r in results} == {0.5}
    assert results[2].prompt_token_ids == (97, 98)


def test_arrivals_spread_a_batch_in_time(load_fake: LoadFake):
    run = load_fake().batch(["a", "b", "c"], arrivals=[0.2, 0.0, 0.1], max_tokens=1)
    run.wait()
    at_s = {r.prompt_text: r.arrival_s for r in run.trace.request_records}
    assert at_s["<user>a"] - at_s["<user>b"] == pytest.approx(0.2)
    assert at_s["<user>c"] - at_s["<user>b"] == pytest.approx(0.1)
    assert all(result.ttft_s < 0.1 for result in run.results)


def test_a_run_can_be_iterated_twice_and_while_it_runs(load_fake: LoadFake):
    run = load_fake(step_s=0.005).batch(["ab", "cd"], max_tokens=4)
    first, second = list(run), list(run)
    assert first == second
    assert len(first) == 8
    text = {r.request_id: r.text for r in run.results}
    assert {r: "".join(e.text for e in first if e.request_id == r) for r in text} == text


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; it must be 1 or more."),
        ({"temperature": -1}, "temperature is -1; it must be 0 (greedy) or more."),
        ({"temperature": "hot"}, "A sampling parameter has the wrong type"),
        ({"stop": 5}, "A sampling parameter has the wrong type"),
        ({"stop": ["x", ""]}, "stop is ('x', ''); give a list of strings, none of them empty."),
        ({"max_token": 5}, "Unknown sampling parameter 'max_token'. Known: "),
        ({"seed": -1}, "seed is -1; it must be 0 to 4294967295."),
    ],
    ids=str,
)
def test_a_wrong_sampling_value_is_refused_before_anything_is_sent(
    load_fake: LoadFake, sampling: dict[str, object], text: str
):
    eng = load_fake()
    with pytest.raises(RequestError) as caught:
        eng.batch(["a", "b"], **sampling)
    assert str(caught.value).startswith(text)
    assert eng.num_open_requests == 0


@pytest.mark.parametrize(
    ("prompt", "options", "text"),
    [
        ("", {}, "The prompt is empty. Give it at least one word."),
        ("x" * 300, {}, "Prompt is 306 tokens, max_model_len is 256."),
        (3.5, {}, "A prompt is a text, a list of messages (role, content) or a list of token ids; got '3.5'."),
        (["a", "b"], {}, "A prompt is a text, a list of messages (role, content) or a list of token ids; got"),
        ({"text": "a"}, {}, "A request as a dict needs the key \"prompt\"; it has 'text'."),
        ([97], {"system": "Be short."}, "system was given together with token ids"),
        ("a", {"system": "Be short.", "raw": True}, "system was given together with raw=True"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_prompt_that_cannot_be_served_raises(load_fake: LoadFake, prompt: object, options: dict, text: str):
    with pytest.raises(RequestError) as caught:
        load_fake().generate(prompt, **options)
    assert str(caught.value).startswith(text)


def test_one_bad_prompt_of_a_batch_is_an_error_of_its_own(load_fake: LoadFake):
    good, bad, long = load_fake().batch(["a", "", "x" * 300], max_tokens=2).wait()
    assert (good.finish_reason, good.error) == ("length", None)
    assert (bad.finish_reason, bad.error) == ("error", "The prompt is empty. Give it at least one word.")
    assert long.error == "Prompt is 306 tokens, max_model_len is 256."
    assert repr(bad).startswith("The prompt is empty.")


def test_an_empty_batch_is_done(load_fake: LoadFake):
    run = load_fake().batch([])
    assert (run.done, run.wait(), list(run)) == (True, [], [])
    assert sound(run.trace).step_records == ()


def test_conversations_and_raw_texts_and_systems_are_sent_as_they_should(load_fake: LoadFake):
    eng = load_fake()
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "?"},
    ]
    assert eng.generate(turns, max_tokens=1).prompt_text == "<user>Hi<assistant>Ho<user>?"
    assert eng.generate("Hi", system="Short.", max_tokens=1).prompt_text == "<system>Short.<user>Hi"
    assert eng.generate("Hi", raw=True, max_tokens=1).prompt_text == "Hi"
    assert eng.generate(np.array([72, 105]), max_tokens=1).prompt_token_ids == (72, 105)


def test_a_stop_string_ends_the_answer_and_is_named(load_fake: LoadFake):
    eng = load_fake()
    result = eng.generate("hello world", raw=True, max_tokens=50, stop="wor")
    assert (result.text, result.finish_reason, result.stopped_by) == ("hello ", "stop", "wor")
    assert eng.generate("hello world", raw=True, stop=["zz", "wor"]).text == "hello "


def test_ten_thousand_requests_at_once_all_end(load_fake: LoadFake):
    run = load_fake(seqs=64, step_tokens=4096, num_cells=8192).batch([[97, 98]] * 10_000, max_tokens=1)
    results = run.wait(timeout=120)
    assert {result.finish_reason for result in results} == {"length"}
    assert len(results) == 10_000


def test_two_threads_can_use_one_engine(load_fake: LoadFake):
    eng, texts = load_fake(step_s=0.002), {}

    def ask(name: str) -> None:
        texts[name] = [eng.generate(name, raw=True, max_tokens=6).text for _ in range(10)]

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("abcdef", "uvwxyz")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert texts == {"abcdef": ["abcdef"] * 10, "uvwxyz": ["uvwxyz"] * 10}
    sound(eng.trace)
