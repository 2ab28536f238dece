"""The evidence on one divergence: two answers, the place where they part, and what each engine says at the same tokens.

This file must not know causes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

from llmlab.engines.handle import EngineHandle
from llmlab.engines.prompts import PromptLike
from llmlab.engines.result import Result
from llmlab.errors import EngineError, RequestError

NUM_TOP = 5  # shown
NUM_ASKED = 64  # asked for: both candidates are nearly always among them
# An answer that ended so says nothing of what comes after it; None: it has not ended.
CUT_SHORT = (None, "interrupted", "abort", "error")
_salts = itertools.count()
Top = tuple[tuple[int, float, str], ...]  # (token_id, logprob, text), best first


@dataclass(frozen=True, slots=True)
class Side:
    """What one engine says where the answers part."""

    name: str
    # its token there; None: its answer had ended
    token_id: int | None
    text: str
    # the most likely tokens there
    top: Top
    # Which forward pass said so: that of the answer itself, of the same answer given again, or, when it does not come
    # out the same again, one over all the tokens before.
    source: Literal["answer", "asked again", "fresh pass"]
    # By how much it prefers its own token to the other engine's, in nats; negative: not in this pass. None
    # when an answer had ended, or the other's token is not among its 64 most likely.
    gap: float | None = None


@dataclass(frozen=True)
class Case:
    """Two answers to one prompt that part at token `index`."""

    handles: tuple[EngineHandle, EngineHandle]
    results: tuple[Result, Result]
    prompt: PromptLike
    options: dict[str, Any]
    index: int
    sides: tuple[Side, Side]

    @property
    def is_reproduced(self) -> bool | None:
        """Whether the passes that `sides` tell of part as the answers did; None: cannot be told."""
        gaps = [side.gap for side in self.sides]
        return None if None in gaps else all(gap > 0 for gap in gaps if gap is not None)

    @property
    def moved(self) -> float | None:
        """How far the two engines move the two candidates against each other at the same token ids, in nats."""
        a, b = (side.gap for side in self.sides)
        return None if a is None or b is None else a + b


def first_difference(a: tuple[int, ...], b: tuple[int, ...]) -> int | None:
    """Index of the first token that differs, or that only one of them has.

    >>> first_difference((5, 6, 7), (5, 9, 7)), first_difference((5, 6), (5,)), first_difference((5,), (5,))
    (1, 1, None)
    """
    for index, (one, other) in enumerate(itertools.zip_longest(a, b)):
        if one != other:
            return index
    return None


def case_of(
    handles: tuple[EngineHandle, EngineHandle],
    results: tuple[Result, Result],
    prompt: PromptLike,
    options: dict[str, Any],
) -> Case | None:
    """The evidence where two answers part, gathered now; None when they do not.

    Raises: EngineError when the two engines do not mean the same by a token id.
    """
    a, b = (result.token_ids for result in results)
    if any(result.finish_reason in CUT_SHORT for result in results):
        a, b = a[: len(b)], b[: len(a)]
    index = first_difference(a, b)
    if index is None:
        return None
    before = [*results[0].prompt_token_ids, *a[:index]]
    candidates = [answer[index] if index < len(answer) else None for answer in (a, b)]
    require_same_tokens(*handles, [*before, *(c for c in candidates if c is not None)])
    own, other = candidates
    passes = [
        _Pass.of(handle, result, prompt, options, index, before)
        for handle, result in zip(handles, results, strict=True)
    ]
    sides = (_side(handles[0], passes[0], own, other), _side(handles[1], passes[1], other, own))
    return Case(handles, results, prompt, options, index, sides)


@dataclass(frozen=True, slots=True)
class _Pass:
    """One forward pass: its most likely tokens, and where it comes from."""

    top: Top
    source: Literal["answer", "asked again", "fresh pass"]

    @classmethod
    def of(
        cls,
        handle: EngineHandle,
        result: Result,
        prompt: PromptLike,
        options: dict[str, Any],
        index: int,
        before: list[int],
    ) -> _Pass:
        if index < result.num_output_tokens and len(result.tokens[index].top) > NUM_TOP:
            return cls(result.tokens[index].top, "answer")
        again = handle.generate(prompt, **{**options, "max_tokens": index + 1, "logprobs": NUM_ASKED})
        if again.num_output_tokens > index and again.token_ids == result.token_ids[: index + 1]:
            return cls(again.tokens[index].top, "asked again")
        return cls(fresh_pass(handle, before), "fresh pass")


def fresh_pass(handle: EngineHandle, before: list[int]) -> Top:
    """What an engine finds most likely after these token ids, in one pass over all of them."""
    # A salt of its own: no KV is taken over from the request that is looked into.
    salt = f"parity-{next(_salts)}"
    fresh = handle.generate(before, max_tokens=1, temperature=0.0, logprobs=NUM_ASKED, ignore_eos=True, salt=salt)
    return fresh.tokens[0].top


def _side(handle: EngineHandle, seen: _Pass, own: int | None, other: int | None) -> Side:
    logprob = {token_id: value for token_id, value, _ in seen.top}
    text = "(end)" if own is None else handle.detokenize([own])
    is_told = own in logprob and other in logprob
    gap = logprob[own] - logprob[other] if is_told and own is not None and other is not None else None
    return Side(handle.name, own, text, seen.top[:NUM_TOP], seen.source, gap)


def require_same_tokens(a: EngineHandle, b: EngineHandle, token_ids: list[int]) -> None:
    """Raises: EngineError when these ids are not the same tokens on both engines."""
    if not has_same_tokens(a, b, token_ids):
        raise EngineError(
            f"{a.name} and {b.name} do not mean the same by a token id: their vocabularies differ, so their tokens "
            "cannot be compared one by one. Load the same model on both (`%llm load MODEL -e both`)."
        )


def has_same_tokens(a: EngineHandle, b: EngineHandle, token_ids: list[int]) -> bool:
    """Whether each of these ids has the same bytes on both."""
    distinct = sorted(set(token_ids))
    try:
        return a.pieces(distinct) == b.pieces(distinct)
    except RequestError:  # an id that one of them does not have
        return False
