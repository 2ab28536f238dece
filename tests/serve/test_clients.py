"""Engines behind the server, asked by the clients that people use: OpenAI's, LangChain's. torch and vLLM: make soak."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import openai
import pytest
from serve_support import NOTHING, Served, wait_until

from llmlab.engines.result import Result

pytestmark = pytest.mark.slow  # with torch and vLLM also pytest.mark.soak: conftest.py

QUESTION: list[Any] = [{"role": "user", "content": "Name three colours."}]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@contextmanager
def or_refusal(can: bool, says: str) -> Iterator[None]:
    """What an engine can do is done in the block; another one refuses it, in a sentence that matches `says`."""
    with nullcontext() if can else pytest.raises(openai.BadRequestError, match=says):
        yield


@pytest.fixture(scope="module")
def own(engine: Served) -> Result:
    """What the handle itself says to QUESTION."""
    return engine.handle.generate("Name three colours.", max_tokens=8, logprobs=3)


def test_a_chat_answers_as_the_handle_does_and_counts_the_same_tokens(client: openai.OpenAI, own: Result):
    answer = client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=8, temperature=0)
    assert answer.choices[0].message.content == own.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == own.finish_reason
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        own.num_prompt_tokens,
        own.num_output_tokens,
    )
    assert answer.usage.total_tokens == own.num_prompt_tokens + own.num_output_tokens


def test_a_streamed_chat_is_the_same_text_with_its_end_and_usage(client: openai.OpenAI, own: Result):
    chunks = list(
        client.chat.completions.create(
            model="smol", messages=QUESTION, max_tokens=8, temperature=0, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == own.text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + [own.finish_reason]
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == own.num_output_tokens


def test_a_completion_goes_on_with_the_bare_text(client: openai.OpenAI, engine: Served):
    model = engine.handle.model  # either name will do: that of the engine, that of the model
    answer = client.completions.create(model=model, prompt="The capital of France is", max_tokens=4, temperature=0)
    own = engine.handle.generate("The capital of France is", raw=True, max_tokens=4)
    assert answer.choices[0].text == own.text
    assert answer.model == model


def test_several_prompts_and_choices_come_in_order(client: openai.OpenAI, engine: Served):
    texts = ["1, 2, 3, 4, 5, 6,", "a, b, c, d, e, f,"]
    prompts: Any = [texts[0], engine.handle.tokenize(texts[1])]
    answer = client.completions.create(model="smol", prompt=prompts, n=2, max_tokens=4, temperature=0)
    own = [engine.handle.generate(prompt, raw=True, max_tokens=4).text for prompt in texts]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == [own[0], own[0], own[1], own[1]]


def test_choices_differ_and_a_seed_repeats_them(client: openai.OpenAI):
    def texts(seed: int | None) -> list[str | None]:
        answer = client.chat.completions.create(
            model="smol", messages=QUESTION, max_tokens=6, temperature=1.2, n=3, seed=seed
        )
        return [choice.message.content for choice in answer.choices]

    first = texts(7)
    assert first == texts(7)
    assert len(set(first)) > 1
    assert texts(None) != texts(None)


def test_streamed_choices_are_told_apart(client: openai.OpenAI):
    whole = client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=6, temperature=1, n=3, seed=3)
    texts, ends = {0: "", 1: "", 2: ""}, {}
    for chunk in client.chat.completions.create(
        model="smol", messages=QUESTION, max_tokens=6, temperature=1, n=3, seed=3, stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends.get(choice.index)
    assert list(texts.values()) == [choice.message.content for choice in whole.choices]
    assert [ends[i] for i in range(3)] == [choice.finish_reason for choice in whole.choices]


def test_a_stop_string_ends_the_answer_before_it(client: openai.OpenAI):
    prompt = "Count: 1, 2, 3, 4, 5, 6,"
    free = client.completions.create(model="smol", prompt=prompt, max_tokens=24, temperature=0).choices[0].text
    assert "9" in free
    held = client.completions.create(model="smol", prompt=prompt, max_tokens=24, temperature=0, stop=["9", "zebra"])
    assert held.choices[0].text == free[: free.index("9")]
    assert held.choices[0].finish_reason == "stop"


def test_log_probabilities_are_those_of_the_engine(client: openai.OpenAI, own: Result):
    answer = client.chat.completions.create(
        model="smol", messages=QUESTION, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3
    )
    assert answer.choices[0].logprobs is not None
    told = answer.choices[0].logprobs.content or []
    assert [token.logprob for token in told] == pytest.approx(list(own.logprobs), abs=2e-3)
    assert b"".join(bytes(token.bytes or []) for token in told).decode().startswith(own.text)
    for token in told:
        tops = [top.logprob for top in token.top_logprobs]
        assert len(tops) == 3 and tops == sorted(tops, reverse=True)
        assert math.isclose(tops[0], token.logprob, abs_tol=2e-3)  # greedy


def test_streamed_log_probabilities_are_the_same(client: openai.OpenAI):
    asked: dict[str, Any] = dict(model="smol", messages=QUESTION, max_tokens=4, temperature=0, logprobs=True)
    whole = client.chat.completions.create(**asked).choices[0].logprobs.content
    streamed = [
        token
        for chunk in client.chat.completions.create(**asked, stream=True)
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert [(t.token, t.bytes) for t in streamed] == [(t.token, t.bytes) for t in whole]


def test_the_log_probabilities_of_a_completion_say_where_each_token_begins(client: openai.OpenAI):
    choice = client.completions.create(model="smol", prompt="A B C", max_tokens=5, temperature=0, logprobs=2).choices[0]
    told = choice.logprobs
    assert told is not None and told.tokens is not None and told.text_offset is not None
    assert [
        choice.text[start : start + len(t)] for start, t in zip(told.text_offset, told.tokens, strict=True)
    ] == told.tokens
    assert all(len(top) == 2 for top in told.top_logprobs or [])


def test_an_answer_follows_a_json_schema_where_the_engine_can_hold_it_to_one(client: openai.OpenAI, engine: Served):
    with or_refusal(engine.handle.capabilities.json_schema, "cannot hold an answer to a form"):
        answer = client.chat.completions.create(
            model="smol", messages=[{"role": "user", "content": "Invent a person."}], max_tokens=60, temperature=0,
            response_format={
                "type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True},
            },
        )  # fmt: skip
        person = json.loads(answer.choices[0].message.content or "")
        assert person.keys() == {"name", "age"}
        assert 1 <= person["age"] <= 99


def test_json_mode_gives_an_object(client: openai.OpenAI, engine: Served):
    with or_refusal(engine.handle.capabilities.json_schema, "cannot hold an answer to a form"):
        answer = client.chat.completions.create(
            model="smol", messages=[{"role": "user", "content": "Write an empty JSON object."}], max_tokens=40,
            temperature=0, response_format={"type": "json_object"},
        )  # fmt: skip
        text = answer.choices[0].message.content or ""
        assert text.lstrip().startswith("{")
        assert answer.choices[0].finish_reason == "length" or isinstance(json.loads(text), dict)


def test_texts_of_like_meaning_have_like_vectors(client: openai.OpenAI, engine: Served):
    texts = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose again in March."]
    with or_refusal(engine.handle.header.engine == "llamacpp", "makes no embeddings"):
        answer = client.embeddings.create(model="smol", input=texts)
        cat, kitten, rates = (item.embedding for item in answer.data)
        near, far = (sum(a * b for a, b in zip(cat, other, strict=True)) for other in (kitten, rates))
        assert near > far
        assert sum(value * value for value in cat) == pytest.approx(1, abs=1e-3)
        assert answer.usage.prompt_tokens == sum(len(engine.handle.tokenize(text)) for text in texts)
    assert engine.handle.trace.validate() == []


def test_the_models_are_what_is_served(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["smol"]
    assert client.models.retrieve("smol").id == "smol"
    with pytest.raises(openai.NotFoundError, match="This server has 'smol'"):
        client.models.retrieve("gpt-4")


def test_errors_are_those_that_the_client_knows(client: openai.OpenAI):
    with pytest.raises(openai.BadRequestError, match="max_model_len is 1024"):
        client.completions.create(model="smol", prompt="word " * 3000)
    with pytest.raises(openai.BadRequestError, match="is not in the vocabulary"):
        client.completions.create(model="smol", prompt=[10**8])
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_leaving_a_stream_early_frees_its_cells_or_blocks(client: openai.OpenAI, engine: Served):
    stream = client.completions.create(model="smol", prompt="Once upon a time", max_tokens=900, stream=True)
    for _, _chunk in zip(range(3), stream, strict=False):
        pass
    assert engine.left()["answers"] == 1 and engine.left()["held"] > 0
    stream.close()
    assert wait_until(engine.is_idle)
    assert engine.left() == NOTHING


def test_16_streams_at_once_share_the_batch_and_each_gets_its_own_text(engine: Served):
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key=engine.token) as client:

            async def ask(number: int) -> str:
                stream = await client.completions.create(
                    model="smol", prompt=f"{number}, {number + 1},", max_tokens=4, temperature=0, stream=True
                )
                return "".join([chunk.choices[0].text async for chunk in stream])

            return await asyncio.gather(*(ask(number) for number in range(16)))

    first = engine.handle.trace.steps.shape[0]
    texts = asyncio.run(ask_all())
    steps = engine.handle.trace.step_records[first:]
    assert max(len(step.tokens) for step in steps) > 8
    run = engine.handle.batch([f"{number}, {number + 1}," for number in range(16)], raw=True, max_tokens=4)
    same = [text == result.text for text, result in zip(texts, run.wait(), strict=True)]
    assert sum(same) >= 14  # in another batch, sums are added up in another order


def test_langchain_chats_streams_and_takes_structured_answers(engine: Served, own: Result):
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        model="smol", base_url=f"{engine.url}/v1", api_key=engine.token, temperature=0, max_tokens=8, seed=1
    )
    answer = chat.invoke("Name three colours.")
    assert answer.content == own.text
    assert answer.usage_metadata["output_tokens"] == own.num_output_tokens
    assert "".join(str(chunk.content) for chunk in chat.stream("Name three colours.")) == own.text
    chat = chat.model_copy(update={"max_tokens": 60})
    with or_refusal(engine.handle.capabilities.json_schema, "cannot hold an answer to a form"):
        asked = chat.with_structured_output({"title": "person", **PERSON}, method="json_schema")
        assert asked.invoke("Invent a person.").keys() == {"name", "age"}
