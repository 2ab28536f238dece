"""A plan: every request of one measurement before the first is sent. The same seed makes the same plan.

The prompts do not depend on the load: at every point of a sweep, and on every engine, the same is asked.
This file must not know engines or clocks.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from llmlab.bench.workloads import PromptKind, Workload
from llmlab.errors import RequestError
from llmlab.shipped import shipped


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: what the user says, and how many tokens the answer has."""

    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation; most have one turn."""

    turns: tuple[Turn, ...]
    system: str | None = None
    # Open loop: when it comes, in seconds after the first. None: when a user is free.
    arrival_s: float | None = None

    def opening(self) -> list[dict[str, str]]:
        """The conversation before its first turn."""
        return [{"role": "system", "content": self.system}] if self.system else []


@dataclass(frozen=True, slots=True)
class Plan:
    """What one measurement sends. `num_users`: of a closed loop, None where arrivals wait for nobody."""

    talks: tuple[Talk, ...]
    num_users: int | None = None
    think_s: float = 0.0

    @property
    def num_requests(self) -> int:
        return sum(len(talk.turns) for talk in self.talks)


def plan_of(workload: Workload, *, load: float, seed: int = 0, num_requests: int | None = None) -> Plan:
    """The requests of `workload` at one load. A burst has as many requests as its load says.

    >>> from llmlab.bench.workloads import workload
    >>> plan = plan_of(workload("poisson"), load=50.0, seed=1, num_requests=100)
    >>> plan.num_requests, round(plan.talks[-1].arrival_s, 1)  # 100 requests at 50 a second
    (100, 2.3)

    Raises: RequestError for a load that this workload cannot have.
    """
    kind = workload.arrivals.kind
    if not 0 < load < float("inf") or (kind != "poisson" and load != int(load)):
        wanted = "above 0" if kind == "poisson" else "a whole number, 1 or more"
        raise RequestError(
            f"The load of {workload.name or 'this workload'} is {workload.load_unit}: {wanted}; not {load:g}."
        )
    count = int(load) if kind == "burst" else num_requests or workload.num_requests
    talks = tuple(itertools.islice(_talks(workload, random.Random(seed), count), count))
    if kind == "closed":
        return Plan(talks, num_users=int(load), think_s=workload.arrivals.think_s)
    arrivals = _arrivals(random.Random(seed + 1), len(talks), load if kind == "poisson" else None)
    return Plan(tuple(Talk(talk.turns, talk.system, at_s) for talk, at_s in zip(talks, arrivals, strict=True)))


def _talks(workload: Workload, chance: random.Random, num_requests: int) -> Iterator[Talk]:
    """Conversations with `num_requests` turns together; the last one is cut where it would have more."""
    questions = _questions(chance)
    shares = [kind.share for kind in workload.prompts]
    left = num_requests
    while left > 0:
        kind = chance.choices(workload.prompts, shares)[0]
        texts = _texts(kind, chance, questions)[:left]
        turns = tuple(Turn(text, chance.randint(*workload.max_tokens)) for text in texts)
        yield Talk(turns, _text(kind.system) if kind.system else None)
        left -= len(turns)


def _texts(kind: PromptKind, chance: random.Random, questions: Iterator[str]) -> list[str]:
    """What the user says in each turn."""
    first = next(questions) if kind.kind == "question" else _passages(kind, chance)
    follow_ups = chance.sample(_words()["follow_ups"], k=min(kind.turns - 1, len(_words()["follow_ups"])))
    return [first, *follow_ups]


def _questions(chance: random.Random) -> Iterator[str]:
    """Every asker about every topic in random order, then again: a repeated question would be a prefix hit."""
    words = _words()
    pairs = list(itertools.product(words["askers"], words["topics"]))
    while True:
        chance.shuffle(pairs)
        yield from (asker.format(topic=topic) for asker, topic in pairs)


def _passages(kind: PromptKind, chance: random.Random) -> str:
    paragraphs = _text("harbour.txt").split("\n\n")
    chosen = chance.sample(paragraphs, k=min(chance.randint(*kind.passages), len(paragraphs)))
    return "\n\n".join([*chosen, chance.choice(_words()["passage_askers"])])


def _arrivals(chance: random.Random, count: int, rate_rps: float | None) -> list[float]:
    """Seconds after the first request: 0 for all, or with exponential gaps of 1 / rate_rps on average."""
    if rate_rps is None:
        return [0.0] * count
    gaps = [chance.expovariate(1.0) / rate_rps for _ in range(count - 1)]
    return list(itertools.accumulate(gaps, initial=0.0))


@cache
def _words() -> dict[str, list[str]]:
    words: dict[str, list[str]] = json.loads(_text("questions.json"))
    return words


@cache
def _text(name: str) -> str:
    return shipped(f"texts/{name}").read_text(encoding="utf-8").strip()
