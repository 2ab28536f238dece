"""Live: the story of a run while it grows, for all its views. One thread sends the steps, 20 times a second at most.

Messages: {"t": "s", "from": n, "requests": [[index, request], ...], "steps": [...]} with what is new, steps from the
n-th of the run on; once a second {"t": "k"} in its place, from which a view that came late can begin at once, see
key_frames.py. Who lacks the history asks for it. Each message is made into JSON once, for all views, and none where no
page can see it; a page that comes back gets all that it missed.

This file must not know widgets or notebooks.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from llmlab.engines.run import Run
from llmlab.engines.threads import num_cpus
from llmlab.trace import Header, Request
from llmlab.trace.whose import is_other
from llmlab.views.key_frames import KeyFrames
from llmlab.views.narration import died, paused
from llmlab.views.pace import Pace
from llmlab.views.phrases import plain
from llmlab.views.prompt_texts import PromptTexts
from llmlab.views.story import Story

TEXTS_S, NUM_TEXTS = 1.0, 5_000  # between two questions for texts of prompts; tokens of one
Message = dict[str, Any]  # from a page

_json = msgspec.json.Encoder().encode


def steps_message(story: Story, first: int) -> bytes:
    """The steps of a story from `first` on, of requests that its page has."""
    return _json({"t": "s", "from": first, "requests": [], "steps": story.steps[first:]})


def fills_cpus(header: Header) -> bool:
    """The engine computes on every core of this machine, and not on a GPU, beside which its threads wait."""
    is_on_cpu = str(header.device).lower().endswith("cpu")  # also "2 x CPU", of two workers
    return header.source == "measured" and is_on_cpu and (header.num_threads or 0) >= num_cpus()


class Screen(Protocol):
    """One view that shows the run."""

    @property
    def is_seen(self) -> bool:
        """A page is there to draw what is sent. Where output goes to a file, only the end is shown."""

    def send(self, message: bytes) -> None:
        """A message as JSON."""

    def tell(self, state: str, note: list[Any], is_awaited: bool) -> None:
        """How the run is: "running", "paused", "stopping" or "ended"; called again only when it changed."""

    def freeze(self) -> None:
        """The run has ended: nothing will follow."""


class Live:
    """One for each run, made by live_of(). Every method may be called in any thread."""

    def __init__(self, run: Run) -> None:
        self.run, self.id = run, uuid.uuid4().hex
        self.story: Story | None = None
        self._lock = threading.RLock()
        self._screens: list[Screen] = []
        self._seen: list[Screen] = []  # those of them that a page showed at the last look
        self._needs: list[tuple[Screen, int]] = []
        self._thread: threading.Thread | None = None
        self._pace: Pace | None = None  # of the thread
        self._fills_cpus, self._is_slow = False, False  # the engine, when it goes on
        self._part = 0  # which beginning this is
        self._with_old: list[Screen] = []  # have the story of an earlier one
        self._next_step = 0  # as the engine counts
        self._sent = 0  # steps of the story
        self._changed: set[int] = set()  # requests that are not sent yet
        self._texts, self._next_texts_s = PromptTexts(run), 0.0
        self._keys: KeyFrames | None = None  # of the story
        self._told: tuple[Any, ...] = ()
        self._is_stopping = False

    # ---- for views

    def attach(self, screen: Screen) -> None:
        """Send it what comes from now on."""
        with self._lock:
            if screen not in self._screens:
                self._screens.append(screen)
            self._told = ()
            if self._thread is None:
                self._thread = threading.Thread(target=self._publish, name="llmlab view", daemon=True)
                self._thread.start()

    def detach(self, screen: Screen) -> None:
        with self._lock:
            for screens in (self._screens, self._with_old):
                with suppress(ValueError):
                    screens.remove(screen)

    def need(self, screen: Screen, have: int) -> None:
        """The screen lacks the steps from `have` on; the next message brings them."""
        self._needs.append((screen, have))
        self._hurry()
        if self.run.done and (story := self.catch_up()) is not None:  # there is no next one
            with self._lock:
                self._send_needed(story)

    def stop(self) -> None:
        self._is_stopping = True
        self.run.stop()
        self._hurry()

    def drive(self, order: Message) -> None:
        """{"paused": bool}, {"steps": n} or {"slow": seconds}."""
        engine = self.run.engine
        if engine is None or engine.is_remote or self.run.done:
            return
        if order.get("paused") is not None:
            engine.pause() if order["paused"] else engine.resume()
        if order.get("steps"):
            engine.begin_step(int(order["steps"]))
        if order.get("slow") is not None:
            seconds = max(0.0, float(order["slow"]))
            engine.slow(seconds)
            self._is_slow = seconds > 0
        self._hurry()

    def catch_up(self) -> Story | None:
        """The story with all steps that have come; None before the run has reached the engine."""
        with self._lock:
            if self.story is not None and self._part != self.run.part:
                self._forget()
            if self.story is None and not self._begin():
                return None
            assert self.story is not None
            news = self.run.steps_since(self._next_step, self.story.known)
            self._add_requests(self.story, news.requests)
            if news.steps and self._keys is not None and self._seen:
                self._keys.note()
            for step in news.steps:
                self.story.add_step(step)
            self._next_step = news.next_step
            if "unseen" in self.story.head and news.steps:
                self._add_prompts(self.story)
            if self.run.done and self._texts:
                self._add_texts()
                self._texts.clear()
            return self.story

    def finish(self) -> bool:
        """When the run has ended: send the rest, freeze the screens, and return then. False while it goes on."""
        if not self.run.done:
            return False
        with self._lock:
            self._tick()
            self._thread = None  # who comes now gets a new one
            for screen in list(self._screens):
                self._screens.remove(screen)
                screen.freeze()
        return True

    # ---- the thread

    def _publish(self) -> None:
        self._pace = pace = Pace()
        while not self.finish():
            with self._lock:
                if not self._screens:
                    self._thread = None
                    return
                self._tick()
            if self._texts and time.monotonic() >= self._next_texts_s:
                self._add_texts(NUM_TEXTS)
                self._next_texts_s = time.monotonic() + TEXTS_S
            pace.rest(is_beside=self._is_beside())

    def _is_beside(self) -> bool:
        """The engine computes, on every core of this machine: each look holds it up."""
        engine = self.run.engine
        is_held = self._is_stopping or self._is_slow or (engine is not None and engine.is_paused)
        return self._fills_cpus and not is_held

    def _hurry(self) -> None:
        if self._pace is not None:
            self._pace.hurry()

    def _tick(self) -> None:
        """Send what is new."""
        self._seen = [screen for screen in self._screens if screen.is_seen]
        if self._screens and (story := self.catch_up()) is not None and self._seen:
            assert self._keys is not None
            anew = [screen for screen in self._seen if screen in self._with_old]
            if anew:
                self._send_anew(story, anew)
            if len(anew) == len(self._seen):
                self._note_sent(story)
            elif self._keys.first is not None:
                self._send_key(story, self._keys)
            else:
                self._send_news(story)
            if key := self._keys.again():
                self._send(key)
            self._send_needed(story)
        self._tell()

    def _send_news(self, story: Story) -> None:
        steps, requests = story.steps[self._sent :], sorted(self._changed)
        if steps or requests:
            told = [[index, story.requests[index]] for index in requests]
            self._send(_json({"t": "s", "from": self._sent, "requests": told, "steps": steps}))
        self._note_sent(story)

    def _send_anew(self, story: Story, screens: list[Screen]) -> None:
        """Another story takes the place of the one that these screens have."""
        requests = list(enumerate(story.requests))
        told = {"t": "k", "anew": True, "from": 0, "head": story.head, "requests": requests, "steps": story.steps}
        message = _json(told)
        for screen in screens:
            screen.send(message)
            self._with_old.remove(screen)

    def _send_needed(self, story: Story) -> None:
        needs, self._needs = self._needs, []
        for screen, have in needs:
            rest = {"requests": list(enumerate(story.requests)), "steps": story.steps[have:]}
            if have == 0:
                screen.send(_json({"t": "k", "from": 0, "head": story.head, **rest}))
            else:
                screen.send(_json({"t": "s", "from": have, **rest}))

    def _send_key(self, story: Story, keys: KeyFrames) -> None:
        """A key message has what is new, too."""
        if keys.first is not None and self._sent < keys.first:  # somebody else has caught up meanwhile
            self._send_news(story)
        self._send(keys.take())
        self._note_sent(story)

    def _note_sent(self, story: Story) -> None:
        """Whoever is seen has all of it, or asks for what it lacks."""
        self._sent = len(story.steps)
        self._changed.clear()

    def _send(self, message: bytes) -> None:
        for screen in self._seen:
            screen.send(message)

    def _tell(self) -> None:
        """Say how the run is, when that changed."""
        now = (self._state(), self._note(), self.run.is_awaited)
        if now != self._told:
            self._told = now
            for screen in self._screens:
                screen.tell(*now)

    def _state(self) -> str:
        if self.run.done:
            return "ended"
        if self._is_stopping:
            return "stopping"
        return "paused" if self.run.engine is not None and self.run.engine.is_paused else "running"

    def _note(self) -> list[Any]:
        steps = self.story.steps if self.story is not None else []
        following = steps[-1]["n"] + 1 if steps else self._next_step
        if self.run.died:
            cause = next((i.text for i in self.run.trace.incidents if i.incident == "died"), "")
            return list(died(following, cause.rstrip(".") or "it ended unexpectedly"))
        if self._state() == "paused":
            return list(paused(following))
        return list(plain(note)) if (note := self.run.note) else []

    # ---- the beginning of the story

    def _begin(self) -> bool:
        if self.run.first_step is None and not self.run.done:
            return False
        self._part = self.run.part
        opening, self._next_step = self.run.opening()
        self.story = Story(opening.header)
        engine = self.run.engine
        self._fills_cpus = engine is not None and not engine.is_remote and fills_cpus(opening.header)
        self._keys = KeyFrames(self.story)
        self._add_requests(self.story, list(opening.request_records))
        return True

    def _forget(self) -> None:
        """The run begins anew, with another KV cache: nothing of the story holds any more."""
        self.story, self._with_old = None, list(self._screens)
        self._sent = 0
        self._changed.clear()
        self._texts.clear()
        self._needs = []

    def _add_requests(self, story: Story, requests: list[Request]) -> None:
        for request in requests:
            story.add_request(request)
        indexes = [story.index_of(request.request_id) for request in requests]
        self._changed.update(indexes)
        if "unseen" not in story.head:  # else no picture writes a prompt out
            self._texts.add(request for request in requests if not is_other(request))

    def _add_prompts(self, story: Story) -> None:
        """How long prompts are: of an engine that is seen from outside, the first token tells it."""
        for request_id, number in self.run.num_prompt_tokens.items():
            if number and request_id in story.known and not story.requests[story.index_of(request_id)]["prompt"]:
                index = story.index_of(request_id)
                story.requests[index]["prompt"] = number
                self._changed.add(index)

    def _add_texts(self, *num_tokens: int) -> None:
        found = self._texts.ask(*num_tokens)
        with self._lock:
            assert self.story is not None
            for request, texts in found:
                index = self.story.index_of(request.request_id)
                self.story.requests[index]["pieces"] = texts
                self._changed.add(index)


def live_of(run: Run) -> Live:
    """The story of a run: one for all its views."""
    if not isinstance(run.follower, Live):
        run.follower = Live(run)
    return run.follower
