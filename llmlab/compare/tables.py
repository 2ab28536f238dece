"""A comparison as rows, as text and as JSON. What was not measured is None; who is hidden stays hidden.

This file must not know engines.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from llmlab.cards import Card, bytes_text, seconds_text
from llmlab.compare.votes import LETTERS

if TYPE_CHECKING:
    from llmlab.compare.columns import Column
    from llmlab.compare.comparison import Comparison
    from llmlab.compare.partings import Parting
    from llmlab.engines.result import Result

COLUMNS = (
    "prompt", "column", "answer", "ttft_s", "tokens_per_s", "num_tokens", "finish_reason", "differs_at", "error",
    "rss_bytes", "disk_bytes",
)  # fmt: skip
SUMMARY = (
    "column", "num_answers", "ttft_s", "tokens_per_s", "num_tokens", "num_equal", "num_parted", "rss_bytes",
    "disk_bytes", "error",
)  # fmt: skip
SCHEMA = "llmlab.comparison/1"


def rows(comparison: Comparison) -> list[tuple[Any, ...]]:
    """COLUMNS of every prompt and column, as they stand on screen."""
    found = []
    for prompt, text in enumerate(comparison.prompts):
        for place, index in enumerate(comparison.order(prompt)):
            column = comparison.columns[index]
            result = column.result(prompt)
            name = LETTERS[place] if comparison.is_blind else column.name
            parting = comparison.known_parting(prompt, index) if index else None
            differs_at = parting.index if parting is not None else None
            figures = (None,) * 4 if comparison.is_blind else _figures(result)
            kept = (None, None) if comparison.is_blind else (column.rss_bytes, column.disk_bytes)
            answer = result.text if result is not None else None
            error = (result.error if result is not None else None) or column.error
            shown = (*figures, None if comparison.is_blind else differs_at, error)
            found.append((text, name, answer, *shown, *kept))
    return found


def _figures(result: Result | None) -> tuple[Any, ...]:
    if result is None:
        return (None,) * 4
    return result.ttft_s, result.tokens_per_s, result.num_output_tokens, result.finish_reason


def summary_rows(comparison: Comparison) -> list[tuple[Any, ...]]:
    """SUMMARY of every column; empty while names are hidden."""
    return [] if comparison.is_blind else [_summary(comparison, i) for i in range(len(comparison.columns))]


def _summary(comparison: Comparison, index: int) -> tuple[Any, ...]:
    column = comparison.columns[index]
    results = column.results
    num_parted = None
    num_equal = None
    if index:
        parted = [comparison.known_parting(prompt, index) is not None for prompt in range(len(results))]
        num_parted, num_equal = sum(parted), len(parted) - sum(parted)
    return (
        column.name,
        len(results),
        _median([result.ttft_s for result in results]),
        _median([result.tokens_per_s for result in results]),
        _median([result.num_output_tokens for result in results]),
        num_equal,
        num_parted,
        column.rss_bytes,
        column.disk_bytes,
        column.error,
    )


def _median(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def text(comparison: Comparison) -> str:
    """What a terminal shows: figures, answers where there is one prompt, where the columns part."""
    head = ("column", "answers", "TTFT", "tok/s", "tokens", "memory", "on disk", "end")
    lines = [repr(Card(_title(comparison), head, tuple(_text_row(c) for c in comparison.columns)))]
    if comparison.is_blind:
        lines = [
            f"{_title(comparison)}\nWho is who stays hidden until `.reveal()`; {len(comparison.votes)} votes so far."
        ]
    if len(comparison.prompts) == 1:
        for _, name, answer, *_rest in rows(comparison):
            lines.append(f"\n[{name}]\n{answer or '–'}")
    parting = None if comparison.is_blind else comparison.known_first()
    if parting is not None:
        lines.append("\n" + parting.sentence)
    if comparison.asked.note:
        lines.append(comparison.asked.note)
    return "\n".join(lines)


def _title(comparison: Comparison) -> str:
    num = len(comparison.prompts)
    prompts = comparison.prompts[0] if num == 1 else f"{num} prompts"
    short = prompts if len(prompts) <= 80 else f"{prompts[:79]}…"
    return f"{short} · {comparison.conditions}"


def _text_row(column: Column) -> tuple[object, ...]:
    results = column.results
    speed = _median([result.tokens_per_s for result in results])
    ends = [result.finish_reason or "running" for result in results]
    end = "✕ " + column.error.splitlines()[0] if column.error else ", ".join(dict.fromkeys(ends)) or "–"
    return (
        column.name,
        len(results),
        seconds_text(_median([result.ttft_s for result in results])),
        None if speed is None else f"{speed:.1f}",
        _median([result.num_output_tokens for result in results]),
        bytes_text(column.rss_bytes),
        bytes_text(column.disk_bytes),
        end,
    )


def write_json(comparison: Comparison, path: Path) -> Path:
    path.write_text(json.dumps(record(comparison), ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def record(comparison: Comparison) -> dict[str, Any]:
    """All of it. Votes name columns by their index; while names are hidden, nothing here says which is which."""
    columns = [] if comparison.is_blind else [_column_record(column) for column in comparison.columns]
    return {
        "schema": SCHEMA,
        "conditions": comparison.conditions,
        "together": comparison.together,
        "at_once": comparison.at_once,
        "columns": columns,
        "prompts": comparison.prompts,
        "left_out": [list(problem) for problem in comparison.asked.problems],
        "answers": [
            [_answer_record(comparison.columns[i].result(prompt)) for i in comparison.order(prompt)]
            for prompt in range(len(comparison.prompts))
        ],
        "partings": [] if comparison.is_blind else [_parting_record(p) for p in comparison.known_partings()],
        "votes": [{"prompt": vote.prompt, "winner": vote.winner} for vote in comparison.votes],
        "orders": None if comparison.is_blind else comparison.orders,
    }


def _column_record(column: Column) -> dict[str, Any]:
    header = column.handle.header
    return {
        "name": column.name,
        "engine": header.engine,
        "engine_version": header.engine_version,
        "model": header.model,
        "quant": header.quant,
        "dtype": header.dtype,
        "device": header.device,
        "options": {name: value for name, value in column.options.items() if name != "salt"},
        "error": column.error,
        "rss_bytes": column.rss_bytes,
        "disk_bytes": column.disk_bytes,
        "memory": column.memory,
    }


def _answer_record(result: Result | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {
        "text": result.text,
        "token_ids": list(result.token_ids),
        "logprobs": list(result.logprobs),
        "finish_reason": result.finish_reason,
        "error": result.error,
        "ttft_s": result.ttft_s,
        "tokens_per_s": result.tokens_per_s,
        "num_prompt_tokens": result.num_prompt_tokens,
    }


def _parting_record(parting: Parting) -> dict[str, Any]:
    sides = [{"name": side.name, "top": [list(entry) for entry in side.top]} for side in parting.sides or ()]
    return {
        "prompt": parting.prompt,
        "columns": list(parting.columns),
        "index": parting.index,
        "tokens": list(parting.tokens),
        "cause": parting.cause.name if parting.cause else None,
        "causes": [[cause.name, cause.verdict, cause.finding] for cause in parting.causes],
        "kl": parting.kl,
        "sides": sides,
        "note": parting.note,
    }
