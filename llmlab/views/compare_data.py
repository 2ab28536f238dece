"""A comparison as its page draws it: a head with what holds for all of it, and one cell for each prompt and place.

The figures are made here; static/compare.js draws them. While names are hidden, nothing here gives them away.
This file must not know widgets or notebooks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from llmlab.cards import bytes_text
from llmlab.compare import Comparison, Parting
from llmlab.compare.columns import Column
from llmlab.compare.diffs import diff, spans, words
from llmlab.compare.votes import LETTERS
from llmlab.engines.result import Result
from llmlab.views.story import head_of
from llmlab.views.tokens import sampling_words

MAX_PROMPTS = 200  # that a page shows; the table has all
MAX_DIFF_CHARS = 20_000  # of one answer, for the words that differ
Data = dict[str, Any]
Span = tuple[int, int]
_NUMBERS = {2: "two", 3: "three", 4: "four"}


def compare_data(comparison: Comparison) -> Data:
    """All of it, as showCompare() of static/compare.js takes it."""
    shown = num_shown(comparison)
    places = range(len(comparison.columns))
    cells = [[cell_data(comparison, prompt, place) for place in places] for prompt in range(shown)]
    return {"head": head_data(comparison), "cells": cells}


def num_shown(comparison: Comparison) -> int:
    return min(MAX_PROMPTS, len(comparison.asked.prompts))


def head_data(comparison: Comparison) -> Data:
    """What changes seldom: names, state, where columns part and why, votes."""
    blind, shown = comparison.is_blind, num_shown(comparison)
    prompts = comparison.prompts
    notes = [comparison.asked.note]
    if shown < len(prompts):
        notes.append(f"The first {shown} of {len(prompts)} prompts are shown; `.table()` has all.")
    return {
        "title": title(comparison),
        "subtitle": subtitle(comparison),
        "notes": [note for note in notes if note],
        "state": comparison.state,
        "blind": blind,
        "prompts": prompts[:shown],
        "columns": [_column(comparison, place) for place in range(len(comparison.columns))],
        "has_logprobs": not blind and any(column.options.get("logprobs") is not None for column in comparison.columns),
        "partings": [] if blind else [parting_data(p) for p in comparison.tested_partings() if p.prompt < shown],
        "votes": {vote.prompt: _place(comparison, vote.prompt, vote.winner) for vote in comparison.votes},
        "rates": _rates(comparison),
    }


def cell_data(comparison: Comparison, prompt: int, place: int, since: int = 0) -> Data:
    """One answer, its tokens from `since` on. `differs_at`: the first token that is not that of the first column."""
    index = comparison.order(prompt)[place]
    column = comparison.columns[index]
    result = column.result(prompt)
    held = comparison.is_blind and not all_answered(comparison, prompt)
    if result is None or held:
        return {"from": 0, "tokens": [], "state": _waiting(column, held), "error": column.error}
    tokens = [[token.text, token.logprob] for token in result.tokens[since:]]
    cell: Data = {"from": since, "tokens": tokens, "state": result.finish_reason or "streaming"}
    cell["error"] = result.error if result.finish_reason == "error" else None
    if not comparison.is_blind:
        parting = comparison.known_parting(prompt, index) if index else None
        cell |= {
            "ttft_s": result.ttft_s,
            "tokens_per_s": result.tokens_per_s,
            "differs_at": parting.index if parting is not None else None,
            "changed": _changed(comparison, prompt, index, result),
        }
    return cell


def parting_data(parting: Parting) -> Data:
    """The evidence as rows, the causes as words."""
    own = [side.token_id for side in parting.sides] if parting.sides else [None, None]
    cause = parting.cause
    return {
        "prompt": parting.prompt,
        "b": parting.columns[1],
        "names": list(parting.names),
        "index": parting.index,
        "tokens": list(parting.tokens),
        "rows": [[text, a, b, i == own[0], i == own[1]] for i, text, a, b in parting.rows],
        "cause": cause.name if cause is not None else None,
        "excluded": [c.name for c in parting.causes if c.verdict == "excluded"],
        "causes": [[c.name, c.verdict, c.finding] for c in parting.causes],
        "kl": parting.kl,
        "gap": parting.gap,
        "verdict": parting.verdict,
        "note": parting.note,
    }


def title(comparison: Comparison) -> str:
    """What is the same, and what is not."""
    num, columns = len(comparison.asked.prompts), len(comparison.columns)
    kinds: dict[str, set[str | None]] = {
        "engines": {column.handle.header.engine for column in comparison.columns},
        "quantizations": {column.handle.header.quant or column.handle.header.dtype for column in comparison.columns},
    }
    varied = next((kind for kind, values in kinds.items() if len(values) > 1), "settings")
    what = "columns" if comparison.is_blind else varied
    asked = "Same prompt" if num == 1 else f"Same {num} prompts"
    return f"{asked}, {_NUMBERS.get(columns, columns)} {what}"


def subtitle(comparison: Comparison) -> str:
    """What all columns have in common, and how the answers were taken."""
    if comparison.is_blind:
        return f"{comparison.conditions} · names hidden until you have voted"
    told = [*_common(comparison.columns), _sampling(comparison), comparison.conditions]
    return " · ".join(word for word in told if word)


def _common(columns: list[Column]) -> list[str]:
    heads = [head_of(column.handle.header) for column in columns]
    words_of = [{head[name] for head in heads} for name in ("engine", "model", "dtype", "device")]
    return [values.pop() for values in words_of if len(values) == 1 and values != {""} and values != {None}]


def _sampling(comparison: Comparison) -> str:
    told = {sampling_words(_told(column)) for column in comparison.columns}
    return told.pop() if len(told) == 1 else ""


def _told(column: Column) -> Data:
    return {"temperature": 0.0, **{name: value for name, value in column.options.items() if value is not None}}


def _column(comparison: Comparison, place: int) -> Data:
    if comparison.is_blind:
        return {"name": LETTERS[place], "detail": "", "memory": None, "error": None, "stopped": False}
    column = comparison.columns[place]
    return {
        "name": column.name,
        "detail": _detail(column, comparison.columns),
        "memory": None if column.rss_bytes is None else bytes_text(column.rss_bytes),
        "error": column.error,
        "stopped": column.is_stopped,
    }


def _detail(column: Column, columns: list[Column]) -> str:
    """What its name does not tell: the engine where they differ, and the size of its weights."""
    head = head_of(column.handle.header)
    heads = [head_of(other.handle.header) for other in columns]
    told = [head[name] for name in ("engine", "dtype") if len({h[name] for h in heads}) > 1 and head[name]]
    told = [word for word in told if word.lower() != column.name.lower()]
    disk = column.disk_bytes
    return " · ".join([*told, *([f"{bytes_text(disk)} on disk"] if disk else [])])


def all_answered(comparison: Comparison, prompt: int) -> bool:
    """No column adds to this prompt any more: where they differ is known as well."""
    results = [column.result(prompt) for column in comparison.columns]
    return all(
        column.is_over or (result is not None and result.finish_reason is not None)
        for column, result in zip(comparison.columns, results, strict=True)
    )


def _waiting(column: Column, held: bool) -> str:
    if held:
        return "held"
    return "error" if column.error else "stopped" if column.is_stopped else "waiting"


def _changed(comparison: Comparison, prompt: int, index: int, result: Result) -> list[list[list[int]]]:
    """Characters that the first column and this one do not share: spans of the first text, spans of this one."""
    first = comparison.columns[0].result(prompt)
    if not index or first is None or None in (first.finish_reason, result.finish_reason):
        return []
    if max(len(first.text), len(result.text)) > MAX_DIFF_CHARS:
        return []
    return [[list(span) for span in side] for side in _spans_of(first.text, result.text)]


# A page asks for the same two texts with each of its messages.
@lru_cache(maxsize=1024)
def _spans_of(a: str, b: str) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    changes = diff(words(a), words(b))
    return tuple(spans(changes, "a")), tuple(spans(changes, "b"))


def _place(comparison: Comparison, prompt: int, winner: int | None) -> int | None:
    return None if winner is None else comparison.order(prompt).index(winner)


def _rates(comparison: Comparison) -> list[Data]:
    if comparison.is_blind or not comparison.votes:
        return []
    return [
        {"name": r.name, "wins": r.num_wins, "of": r.num_decided, "ties": r.num_ties, "low": r.low, "high": r.high}
        for r in comparison.win_rates()
    ]
