"""A saved trace as an engine: `llmlab.load("run.jsonl.gz", engine="replay")`. It answers what was recorded, at the
recorded pace, and shows the recorded steps. Nothing is computed.

This file must not know any model: the header of the trace says whose steps these are.
"""

from __future__ import annotations

import math
import textwrap
import threading
import time
from typing import Any

import msgspec

from llmlab.engines import replay_steps
from llmlab.engines.base import EngineConfig, StepOutput, checked_options
from llmlab.engines.replay_steps import Play, renamed_kv
from llmlab.errors import EngineError, RequestError
from llmlab.trace import BlockDelta, CellDelta, FinishReason, Request, Step, Trace
from llmlab.trace.kv_state import BlockState, CellState, runs
from llmlab.trace.records import KvDelta

OPTIONS = ("speed",)
NUM_LISTED = 5  # recorded prompts that an error names


class ReplayEngine:
    """Plays recorded requests, one alone (add_request of its prompt) or the whole trace (begin_replay).

    Raises: TraceError for a file that is no trace; EngineError for an unknown option.
    """

    name = "replay"
    # Prompts are looked up as they were recorded: rendered.
    chat_template: str | None = None
    bos_token = eos_token = ""

    def __init__(self, config: EngineConfig) -> None:
        self._speed = _speed(config.options)
        self._trace = trace = Trace.load(config.model_path)
        self.epoch_s = time.monotonic()
        names = self._names(1)
        self.header = msgspec.structs.replace(
            trace.header, started_at=time.time(), kv_at_start=renamed_kv(trace.header.kv_at_start, names)
        )
        self.capabilities = self.header.capabilities
        played = replay_steps.played_ids(trace)
        self._recorded = [r for r in trace.request_records if r.request_id in played]
        # They ended before the trace begins, and hold KV in it.
        past = [r for r in trace.request_records if r.request_id not in played]
        self.past_requests = tuple(msgspec.structs.replace(r, request_id=names[r.request_id]) for r in past)
        self._plays: list[tuple[float, Play]] = []  # (time.monotonic() of its start, play)
        self._whole: Play | None = None
        self._num_wholes = 0
        self._here: set[str] = set()  # requests that were added and have not ended
        self._ended: dict[str, FinishReason] = {}
        self._step_number = 0
        self._cells, self._blocks = CellState(), BlockState()  # as the steps that were played left them
        self._last_kv: KvDelta | None = None
        self._interrupted = threading.Event()

    # ---- text

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a recorded prompt: the text as it was sent, or a part of one. Raises: RequestError."""
        found = self._find(lambda r: r.prompt_text == text, lambda r: text in (r.prompt_text or ""))
        return list(found.prompt_token_ids)

    def pieces(self, token_ids: list[int]) -> list[bytes]:
        """Raises: RequestError for tokens that never came out in this trace."""
        texts = {token.token_id: token.text for step in self._trace.step_records for token in step.tokens}
        missing = [i for i in token_ids if i not in texts]
        if missing:
            raise RequestError(f"Token {missing[0]} never came out in this trace, so its text is not known.")
        return [texts[i].encode() for i in token_ids]

    def _find(self, *tests: Any) -> Request:
        """The first recorded request that passes the first test that any passes."""
        for test in tests:
            for request in self._recorded:
                if test(request):
                    return request
        listed = [f"  {r.request_id}: {_short(r)}" for r in self._recorded[:NUM_LISTED]]
        more = len(self._recorded) - NUM_LISTED
        raise RequestError(
            "This engine replays a trace and answers only what was recorded:\n"
            + "\n".join([*listed, *([f"  and {more} more"] if more > 0 else [])])
            + "\nSend one of these, or play all of it: `.replay()`."
        )

    # ---- requests

    def begin_replay(self) -> list[dict[str, Any]]:
        """Get ready to play the whole trace; the requests that must now be added, each `offset_s` from now.

        Raises: RequestError while it is played already.
        """
        if self._whole is not None:
            raise RequestError("The trace is being played. Wait for its end, or stop it.")
        self._num_wholes += 1
        names = self._names(self._num_wholes)
        play = replay_steps.whole(self._trace, names)
        self._begin_with_empty_kv(play)
        self._whole = play
        self._plays.append((time.monotonic(), play))
        return [
            {
                "request_id": names[r.request_id],
                "offset_s": play.arrivals_s[names[r.request_id]] / self._speed,
                "token_ids": list(r.prompt_token_ids),
                "text": r.prompt_text,
                "sampling": r.sampling,
                "priority": r.priority,
                "user": r.user,
                "salt": r.salt,
            }
            for r in self._recorded
        ]

    def add_request(self, request: Request) -> None:
        """Raises: RequestError when no recorded request has this prompt."""
        if self._whole is None or request.request_id not in self._whole.arrivals_s:
            recorded = self._find(lambda r: r.prompt_token_ids == request.prompt_token_ids)
            play = replay_steps.alone(self._trace, recorded, request.request_id)
            self._plays.append((time.monotonic(), play))
        self._here.add(request.request_id)

    def abort_request(self, request_id: str) -> None:
        """A request that is played alone ends; one of the whole trace ends the whole."""
        for entry in self._plays:
            _, play = entry
            if request_id in play.arrivals_s:
                self._plays.remove(entry)
                self._leave(play, "abort")
                return

    def _names(self, number: int) -> dict[str, str]:
        """Recorded request ids -> those of a whole play: r3 of the second one is r3#2."""
        return {r.request_id: f"{r.request_id}#{number}" for r in self._trace.request_records}

    def _leave(self, play: Play, reason: FinishReason | None = None) -> None:
        """A play is over: what it has not ended ends now."""
        for request_id in self._here & play.arrivals_s.keys():
            self._ended[request_id] = reason or play.missing_ends.get(request_id, "abort")
        self._here.difference_update(play.arrivals_s)
        if play is self._whole:
            self._whole = None

    def has_unfinished_requests(self) -> bool:
        """False also while a play waits for a request that has yet to arrive."""
        return bool(self._ended) or any(self._is_ready(play) for _, play in self._plays)

    def _is_ready(self, play: Play) -> bool:
        needed = replay_steps.mentioned(play.steps[play.next]) if not play.is_over else set()
        return needed & play.arrivals_s.keys() <= self._here

    # ---- steps

    def step(self) -> StepOutput:
        """The next recorded step, when it is due."""
        self._interrupted.clear()
        ready = [(self._due_s(start_s, play), start_s, play) for start_s, play in self._plays if self._is_ready(play)]
        if self._ended or not ready:
            return self._numbered(Step(step=0, t_s=0.0))
        due_s, start_s, play = min(ready, key=lambda entry: entry[0])
        if self._interrupted.wait(max(0.0, due_s - time.monotonic())):
            return self._numbered(Step(step=0, t_s=0.0))
        recorded = Step(step=0, t_s=0.0)
        if not play.is_over:
            recorded = play.steps[play.next]
            play.next += 1
            self._here.difference_update(recorded.finished)
        if play.is_over:
            self._plays.remove((start_s, play))
            self._leave(play)
        return self._numbered(recorded)

    def _due_s(self, start_s: float, play: Play) -> float:
        return start_s + (play.due_s[play.next] / self._speed if not play.is_over else 0.0)

    def _numbered(self, step: Step) -> Step:
        """The step as one of this engine: its number, its time, and the ends that were due."""
        ended, self._ended = self._ended, {}
        self._step_number += 1
        if isinstance(step.kv, CellDelta):
            self._cells.apply(step.kv)
        elif step.kv is not None:
            self._blocks.apply(step.kv)
        self._last_kv = step.kv or self._last_kv
        now_s = time.monotonic() - self.epoch_s
        numbered: Step = msgspec.structs.replace(
            step, step=self._step_number - 1, t_s=now_s, finished={**step.finished, **ended}
        )
        return numbered

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self._plays.clear()

    # ---- KV

    def _begin_with_empty_kv(self, play: Play) -> None:
        """The second play and later ones begin by freeing what the last one left.

        A trace that was cut out of a longer one begins with KV that no step writes: only the first play can show it.
        """
        if self._num_wholes > 1 and self._trace.header.kv_at_start is not None:
            play.steps = [msgspec.structs.replace(step, kv=None) for step in play.steps]
        elif self._num_wholes > 1 and (freed := self._all_freed()) is not None:
            play.steps = [Step(step=0, t_s=0.0, kv=freed), *play.steps]
            play.due_s = [0.0, *play.due_s]

    def _all_freed(self) -> KvDelta | None:
        """What empties the cache that the last play left; None when no play had one."""
        last = self._last_kv
        if isinstance(last, CellDelta):
            freed = {r: runs(sorted(cells)) for r, cells in self._cells.cells_of.items()}
            return CellDelta(freed=freed, num_used=0, num_cells=last.num_cells, num_attended=0)
        if last is None:
            return None
        return BlockDelta(
            freed={r: tuple(table) for r, table in self._blocks.tables.items()},
            evicted=tuple(sorted(self._blocks.cached)),
            ref_counts=dict.fromkeys(self._blocks.ref_counts, 0),
            num_free=last.num_blocks,
            num_blocks=last.num_blocks,
        )


def _speed(options: dict[str, Any]) -> float:
    """As a divisor of times. Raises: EngineError."""
    speed = checked_options(options, OPTIONS).get("speed", 1.0)
    if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not speed >= 0:
        raise EngineError(f"speed is {speed!r}; it must be above 0 (2 = twice as fast), or 0 for no waiting at all.")
    return float(speed) or math.inf


def _short(request: Request) -> str:
    if request.prompt_text is None:
        return f"{len(request.prompt_token_ids)} token ids"
    return repr(textwrap.shorten(request.prompt_text, 80, placeholder="..."))
