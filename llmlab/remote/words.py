"""Words: the texts of the tokens of our requests, in a server's steps. vLLM tells tokens by id; the answers that came
here have their texts.

This file must not know servers or traces' files.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from weakref import WeakValueDictionary

from msgspec.structs import replace

from llmlab.engines.run import Run
from llmlab.trace import Step, Token

# Who follows a run gets a step this much later, if its words are still on their way.
PATIENCE_S = 0.5


class Words:
    """What our requests have been answered, as long as somebody has their runs."""

    def __init__(self) -> None:
        self._run_of: WeakValueDictionary[str, Run] = WeakValueDictionary()

    def note(self, run: Run) -> None:
        for request_id in run.request_ids:
            self._run_of[request_id] = run

    def told(self, step: Step) -> Step:
        """The step with what is known of its texts."""
        return self._read(step)[0]

    def in_time(self, steps: Iterable[Step], epoch_s: float) -> list[Step]:
        """The steps with their texts, up to the first that has to wait for one. `epoch_s`: when their clock began."""
        found = []
        for step in steps:
            told, is_whole = self._read(step)
            if not is_whole and time.monotonic() - epoch_s - step.t_s < PATIENCE_S:
                break
            found.append(told)
        return found

    def _read(self, step: Step) -> tuple[Step, bool]:
        """The step with its texts, and whether all that will come are there."""
        # request -> the place of its next token in the answer
        places = {row.request_id: row.num_output_tokens for row in step.scheduled if row.request_id in self._run_of}
        if not places or all(token.text for token in step.tokens):  # llmlab's own server tells them itself
            return step, True
        is_whole, tokens = True, list[Token]()
        for token in step.tokens:
            run = self._run_of.get(token.request_id) if token.request_id in places else None
            if run is not None and not token.text:
                text = run.text_of(token.request_id, places[token.request_id])
                is_whole = is_whole and (text is not None or run.done)
                token = replace(token, text=text or "")
            if token.request_id in places:
                places[token.request_id] += 1
            tokens.append(token)
        return replace(step, tokens=tuple(tokens)), is_whole
