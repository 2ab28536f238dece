"""How a batch looks: a line per request while it runs, a table with its figures at the end.

This file must not know engines: it reads a Run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from IPython.display import display

from llmlab.cards import Card, seconds_text, short_text
from llmlab.language import tr
from llmlab.magics.stream_display import LiveScreen, Mode
from llmlab.metrics import throughput_tps

if TYPE_CHECKING:
    from llmlab.engines.result import Result
    from llmlab.engines.run import Run

MAX_ROWS = 40
# An update costs 3 ms of the processor that the engine wants, and more in the browser. 16 requests on 2 CPUs ran 5 to
# 7 % slower with 10 a second than with none.
UPDATES_PER_S = 10
_PROMPT_CHARS, _ANSWER_CHARS = 32, 64


class BatchScreen:
    """Where a batch is shown: one live area, printed lines as requests end, a table at the end, or nowhere."""

    def __init__(self, prompts: Sequence[Any], mode: Mode | Literal["quiet"]) -> None:
        self._prompts, self._mode = [_prompt_text(prompt) for prompt in prompts], mode
        self._live = LiveScreen(UPDATES_PER_S)
        self._printed: set[int] = set()

    def show(self, run: Run) -> None:
        if self._mode == "live":
            self._live.show("", lambda: _bundle(card(run, self._prompts)))
        elif self._mode == "append":
            self._print_ended(run)

    def finish(self, run: Run) -> None:
        if self._mode == "live":
            self._live.finish("", _bundle(card(run, self._prompts)), "")
        elif self._mode == "append":
            self._print_ended(run)
            print(summary(run))
        elif self._mode == "once":
            display(card(run, self._prompts))

    def _print_ended(self, run: Run) -> None:
        for index, result in enumerate(run.results):
            if result.finish_reason is not None and index not in self._printed:
                self._printed.add(index)
                row = _row(index, self._prompts, result)
                tokens = tr("{count} tokens", count=row[3])
                print(f"{row[0]}. {row[1]} -> {row[2]} [{tokens}, TTFT {row[4]}, {row[5]} tok/s, {row[6]}]")
                sys.stdout.flush()


def card(run: Run, prompts: Sequence[str] = ()) -> Card:
    """The requests of a run with their figures; of many, those that run now first."""
    results = list(enumerate(run.results))
    shown = sorted(sorted(results, key=_rank)[:MAX_ROWS], key=_index)
    rows = tuple(_row(i, prompts, result) for i, result in shown)
    more = (tr("{count} more are not shown.", count=len(results) - len(rows)),) if len(rows) < len(results) else ()
    asked, answer = tr("prompt") if prompts else tr("request"), tr("answer")
    columns = ("#", asked, answer, tr("tokens"), "TTFT", "tok/s", tr("end"))
    return Card("", columns, rows, (*more, summary(run)), steady=answer)


def summary(run: Run) -> str:
    """One sentence: how many ended, and how fast they were together."""
    num_tokens = sum(result.num_output_tokens for result in run.results)
    ended, total = run.progress
    if not run.done:
        return tr("{ended} of {total} requests ended, {tokens} tokens", ended=ended, total=total, tokens=num_tokens)
    speed_tps = throughput_tps(run.trace)
    made = tr("{total} requests, {tokens} tokens", total=total, tokens=num_tokens)
    return made if speed_tps is None else made + tr(", {speed:.0f} tok/s together", speed=speed_tps)


def _rank(item: tuple[int, Result]) -> tuple[bool, bool, int]:
    index, result = item
    return (result.finish_reason is not None, not result.tokens, index)


def _index(item: tuple[int, Result]) -> int:
    return item[0]


def _row(index: int, prompts: Sequence[str], result: Result) -> tuple[object, ...]:
    speed = result.tokens_per_s
    return (
        index + 1,
        short_text(prompts[index] if prompts else result.request_id, _PROMPT_CHARS),
        _answer(result),
        result.num_output_tokens,
        seconds_text(result.ttft_s),
        None if speed is None else f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}",
        result.finish_reason or (tr("running") if result.tokens else tr("waiting")),
    )


def _answer(result: Result) -> str:
    """The end of what is being written; the beginning of what is complete, or why there is none."""
    if result.finish_reason is None:
        return _tail(result.text, _ANSWER_CHARS)
    return short_text(result.text or result.error or "", _ANSWER_CHARS)


def _tail(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else "…" + text[1 - width :]


def _prompt_text(prompt: Any) -> str:
    if isinstance(prompt, dict):
        prompt = prompt.get("prompt", "")
    if isinstance(prompt, list | tuple) and prompt and isinstance(prompt[-1], dict):
        prompt = prompt[-1].get("content", "")
    return str(prompt)


def _bundle(shown: Card) -> dict[str, str]:
    return {"text/plain": repr(shown), "text/html": shown._repr_html_()}
