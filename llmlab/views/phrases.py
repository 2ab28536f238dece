"""Parts of sentences: names in bold, numbers with their nouns, lists. A text for a picture is a list of segments.

Names are data: each is a segment of its own and never part of a text that a page could take for markup.
This file must not know traces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

# [text, 1 if bold else 0]
Segment = list[str | int]
Phrase = list[Segment]
Clause = str | Phrase  # without names it is only a text

MAX_NAMES = 4


def plain(text: str) -> Phrase:
    return [[text, 0]]


def bold(name: str) -> Phrase:
    return [[name, 1]]


def joined(parts: Iterable[Clause]) -> Phrase:
    """One phrase; neighbours of the same weight become one segment.

    >>> joined(["Prefill: ", bold("r8"), " 62", " tokens."])
    [['Prefill: ', 0], ['r8', 1], [' 62 tokens.', 0]]
    """
    out: Phrase = []
    for part in parts:
        for text, weight in ((part, 0),) if isinstance(part, str) else part:
            if out and out[-1][1] == weight:
                out[-1][0] = f"{out[-1][0]}{text}"
            elif text:
                out.append([text, weight])
    return out


def spaced(sentences: Sequence[Clause]) -> Phrase:
    """One phrase of several sentences, a space between two.

    >>> spaced(["One waits.", joined([bold("r8"), " ends."])])
    [['One waits. ', 0], ['r8', 1], [' ends.', 0]]
    """
    texts = [sentence for sentence in sentences if isinstance(sentence, str)]
    if len(texts) == len(sentences):  # as in most steps
        return plain(" ".join(texts)) if texts else []
    parts: list[Clause] = []
    for sentence in sentences:
        parts += (" ", sentence) if parts else (sentence,)
    return joined(parts)


def listed(phrases: Sequence[Phrase]) -> Phrase:
    """a; a and b; a, b and c.

    >>> listed([bold("r1"), bold("r2"), bold("r3")])
    [['r1', 1], [', ', 0], ['r2', 1], [' and ', 0], ['r3', 1]]
    """
    parts: list[Clause] = []
    for i, phrase in enumerate(phrases):
        if i:
            parts.append(" and " if i == len(phrases) - 1 else ", ")
        parts.append(phrase)
    return joined(parts)


def who(indexes: Sequence[int], name: Callable[[int], str], noun: str = "request") -> Phrase:
    """Names of requests, or how many they are when the list would be long.

    >>> who([0, 1], "r{}".format), who(range(7), "r{}".format)
    ([['r0', 1], [' and ', 0], ['r1', 1]], [['7 requests', 0]])
    """
    if len(indexes) > MAX_NAMES:
        return plain(count(len(indexes), noun))
    return listed([bold(name(index)) for index in indexes])


@lru_cache(1024)
def number(n: int) -> str:
    """Thousands parted by a thin space.

    >>> number(34909)
    '34\\u2009909'
    """
    return f"{n:,}".replace(",", "\u2009")


@lru_cache(1024)
def count(n: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "block"), count(4, "block")
    ('1 block', '4 blocks')
    """
    return f"{number(n)} {noun}" if n == 1 else f"{number(n)} {noun}s"


@lru_cache(1024)
def used(num_tokens: int, budget: int) -> str:
    """
    >>> used(16, 8192)
    '16 of 8\\u2009192 budget tokens used.'
    """
    return f"{number(num_tokens)} of {count(budget, 'budget token')} used."


def ids(some: Sequence[int]) -> str:
    """Ids of blocks or cells, the first few when they are many.

    >>> ids([5, 16]), ids([1, 2, 3, 4, 5, 6])
    ('5 and 16', '1, 2, 3, 4 and 2 more')
    """
    if len(some) == 1:
        return str(some[0])
    told = [str(i) for i in some[:MAX_NAMES]]
    if len(some) > MAX_NAMES:
        return f"{', '.join(told)} and {len(some) - MAX_NAMES} more"
    return f"{', '.join(told[:-1])} and {told[-1]}" if told else ""


def one_or_many(n: int, one: str, many: str) -> str:
    return one if n == 1 else many
