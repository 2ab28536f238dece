"""Asking a plan of an engine. Open loop: everything is handed over at once with its due times, and the engine's host
lets each request in when its time has come; nobody waits for a slow engine. Closed loop: one thread a user.

This file must not know figures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from llmlab.bench.plan import Plan, Talk
from llmlab.engines.handle import EngineHandle
from llmlab.engines.prompts import PromptLike
from llmlab.engines.run import Run
from llmlab.errors import LlmlabError
from llmlab.models.chat import render_chat, without_second_bos
from llmlab.trace import Trace

if TYPE_CHECKING:  # it brings numpy along
    from llmlab.models.tokenizer_files import ChatFormat

POLL_S = 0.25
# Between handing over and the first arrival: a thousand prompts have to be written down first.
LEAD_S, LEAD_PER_REQUEST_S = 0.05, 0.001
# Every engine writes as many tokens as the plan says, always the same ones.
OPTIONS: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}


class Drive:
    """One plan on its way through one engine. `salt` keeps it from finding KV of what was asked before."""

    def __init__(self, handle: EngineHandle, plan: Plan, *, salt: str) -> None:
        self._handle, self._plan = handle, plan
        self._options = {**OPTIONS, "salt": salt}
        self._runs: list[Run] = []
        self._failures: list[Exception] = []
        self._stopping = threading.Event()
        # Made before the clock starts: between two steps a host should not have to read 50 prompts.
        messages = {talk: _messages(talk.opening(), talk, 0) for talk in plan.talks}
        self._first: dict[Talk, PromptLike] = dict(messages)
        if not handle.is_remote:  # a server reads its prompts itself
            form = handle.chat_format()
            self._first = {talk: ids_of(handle, form, messages[talk]) for talk in plan.talks}

    @property
    def num_ended(self) -> int:
        return sum(run.progress[0] for run in list(self._runs))

    @property
    def trace(self) -> Trace:
        """What the engine did meanwhile."""
        return self._handle.trace_of(self._runs)

    @property
    def refusals(self) -> list[str]:
        """Why requests were not served, each reason once."""
        reasons = [result.error for run in self._runs for result in run.results if result.error]
        return list(dict.fromkeys([*reasons, *map(str, self._failures)]))

    def run(self, progress: Callable[[int], None]) -> None:
        """Until all requests have ended; `progress` is told four times a second how many have.

        Raises: KeyboardInterrupt after it has stopped what ran: what came until then is in `trace`.
        """
        try:
            if self._plan.num_users is None:
                self._open_loop(progress)
            else:
                self._closed_loop(self._plan.num_users, progress)
        except BaseException:
            self._stop()
            raise
        progress(self.num_ended)

    def _open_loop(self, progress: Callable[[int], None]) -> None:
        prompts = [self._request(talk, 0, []) for talk in self._plan.talks]
        lead_s = LEAD_S + LEAD_PER_REQUEST_S * len(prompts)
        arrivals = [lead_s + (talk.arrival_s or 0.0) for talk in self._plan.talks]
        run = self._handle.batch(prompts, arrivals=arrivals, **self._options)
        self._runs.append(run)
        while not run.done:
            progress(self.num_ended)
            time.sleep(POLL_S)

    def _closed_loop(self, num_users: int, progress: Callable[[int], None]) -> None:
        talks, lock = iter(self._plan.talks), threading.Lock()
        users = [threading.Thread(target=self._user, args=(talks, lock), daemon=True) for _ in range(num_users)]
        for user in users:
            user.start()
        while any(user.is_alive() for user in users):
            progress(self.num_ended)
            time.sleep(POLL_S)

    def _user(self, talks: Iterator[Talk], lock: threading.Lock) -> None:
        """Take the next conversation when the last one has ended."""
        while not self._stopping.is_set():
            with lock:
                talk = next(talks, None)
            if talk is None:
                return
            try:
                self._talk(talk)
            except LlmlabError as error:  # this conversation is over; the others go on
                self._failures.append(error)

    def _talk(self, talk: Talk) -> None:
        conversation = talk.opening()
        for number, turn in enumerate(talk.turns):
            if number and self._stopping.wait(self._plan.think_s):
                return
            run = self._handle.batch([self._request(talk, number, conversation)], **self._options)
            self._runs.append(run)
            if self._stopping.is_set():
                run.stop()
            answer = run.wait()[0]
            conversation += [{"role": "user", "content": turn.text}, {"role": "assistant", "content": answer.text}]

    def _request(self, talk: Talk, number: int, conversation: list[dict[str, str]]) -> dict[str, Any]:
        """One turn, as batch() takes it."""
        prompt = _messages(conversation, talk, number) if number else self._first[talk]
        return {"prompt": prompt, "max_tokens": talk.turns[number].num_tokens}

    def _stop(self) -> None:
        self._stopping.set()
        for run in list(self._runs):
            run.stop()


def _messages(conversation: list[dict[str, str]], talk: Talk, number: int) -> list[dict[str, str]]:
    return [*conversation, {"role": "user", "content": talk.turns[number].text}]


def ids_of(handle: EngineHandle, form: ChatFormat, messages: list[dict[str, str]]) -> list[int]:
    """The token ids of a conversation, as the engine's host would make them. `form`: that of the handle."""
    if form.template is None:
        text = "\n\n".join(message["content"] for message in messages)
    else:
        text = render_chat(form.template, messages, form.bos_token, form.eos_token)
    return without_second_bos(text, handle.tokenize(text), form.bos_token)
