"""What the tests of causes hold instead of a handle: an engine whose every answer is written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from llmlab.engines.result import Result
from llmlab.trace import Header, Token

Top = tuple[tuple[int, float, str], ...]
WORDS = ["<s>", "the", "cat", "dog", "sat"]


@dataclass
class Stub:
    """Token ids are indices of WORDS; `alone` and `in_batch` are what it answers when it is asked again."""

    name: str
    alone: tuple[int, ...] = ()
    in_batch: tuple[int, ...] = ()
    dtype: str = "float32"
    quant: str | None = None
    fingerprint: str | None = "sha256:0123456789abcdef"
    tokens_of: dict[str, list[int]] = field(default_factory=dict)
    lora: str | None = None

    @property
    def header(self) -> Header:
        return Header(engine="stub", dtype=self.dtype, quant=self.quant, fingerprint=self.fingerprint)

    @property
    def config(self) -> SimpleNamespace:
        return SimpleNamespace(lora=self.lora)

    def tokenize(self, text: str) -> list[int]:
        return self.tokens_of.get(text, [0, 1])

    def pieces(self, token_ids: list[int]) -> list[bytes]:
        return [WORDS[i].encode() for i in token_ids]

    def detokenize(self, token_ids: Any) -> str:
        return " ".join(WORDS[i] for i in token_ids)

    def generate(self, prompt: Any, **options: Any) -> Result:
        return answer(self.alone[: options["max_tokens"]])

    def batch(self, prompts: list[Any], **options: Any) -> SimpleNamespace:
        return SimpleNamespace(wait=lambda: [answer(self.in_batch[: options["max_tokens"]])] * len(prompts))


def answer(
    token_ids: tuple[int, ...],
    *,
    top: Top = (),
    text: str | None = "the",
    prompt: tuple[int, ...] = (0, 1),
    **sampling: Any,
) -> Result:
    """A greedy answer; `top` are the most likely tokens at its last place."""
    tokens = tuple(Token(request_id="r", token_id=i, text=WORDS[i]) for i in token_ids[:-1])
    last = tuple(Token(request_id="r", token_id=i, text=WORDS[i], top=top) for i in token_ids[-1:])
    return Result(
        request_id="r",
        header=Header(engine="stub"),
        prompt_text=text,
        prompt_token_ids=prompt,
        tokens=(*tokens, *last),
        finish_reason="length",
        sampling={"temperature": 0.0, **sampling},
    )
