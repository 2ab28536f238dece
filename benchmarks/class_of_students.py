"""A class of simulated students: each one a real HTTP client that asks a few things, and watches the batch meanwhile.

Each has a secret that is in his prompts and nowhere else. leaks() looks for it, and for all else that is his, in what
the others saw. This file must not know how a class is served.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from ahocorasick import Automaton

NUM_ASKS, WITHIN_S, TIMEOUT_S = 3, 20.0, 900.0


@dataclass
class Asked:
    """One request and what became of it. Times are of time.monotonic()."""

    request_id: str
    sent_s: float
    ended_s: float = 0.0
    status: int = 0
    text: str = ""
    prompt_token_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    retry_after: str | None = None
    error: dict[str, Any] | None = None

    @property
    def took_s(self) -> float:
        return self.ended_s - self.sent_s


@dataclass
class Student:
    """`seen`: what GET /trace told him, as it came; there when he has stopped watching."""

    name: str
    token: str
    secret: str
    asked: list[Asked] = field(default_factory=list)
    seen: bytes = b""

    @property
    def wait_s(self) -> float:
        """From ask to end, on average over what he asked."""
        return statistics.mean(asked.took_s for asked in self.asked)


async def attend(
    url: str, students: Sequence[Student], *, within_s: float = WITHIN_S, seed: int = 0, **fields: Any
) -> None:
    """All of them ask NUM_ASKS times at random moments within so many seconds, and watch until the last answer.

    `fields` of each completion, such as max_tokens.
    """
    rng, is_over = random.Random(seed), asyncio.Event()
    moments = [[rng.uniform(0, within_s) for _ in range(NUM_ASKS)] for _ in students]
    eyes = [asyncio.create_task(watch(url, student, is_over)) for student in students]
    await asyncio.gather(*(_ask_at(url, *pair, fields) for pair in zip(students, moments, strict=True)))
    await asyncio.sleep(0.5)  # what was said last is on its way
    is_over.set()
    await asyncio.gather(*eyes)


async def flood(url: str, student: Student, count: int, **fields: Any) -> None:
    """One student asks so many things at once, and does not wait when he is told to."""
    async with _client(url, student) as client:
        await asyncio.gather(*(_ask(client, student, f"flood {number}", fields) for number in range(count)))


async def watch(url: str, student: Student, is_over: asyncio.Event) -> None:
    """Read the trace until it is over."""

    async def read() -> None:
        parts: list[bytes] = []
        try:
            async with _client(url, student) as client, client.stream("GET", "/trace") as response:
                assert response.status_code == 200, response.status_code
                async for part in response.aiter_bytes():
                    parts.append(part)
        finally:
            student.seen = b"".join(parts)

    reading = asyncio.create_task(read())
    ending = asyncio.create_task(is_over.wait())
    await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
    for task in (reading, ending):
        task.cancel()
    for task in await asyncio.gather(reading, ending, return_exceptions=True):
        if isinstance(task, Exception):
            raise task


async def _ask_at(url: str, student: Student, moments: list[float], fields: dict[str, Any]) -> None:
    started = time.monotonic()

    async def ask(number: int, moment: float) -> None:
        await asyncio.sleep(max(0.0, started + moment - time.monotonic()))
        await _ask(client, student, f"question {number}", fields)

    async with _client(url, student) as client:
        await asyncio.gather(*(ask(number, moment) for number, moment in enumerate(moments)))


async def _ask(client: httpx.AsyncClient, student: Student, about: str, fields: dict[str, Any]) -> None:
    asked = Asked(f"{student.name}.{about.replace(' ', '-')}", time.monotonic())
    student.asked.append(asked)
    body = {"prompt": f"{about} of {student.secret}", "return_token_ids": True, **fields}
    response = await client.post("/v1/completions", json=body, headers={"X-Request-Id": asked.request_id})
    asked.ended_s, asked.status = time.monotonic(), response.status_code
    asked.retry_after = response.headers.get("retry-after")
    if response.status_code != 200:
        asked.error = response.json()["error"]
        return
    choice = response.json()["choices"][0]
    asked.text, asked.token_ids = choice["text"], choice["token_ids"]
    asked.prompt_token_ids = choice["prompt_token_ids"]


def _client(url: str, student: Student) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {student.token}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S, verify=False)


# ---- what came of it


def lost(students: Sequence[Student]) -> list[str]:
    """Requests without a whole answer."""
    return [asked.request_id for student in students for asked in student.asked if asked.status != 200]


def worst_over_median(students: Sequence[Student]) -> float:
    """Of the time from ask to end, per student."""
    waits = [student.wait_s for student in students]
    return max(waits) / statistics.median(waits)


def leaks(students: Sequence[Student]) -> Iterator[str]:
    """What is somebody else's in what a student saw: a sentence each."""
    # most of it is the same for all: each line is searched once, for everything, whoever saw it
    saw: dict[bytes, list[str]] = {}
    contents = Automaton()
    for student in students:
        yield from _told_of_others(student)
        for line in set(student.seen.split(b"\n")):
            saw.setdefault(line, []).append(student.name)
        for _, content in _of(student):
            contents.add_word(_characters(content), content)
    contents.make_automaton()
    found: defaultdict[bytes, set[str]] = defaultdict(set)
    for line, names in saw.items():
        for _, content in contents.iter(_characters(line)):
            found[content].update(names)
    for other in students:
        for what, content in _of(other):
            for name in sorted(found[content] - {other.name}):
                yield f"{name} saw the {what} of {other.name}: {content!r}"


def _characters(content: bytes) -> str:
    """One for each byte, also where the stream was cut within a character of UTF-8."""
    return content.decode("latin-1")


def _of(student: Student) -> Iterator[tuple[str, bytes]]:
    """What nobody else may see, as it would stand in the stream."""
    yield "secret", student.secret.encode()
    yield "name", student.name.encode()  # his request ids begin with it
    for asked in student.asked:
        for ids in filter(None, (asked.prompt_token_ids, asked.token_ids)):
            yield "token ids", ",".join(map(str, ids)).encode()


def _told_of_others(student: Student) -> Iterator[str]:
    """Any token id or text of a request that is not marked as his own."""
    own_texts = {asked.request_id for asked in student.asked}
    others: set[str] = set()
    for line in filter(None, student.seen.split(b"\n")):
        try:
            record = json.loads(line)
        except ValueError:  # the stream was cut there
            continue
        if "prompt_token_ids" in record:
            if record.get("whose") == "other":
                others.add(record["request_id"])
                if set(record["prompt_token_ids"]) - {2**31} or record.keys() & {"prompt_text", "user", "salt"}:
                    yield f"{student.name} saw the prompt of {record['request_id']}"
            elif not any(record["request_id"].startswith(name) for name in own_texts):
                yield f"{student.name} saw {record['request_id']} whole"
        for token in record.get("tokens", ()):
            is_own = token["request_id"] not in others
            if is_own and not any(token["request_id"].startswith(name) for name in own_texts):
                yield f"{student.name} saw a token of {token['request_id']}"
            if not is_own and (token["token_id"] != 2**31 or token.keys() - {"request_id", "token_id"}):
                yield f"{student.name} saw what came of {token['request_id']}"
