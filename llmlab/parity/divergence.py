"""The first token at which two engines part, with both distributions there and the causes that were tested.

This file must not know manifests.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from math import exp
from typing import TYPE_CHECKING, Any

from llmlab.engines.handle import EngineHandle
from llmlab.engines.prompts import PromptLike
from llmlab.engines.result import Result
from llmlab.parity.case import Case, Side, case_of
from llmlab.parity.causes import Cause, tested
from llmlab.parity.probes import MAX_TOKENS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Divergence:
    """Where and why two greedy answers to one prompt part."""

    prompt: str
    # of the first token that differs, from 0
    index: int
    # what both had said until then
    text_before: str
    a: Side
    b: Side
    # in the order in which they were tested
    causes: tuple[Cause, ...]

    @property
    def tokens(self) -> tuple[str, str]:
        """The text of either token."""
        return self.a.text, self.b.text

    @property
    def cause(self) -> Cause | None:
        """The first cause that its test confirmed."""
        return next((cause for cause in self.causes if cause.verdict == "confirmed"), None)

    def table(self) -> pd.DataFrame:
        """The most likely tokens of either side there, with their probabilities."""
        import pandas as pd

        rows = [
            (*((x[2], exp(x[1])) if x else (None, None)), *((y[2], exp(y[1])) if y else (None, None)))
            for x, y in zip_longest(self.a.top, self.b.top)
        ]
        columns = [self.a.name, f"p {self.a.name}", self.b.name, f"p {self.b.name}"]
        return pd.DataFrame(rows, columns=columns, index=range(1, len(rows) + 1))

    @property
    def sentence(self) -> str:
        """One line: where, what, why."""
        parting = f"{self.a.name} says {self.a.text!r}, {self.b.name} says {self.b.text!r}"
        why = f"Cause, tested: {self.cause.name}." if self.cause else "No tested cause explains it."
        return f"The answers part at token {self.index}: {parting}. {why}"

    def __repr__(self) -> str:
        from llmlab.parity.page import divergence_text

        return divergence_text(self)

    def _repr_html_(self) -> str:
        from llmlab.parity.page import divergence_html, framed

        return framed(divergence_html(self))


def first_divergence(
    a: EngineHandle,
    b: EngineHandle,
    prompt: PromptLike,
    *,
    max_tokens: int = MAX_TOKENS,
    results: tuple[Result, Result] | None = None,
    **options: Any,
) -> Divergence | None:
    """The first token at which the answers of two engines differ, and why; None when they are equal.

    Both are asked now, one after the other, unless `results` has their answers. Greedy unless the options, those of
    generate(), say otherwise. The causes are tested by asking both engines again.

    >>> llmlab.first_divergence(f32, q4, "Why is the sky blue?").cause.name     # doctest: +SKIP
    'quantization'

    Raises: EngineError when their vocabularies differ; RequestError when the prompt cannot be served as asked.
    """
    if results is None:
        first = a.generate(prompt, max_tokens=max_tokens, **options)
        results = (first, b.generate(prompt, max_tokens=max_tokens, **options))
    case = case_of((a, b), results, prompt, options)
    return None if case is None else divergence_of(case)


def divergence_of(case: Case) -> Divergence:
    """The evidence, and the causes tested on it."""
    answer = case.results[0]
    return Divergence(
        prompt=answer.prompt_text or f"{answer.num_prompt_tokens} token ids",
        index=case.index,
        text_before=case.handles[0].detokenize(answer.token_ids[: case.index]),
        a=case.sides[0],
        b=case.sides[1],
        causes=tested(case),
    )
