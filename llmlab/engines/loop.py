"""EngineLoop: drain the commands, step the engine, send what it did. The same loop runs in a host and inline.

This file must not know sockets, processes or threads: commands come in by put(), messages leave by send().
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from llmlab.engines import messages as wire
from llmlab.engines.admission import Admission
from llmlab.engines.base import Engine, StepOutput
from llmlab.engines.decode_step import DecodeStep
from llmlab.engines.outbox import Outbox
from llmlab.errors import BrokenContract, EngineDied, EngineError, LlmlabError, unknown
from llmlab.trace import Request

# Between two steps commands may take this long, or this share of a step; 10,000 prompts at once must not hold up those
# who stream already, and of 50 a second nobody must be late because a step took a second.
COMMANDS_S, COMMANDS_SHARE = 0.005, 0.05
# An engine that rests holds up nobody: what came together starts together, and a batch has no stragglers to wait for.
RESTING_COMMANDS_S = 0.02
# What a Call may ask: methods of the engine, and of the loop itself.
CALLS = frozenset(
    "tokenize pieces logits embed inside begin_probe end_probe chat_format memory begin_replay".split()
)  # fmt: skip
# Steps that may fail while the requests of a failed step are cleaned up, before the engine counts as broken.
MAX_FAILED_CLEANINGS = 3


class EngineLoop:
    """One engine, in one thread. put() may be called from any thread, everything else only from that of run()."""

    def __init__(self, engine: Engine, send: Callable[[bytes], None]) -> None:
        self.engine, self._outbox = engine, Outbox(send)
        self._inbox: SimpleQueue[wire.Command] = SimpleQueue()
        self._admission = Admission(engine)
        self._unfinished: set[str] = set()  # in the engine
        self._ending: set[str] = set()  # of these: aborted, no step has said so yet
        self._closing = self._paused = False
        self._single_steps = 0
        self._slow_s = self._next_step_s = 0.0
        self._step_s = 0.0  # of the last step

    def put(self, command: wire.Command) -> None:
        """Give the loop a command, from any thread. Breaks off a forward pass that nobody needs any more."""
        self._inbox.put(command)
        match command:
            case wire.Close():
                self.engine.interrupt()
            case wire.AbortRequests(request_ids) if self._unfinished and self._unfinished.issubset(request_ids):
                self.engine.interrupt()

    def run(self) -> None:
        """Until Close. Raises: EngineError when the engine cannot be cleaned up after a failed step."""
        if past := getattr(self.engine, "past_requests", ()):
            self._emit(wire.Accepted(tuple(past)))
        self._admission.warm_up()
        while not self._closing:
            may_step = self._may_step() and (not self._slow_s or time.monotonic() >= self._next_step_s)
            if not may_step:
                self._outbox.flush()
            # Between two steps of a busy engine all code is cold: what need not be looked at is not.
            if not may_step or not self._inbox.empty() or self._admission.is_pending:
                self._take_commands()
                may_step = not self._closing and self._may_step() and time.monotonic() >= self._next_step_s
            if may_step:
                self._step()

    # ---- commands

    def _take_commands(self) -> None:
        command = self._next_command(self._idle_s())
        commands_s = max(COMMANDS_S, COMMANDS_SHARE * self._step_s) if self._unfinished else RESTING_COMMANDS_S
        deadline = time.monotonic() + commands_s
        while command is not None and not self._closing:
            self._obey(command)
            command = self._next_command(0.0) if time.monotonic() < deadline else None
        self._admit(deadline)

    def _next_command(self, timeout_s: float | None) -> wire.Command | None:
        try:
            return self._inbox.get(timeout=timeout_s) if timeout_s != 0.0 else self._inbox.get_nowait()
        except Empty:
            return None

    def _idle_s(self) -> float | None:
        """How long the loop may sleep if no command comes; None: for ever."""
        if self._admission:
            return 0.0
        due_s = [self._next_step_s] if self._may_step() else []
        if (arrival_s := self._admission.next_arrival_s) is not None:
            due_s.append(arrival_s)
        return max(0.0, min(due_s) - time.monotonic()) if due_s else None

    def _obey(self, command: wire.Command) -> None:
        match command:
            case wire.AddRequests(prompts):
                self._admission.receive(prompts)
            case wire.AbortRequests(request_ids):
                self._abort(request_ids)
            case wire.Drive():
                self._drive(command)
            case wire.Call():
                self._answer(command)
            case wire.Close():
                self._closing = True

    def _abort(self, request_ids: tuple[str, ...]) -> None:
        for request_id in request_ids:
            if self._admission.withdraw(request_id):
                self._emit(wire.Refused(request_id, "Stopped before it reached the engine."))
            elif request_id in self._unfinished:
                self.engine.abort_request(request_id)
                self._ending.add(request_id)

    def _drive(self, drive: wire.Drive) -> None:
        if drive.paused is not None:
            self._paused = drive.paused
            self._single_steps = 0
        if drive.slow_s is not None:
            self._slow_s = drive.slow_s
            self._next_step_s = 0.0
        self._single_steps += drive.steps

    def _answer(self, call: wire.Call) -> None:
        try:
            self._emit(wire.Reply(call.call_id, self._called(call)))
        except Exception as error:
            self._emit(wire.Reply(call.call_id, error=type(error).__name__, text=str(error)))

    def _called(self, call: wire.Call) -> Any:
        if call.method not in CALLS:
            raise EngineError(unknown("call", call.method, CALLS))
        own = {"memory": self._memory, "chat_format": self._chat_format}
        method = own.get(call.method) or getattr(self.engine, call.method, None)
        if method is None:
            raise EngineError(f"The {self.engine.name} engine has no {call.method}().")
        return method(**call.arguments)

    def _chat_format(self) -> dict[str, str | None]:
        engine = self.engine
        return {"template": engine.chat_template, "bos_token": engine.bos_token, "eos_token": engine.eos_token}

    def _memory(self) -> dict[str, int]:
        """What the process holds, measured, and what the engine says of its parts; all in bytes."""
        import psutil

        of_engine: dict[str, int] = getattr(self.engine, "memory_bytes", dict)()
        return {"rss": psutil.Process().memory_info().rss, **of_engine}

    def _admit(self, deadline: float) -> None:
        """Prompts into the engine until the deadline, one at least; also those whose time comes meanwhile."""
        self._admission.arrive()
        while self._admission:
            self._admit_waiting(deadline)
            if time.monotonic() >= deadline:
                return
            self._admission.arrive()

    def _admit_waiting(self, deadline: float) -> None:
        accepted: list[Request] = []
        while self._admission and (time.monotonic() < deadline or not accepted):
            prompt = self._admission.take()
            try:
                request = self._admission.request(prompt)
                self.engine.add_request(request)
            except LlmlabError as error:
                self._emit(wire.Refused(prompt.request_id, str(error)))
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                self._emit(wire.Refused(prompt.request_id, _sentence(error)))
            else:
                accepted.append(request)
        if accepted:
            self._unfinished.update(request.request_id for request in accepted)
            self._emit(wire.Accepted(tuple(accepted)))

    # ---- steps

    def _may_step(self) -> bool:
        if not self.engine.has_unfinished_requests():
            if not self._admission:
                self._single_steps = 0
            return False
        # A paused engine still reports the end of what was aborted, if that is all there is to do.
        return not self._paused or self._single_steps > 0 or self._unfinished == self._ending

    def _step(self) -> None:
        started_s = time.monotonic()
        try:
            step = self.engine.step()
        except EngineDied:
            raise
        except Exception as error:
            self._fail(error)
            return
        self._step_s = time.monotonic() - started_s
        self._report(step)
        self._single_steps = max(0, self._single_steps - 1)
        self._next_step_s = time.monotonic() + self._slow_s if self._slow_s else 0.0

    def _report(self, step: StepOutput) -> None:
        self._outbox.step(step, may_wait=self._may_wait(step))
        self._unfinished.difference_update(step.finished)
        self._ending.difference_update(step.finished)

    def _may_wait(self, step: StepOutput) -> bool:
        """Whether nobody waits for what this step did: no first token, no prompt computed, no end."""
        if isinstance(step, DecodeStep):
            return True
        is_decode = step.num_scheduled_tokens == len(step.tokens) and all(s.phase == "decode" for s in step.scheduled)
        return is_decode and not step.finished

    def _fail(self, error: Exception) -> None:
        """A step has failed: all its requests fail with its text; the engine is emptied and goes on."""
        if not isinstance(error, BrokenContract):  # its sentence says all, and it is the student who reads it
            traceback.print_exc(file=sys.stderr)
        failed = tuple(sorted(self._unfinished))
        self._emit(wire.Failed(failed, _sentence(error), type(error).__name__))
        for request_id in failed:
            self.engine.abort_request(request_id)
        for _ in range(MAX_FAILED_CLEANINGS):
            try:
                while self.engine.has_unfinished_requests():
                    self._report(self.engine.step())
            except Exception:
                traceback.print_exc(file=sys.stderr)
            else:
                self._unfinished.clear()
                self._ending.clear()
                return
        raise EngineError(f"The engine cannot go on after: {_sentence(error)}") from error

    def _emit(self, event: wire.Event) -> None:
        self._outbox.event(event)


def _sentence(error: Exception) -> str:
    """The text of one of our errors as it is; of a foreign one with its type."""
    return str(error) if isinstance(error, LlmlabError) else f"{type(error).__name__}: {error}"
