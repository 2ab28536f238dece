"""Parting: the first token at which two columns differ, both distributions there, and the causes that were tested.

Where they part is read off the token ids; everything else is asked of the two engines when a run is over.
This file must not know how a comparison is run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, zip_longest
from math import exp, log
from typing import TYPE_CHECKING, Any, cast

from llmlab.compare.causes import Asker, causes_of
from llmlab.compare.columns import Column
from llmlab.engines.handle import EngineHandle
from llmlab.engines.prompts import PromptLike
from llmlab.engines.result import Result
from llmlab.errors import LlmlabError
from llmlab.parity.case import CUT_SHORT, Case, Side, case_of, fresh_pass
from llmlab.parity.causes import Cause

if TYPE_CHECKING:
    import pandas as pd

CLOSE_CALL_KL = 0.05  # nats: below it the distribution as a whole has hardly moved
Known = dict[int, tuple[float, str]]  # token id -> log probability, text
Row = tuple[int, str, float | None, float | None]


@dataclass(frozen=True)
class Parting:
    """Where and why the answers of two columns to one prompt part. Without evidence, `note` says why there is none."""

    # of the prompt in its set, from 0
    prompt: int
    # indices of the two columns
    columns: tuple[int, int]
    names: tuple[str, str]
    # of the first token that differs, from 0: so many are equal before it
    index: int
    # the text of either token; "(end)" where an answer had ended
    tokens: tuple[str, str]
    # what each engine says there; None when it could not be asked
    sides: tuple[Side, Side] | None = None
    # what either side finds most likely: (token_id, text, share of the first, of the second); None: not told
    rows: tuple[Row, ...] = ()
    # in the order in which a cause makes the next ones moot
    causes: tuple[Cause, ...] = ()
    # KL(first || second) in nats, at least: of the tokens that both tell, all others taken as one. None: not measured
    kl: float | None = None
    note: str = ""

    @property
    def cause(self) -> Cause | None:
        """The first cause that its test confirmed."""
        return next((cause for cause in self.causes if cause.verdict == "confirmed"), None)

    @property
    def gap(self) -> float | None:
        """How much more likely the first column finds its own token than the other's, as a share; None: not known."""
        if self.sides is None:
            return None
        shares = {token_id: share for token_id, _, share, _ in self.rows}
        own, other = (shares.get(side.token_id) if side.token_id is not None else None for side in self.sides)
        return None if own is None or other is None else own - other

    @property
    def sentence(self) -> str:
        """One line: where, what, why."""
        says = ", ".join(f"{name} says {text!r}" for name, text in zip(self.names, self.tokens, strict=True))
        if self.cause is not None:
            why = f"Cause, tested: {self.cause.name} ({self.cause.finding})."
        else:
            why = self.note or "No tested cause explains it."
        return f"{self.names[0]} and {self.names[1]} part at token {self.index}: {says}. {why}"

    @property
    def verdict(self) -> str:
        """What the distance of the two distributions means, in words; "" when it was not measured."""
        if self.kl is None:
            return ""
        if self.kl < CLOSE_CALL_KL:
            return (
                "A close call: a change of a few points in one probability picks another token, and all later text "
                "follows from it."
            )
        return "Not a close call: the distribution itself has moved."

    def table(self) -> pd.DataFrame:
        """The most likely tokens of either side there, with their probabilities."""
        import pandas as pd

        rows = [(text, a, b) for _, text, a, b in self.rows]
        columns = ["token", f"p {self.names[0]}", f"p {self.names[1]}"]
        return pd.DataFrame(rows, columns=columns, index=range(1, len(rows) + 1))

    def __repr__(self) -> str:
        return "\n".join([self.sentence, *(f"  {cause}" for cause in self.causes)])


def first_parting(a: Result, b: Result) -> int | None:
    """Index of the first token that differs in id or text, or that only one of two complete answers has.

    >>> from llmlab.trace import Header
    >>> first_parting(Result("r", Header(engine="x")), Result("r", Header(engine="x"))) is None
    True
    """
    if not (a.header.capabilities.token_ids and b.header.capabilities.token_ids):
        return _parting_of_texts(a, b)
    for index, (one, other) in enumerate(zip_longest(a.tokens, b.tokens)):
        if one is None or other is None:
            shorter = a if one is None else b
            return None if shorter.finish_reason in CUT_SHORT else index
        if (one.token_id, one.text) != (other.token_id, other.text):
            return index
    return None


def _parting_of_texts(a: Result, b: Result) -> int | None:
    """The same of answers whose token ids cannot be compared: the token of `a` that holds the first other character."""
    end = next((i for i, (x, y) in enumerate(zip_longest(a.text, b.text)) if x != y), None)
    if end is None or (
        min(len(a.text), len(b.text)) == end and (a if len(a.text) == end else b).finish_reason in CUT_SHORT
    ):
        return None
    lengths = accumulate(len(token.text) for token in a.tokens)
    return next((index for index, length in enumerate(lengths) if length > end), len(a.tokens))


def parting_of(columns: list[Column], pair: tuple[int, int], prompt: int, asked: PromptLike) -> Parting | None:
    """Where two columns part on this prompt, and why: both engines are asked again, now. None when they do not."""
    found = where(columns, pair, prompt)
    if found is None:
        return None
    sides = [columns[i] for i in pair]
    a, b = (side.result(prompt) for side in sides)
    assert a is not None and b is not None  # else nothing would part
    results = (a, b)
    recorded = [side.name for side in sides if side.handle.engine == "replay"]
    if recorded:
        return replace(found, note=f"No cause was tested: {recorded[0]} plays a recording, and cannot be asked again.")
    content, own = _split(asked)
    askers = [
        cast(EngineHandle, Asker(side.handle, side.name, {**side.options, **own, "seed": result.seed}))
        for side, result in zip(sides, results, strict=True)
    ]
    try:
        case = case_of((askers[0], askers[1]), results, content, {})
        if case is None:
            return found
        tops = _tops(case)
        return replace(
            found,
            sides=case.sides,
            tokens=(case.sides[0].text, case.sides[1].text),
            rows=_rows(case, tops),
            causes=causes_of(case),
            kl=coarse_kl(*({i: logprob for i, (logprob, _) in top.items()} for top in tops)),
            note="",
        )
    except LlmlabError as error:
        return replace(found, note=f"No cause was tested: {str(error).splitlines()[0]}")


def where(columns: list[Column], pair: tuple[int, int], prompt: int) -> Parting | None:
    """Where two columns part, as far as they have come; from the tokens alone."""
    sides = [columns[i] for i in pair]
    a, b = (side.result(prompt) for side in sides)
    index = None if a is None or b is None else first_parting(a, b)
    if a is None or b is None or index is None:
        return None
    tokens = tuple(result.tokens[index].text if index < len(result.tokens) else "(end)" for result in (a, b))
    names = (sides[0].name, sides[1].name)
    return Parting(prompt, pair, names, index, (tokens[0], tokens[1]), note="No cause was tested.")


def _split(asked: PromptLike) -> tuple[PromptLike, dict[str, Any]]:
    """A request as a dict: what it asks, and its own settings."""
    if not isinstance(asked, dict):
        return asked, {}
    own = dict(asked)
    return own.pop("prompt"), {name: value for name, value in own.items() if name not in ("priority", "user")}


def _tops(case: Case) -> list[Known]:
    """What either engine finds most likely at the token in question, in a fresh pass over the same token ids."""
    before = [*case.results[0].prompt_token_ids, *case.results[0].token_ids[: case.index]]
    passes = [fresh_pass(handle, before) for handle in case.handles]
    return [{token_id: (logprob, text) for token_id, logprob, text in top} for top in passes]


def _rows(case: Case, tops: list[Known]) -> tuple[Row, ...]:
    """The five most likely tokens of either side; a share that the answer itself does not tell is of the fresh pass."""
    sides = [{i: (logprob, text) for i, logprob, text in side.top} for side in case.sides]
    a, b = ({**top, **side} for top, side in zip(tops, sides, strict=True))
    texts = {i: text for side in sides for i, (_, text) in side.items()}
    rows = [(i, text, exp(a[i][0]) if i in a else None, exp(b[i][0]) if i in b else None) for i, text in texts.items()]
    return tuple(sorted(rows, key=lambda row: -((row[2] or 0.0) + (row[3] or 0.0))))


def coarse_kl(a: dict[int, float], b: dict[int, float]) -> float | None:
    """KL(a || b) in nats over the tokens that both tell (log probabilities), all others taken as one; None without any.

    Taking outcomes together never makes a divergence larger: it is a lower bound of that over the whole vocabulary.

    >>> coarse_kl({1: log(0.5), 2: log(0.5)}, {1: log(0.9), 2: log(0.1)})
    0.5108

    Source: Kullback and Leibler, On Information and Sufficiency (1951), section 4 (data processing).
    """
    both = [token_id for token_id in a if token_id in b]
    if not both:
        return None
    shares = [(exp(a[i]), exp(b[i])) for i in both]
    rest = tuple(max(1e-12, 1 - sum(column)) for column in zip(*shares, strict=True))
    total = sum(p * log(p / q) for p, q in [*shares, (rest[0], rest[1])] if p > 0)
    return round(max(0.0, total), 4)
