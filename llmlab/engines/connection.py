"""Connection: the notebook's end of the way to an engine. One thread reads what comes and sorts it: to runs, to calls,
to the recorder. It also sees when the engine dies or stands still, so that nobody waits for ever.

That thread never calls a user's code. This file must not know what a prompt or an answer looks like.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

from llmlab import errors
from llmlab.engines import messages as wire
from llmlab.engines.bell import Bell
from llmlab.engines.links import Link
from llmlab.engines.recorder import Recorder
from llmlab.engines.run import Run
from llmlab.errors import EngineDied, EngineError, LlmlabError
from llmlab.trace import Request, Step

POLL_S = 0.2
READER_END_S = 10.0
# A dead host's last messages are in the socket's buffers: read until none comes for this long.
LAST_MESSAGES_S = 0.05
# A host that a signal holds up this long, while somebody waits for it, is ended.
MAX_STOPPED_S = 2.0
DEATH_LOG_LINES = 8


class Connection:
    """A link with a reader. `describe` names the engine, `reload_line` what to type to load it again, in sentences."""

    def __init__(self, link: Link, *, describe: str, reload_line: str) -> None:
        self.link = link
        self._describe, self._reload_line = describe, reload_line
        self.ready: wire.Ready | None = None
        self.load_failure: wire.LoadFailed | None = None
        self.death: str | None = None
        self._recorder: Recorder | None = None
        self._runs: dict[str, Run] = {}  # request_id -> its run, while it is open
        self._replies: dict[int, wire.Reply | None] = {}
        self._call_ids = itertools.count(1)
        self._closed = False
        self._stopped_since_s: float | None = None
        self.bell = Bell()  # rings after each message
        self._thread = threading.Thread(target=self._read, name="llmlab reader", daemon=True)
        self._thread.start()

    # ---- for any thread

    @property
    def recorder(self) -> Recorder:
        """Raises: EngineError while the engine loads."""
        if self._recorder is None:
            raise EngineError(f"{self._describe} is not loaded yet.")
        return self._recorder

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return len(self._runs)

    def has_request(self, request_id: str) -> bool:
        """It is open, or in what is kept of the past."""
        return request_id in self._runs or self.recorder.has_request(request_id)

    def wait_ready(self, timeout_s: float) -> wire.Ready | None:
        """What the engine says when it is loaded; None when it failed, died or took longer."""
        self.bell.wait(lambda: bool(self.ready or self.load_failure or self.death), timeout_s)
        return self.ready

    def submit(self, run: Run, prompts: Sequence[wire.Prompt]) -> None:
        """Raises: EngineDied when there is no engine any more."""
        self._check_alive()
        for prompt in prompts:
            self._runs[prompt.request_id] = run
        self.link.send(wire.AddRequests(tuple(prompts)))
        if self.death is not None:  # it died meanwhile: the reader may not have seen this run
            run.die(self.death)

    def abort(self, request_ids: Sequence[str]) -> None:
        self.link.send(wire.AbortRequests(tuple(request_ids)))

    def drive(self, drive: wire.Drive) -> None:
        """Raises: EngineDied when there is no engine any more."""
        self._check_alive()
        self.link.send(drive)

    def call(self, method: str, timeout_s: float = 60.0, **arguments: Any) -> Any:
        """The engine's answer to a question outside its steps.

        Raises: EngineDied; what the engine raised; EngineError after timeout_s.
        """
        self._check_alive()
        call_id = next(self._call_ids)
        self._replies[call_id] = None
        try:
            self.link.send(wire.Call(call_id, method, arguments))
            self.bell.wait(lambda: self._replies[call_id] is not None or self.death is not None, timeout_s)
            reply = self._replies[call_id]
        finally:
            del self._replies[call_id]
        if reply is None:
            self._check_alive()
            raise EngineError(
                f"{self._describe} did not answer {method}() within {timeout_s:g} s: a step may take longer."
            )
        if reply.error is not None:
            raise error_of(reply.error, reply.text)
        return reply.value

    def close(self, grace_s: float) -> None:
        """End the engine and the reader. Runs that are open end as interrupted."""
        for run in set(self._runs.values()):
            run.stop()
        self._closed = True
        self._thread.join(READER_END_S)  # a socket that is closed while it is read would end this process
        self.link.close(grace_s)
        self.death = self.death or f"{self._describe} was unloaded. Load it again: {self._reload_line}"

    def _check_alive(self) -> None:
        if self.death is not None:
            raise EngineDied(self.death)

    # ---- the reader's thread

    def _read(self) -> None:
        try:
            self._read_until_the_end()
        except Exception as error:  # nobody else would tell those who wait
            self.link.kill()
            self._note_death(f"was ended: the notebook cannot read what it says ({type(error).__name__}: {error})")

    def _read_until_the_end(self) -> None:
        while not self._closed:
            message = self.link.receive(POLL_S)
            if message is not None:
                self._stopped_since_s = None
                self._take(message)
            elif (end := self.link.end()) is not None:
                self._read_the_last()
                self._note_death(end)
                return
            elif self._runs or self._replies:
                self._watch_stopped()

    def _read_the_last(self) -> None:
        while (message := self.link.receive(LAST_MESSAGES_S)) is not None:
            self._take(message)

    def _take(self, message: bytes) -> None:
        if message[:1] == wire.STEPS:
            self._take_steps(message[1:])
        else:
            self._take_event(wire.decode_event(message[1:]))
        self.bell.ring()

    def _take_steps(self, content: bytes) -> None:
        now_s = time.monotonic()
        touched: set[Run] = set()
        for held_s, encoded in wire.split_steps(content):
            touched |= self._take_step(encoded, now_s - held_s)
        for run in touched:
            run.end_step = self.recorder.num_steps
            run.ring()

    def _take_step(self, encoded: bytes, ended_s: float) -> set[Run]:
        """The runs that got something."""
        step: Step = wire.decode_step(encoded)
        self.recorder.add_step(encoded, step)
        touched: set[Run] = set()
        for token in step.tokens:
            if (run := self._runs.get(token.request_id)) is not None:
                run.add_token(token, ended_s)
                touched.add(run)
        for request_id, reason in step.finished.items():
            if (run := self._runs.pop(request_id, None)) is not None:
                # before it is done: who sees that asks for the steps up to here
                run.end_step = self.recorder.num_steps
                run.finish(request_id, reason, step.stopped_by.get(request_id))
                touched.add(run)
        return touched

    def _take_event(self, event: wire.Event) -> None:
        match event:
            case wire.Accepted(requests):
                self._accept(requests)
            case wire.Refused(request_id, text):
                self._refuse(request_id, text)
            case wire.Failed(request_ids, text, error):
                self._fail(request_ids, error_of(error, text))
            case wire.Reply():
                if event.call_id in self._replies:
                    self._replies[event.call_id] = event
            case wire.Ready():
                self._recorder = Recorder(event.header)
                self.ready = event
            case wire.LoadFailed():
                self.load_failure = event

    def _accept(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self.recorder.add_request(request)
            if (run := self._runs.get(request.request_id)) is not None:
                run.accept(request, self.recorder.num_steps)

    def _refuse(self, request_id: str, text: str) -> None:
        if (run := self._runs.pop(request_id, None)) is not None:
            run.refuse(request_id, text)
            run.ring()

    def _fail(self, request_ids: Sequence[str], error: LlmlabError) -> None:
        """These have ended for the notebook; a step to come says so for the trace."""
        failed: dict[Run, list[str]] = {}
        for request_id in request_ids:
            if (run := self._runs.get(request_id)) is not None:
                failed.setdefault(run, []).append(request_id)
        for run, ids in failed.items():
            run.fail(ids, error)
            run.ring()

    def _watch_stopped(self) -> None:
        if not self.link.is_stopped():
            self._stopped_since_s = None
            return
        now_s = time.monotonic()
        self._stopped_since_s = self._stopped_since_s or now_s
        if now_s - self._stopped_since_s > MAX_STOPPED_S:
            self.link.kill()
            self._read_the_last()
            self._note_death(f"did not answer: a signal stopped it, and after {MAX_STOPPED_S:g} s it was ended")

    def _note_death(self, end: str) -> None:
        lines = self.link.log_lines(DEATH_LOG_LINES)
        log = "\nThe last lines of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
        text = f"{self._describe} {end}.{log}\nLoad it again: {self._reload_line}"
        if self._recorder is not None:
            self._recorder.note_death(f"{self._describe} {end}.")
        self.death = text
        for run in set(self._runs.values()):
            run.die(text)
        self._runs.clear()
        self.bell.ring()


def error_of(name: str, text: str) -> LlmlabError:
    """The error that was raised in the host, by the name of its class; EngineError for a foreign one.

    >>> error_of("RequestError", "too long"), error_of("MemoryError", "")
    (RequestError('too long'), EngineError('MemoryError'))
    """
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, LlmlabError):
        return kind(text)
    return EngineError(f"{name}: {text}" if text else name)
