"""The texts of tokens, as servers tell them; and those of answers in a server's steps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from llmlab.errors import EngineError
from llmlab.models.token_names import contents_of
from llmlab.remote.pieces import MAX_ALONE, Pieces
from llmlab.remote.words import PATIENCE_S, Words
from llmlab.trace import ScheduledRequest, Step, Token

NAMES = {1: "The", 2: "Ġsky", 3: "Ã", 4: "©", 5: "Ġ", 6: "sky", 7: "<｜end｜>"}
TEXTS = {1: "The", 2: " sky", 3: "\ufffd", 4: "\ufffd", 5: " ", 6: "sky", 7: "<｜end｜>"}


class LikeVllm:
    """A server that has the texts above, and reads each as the tokens of `read`."""

    def __init__(self, read: dict[str, list[int]] | None = None) -> None:
        self.read, self.asked = read or {}, list[tuple[str, Any]]()

    async def __call__(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((route, body.get("tokens", body.get("prompt"))))
        if route == "detokenize":
            text = "".join(TEXTS.get(i, f"t{i}") for i in body["tokens"])
            return {"prompt": text.replace("\ufffd\ufffd", "é")}
        tokens = self.read.get(body["prompt"], [])
        return {"tokens": tokens, "token_strs": [NAMES[i] for i in tokens], "count": len(tokens)}


def pieces_of(pieces: Pieces, token_ids: list[int]) -> list[bytes]:
    return asyncio.run(pieces.of(token_ids))


def test_two_questions_tell_what_the_tokens_of_a_prompt_are_and_a_third_is_not_asked():
    ids = [1, 2, 3, 4, 7, 1]
    server = LikeVllm({"The skyé<｜end｜>The": ids})
    pieces = Pieces(server)
    told = [b"The", b" sky", b"\xc3", b"\xa9", "<｜end｜>".encode(), b"The"]
    assert pieces_of(pieces, ids) == told
    assert [route for route, _ in server.asked] == ["detokenize", "tokenize"]
    assert pieces_of(pieces, [2, 4]) == [b" sky", b"\xa9"] and len(server.asked) == 2


def test_tokens_that_the_text_is_not_read_as_are_asked_for_one_by_one():
    server = LikeVllm({"The sky": [1, 2]})
    assert pieces_of(Pieces(server), [1, 5, 6]) == [b"The", b" ", b"sky"]
    assert [asked for route, asked in server.asked if route == "detokenize"] == [[1, 5, 6], [5], [6]]


def test_where_that_would_be_too_many_it_says_so():
    server = LikeVllm()
    with pytest.raises(EngineError, match=f"{MAX_ALONE + 1} of these tokens"):
        pieces_of(Pieces(server), list(range(100, 101 + MAX_ALONE)))
    assert len(server.asked) == 2


def test_names_that_are_neither_way_of_writing_the_text_are_not_believed():
    assert contents_of(["a", "b"], "ab") == [b"a", b"b"]
    assert contents_of(["<0xC3>", "<0xA9>", "▁sky"], "é sky") == [b"\xc3", b"\xa9", b" sky"]
    assert contents_of(["x"], "ab") is None and contents_of([], "ab") is None


# ---- words of answers


class Answer:
    """What Words needs of a run: two answers, of which so many texts have come."""

    request_ids = ("r1", "r2")

    def __init__(self) -> None:
        self.done = False
        self.texts: dict[str, list[str]] = {"r1": ["a", "b"], "r2": []}

    def text_of(self, request_id: str, index: int) -> str | None:
        texts = self.texts[request_id]
        return texts[index] if index < len(texts) else None


def step(number: int, t_s: float, **num_output: int) -> Step:
    """Each of these gets its next token; so many it had before."""
    rows = tuple(
        ScheduledRequest(
            request_id=name, phase="decode", num_tokens=1, num_computed_tokens=5, num_prompt_tokens=3,
            num_output_tokens=count,
        )
        for name, count in num_output.items()
    )  # fmt: skip
    return Step(step=number, t_s=t_s, scheduled=rows, tokens=tuple(Token(request_id=r, token_id=9) for r in num_output))


def words_of(answer: Answer) -> Words:
    words = Words()
    words.note(answer)  # type: ignore[arg-type]
    return words


def test_each_token_of_ours_gets_its_own_text_and_those_of_others_none():
    answer = Answer()
    told = words_of(answer).told(step(7, 0.0, other=4, r1=1))
    assert [(token.request_id, token.text) for token in told.tokens] == [("other", ""), ("r1", "b")]


def test_a_step_waits_for_its_words_but_not_for_ever_and_not_when_none_will_come():
    answer, now_s = Answer(), time.monotonic()
    words, steps = words_of(answer), [step(0, 0.0, r1=0), step(1, 0.0, r1=1, r2=0), step(2, 0.0, r1=2)]
    assert [one.step for one in words.in_time(steps, now_s)] == [0]
    answer.texts["r2"] = ["c"]
    assert [one.tokens[-1].text for one in words.in_time(steps, now_s)] == ["a", "c"]
    assert len(words.in_time(steps, now_s - PATIENCE_S)) == 3
    answer.done = True
    assert [one.tokens[0].text for one in words.in_time(steps, time.monotonic())] == ["a", "b", ""]
