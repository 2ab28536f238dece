"""The two pictures of a prefix cache that is not as it should be: who holds a block, what is cached, what is empty.

Plain values, like all pictures; drawn by drawing_cache.py. This file must not know any check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from llmlab.labs.description import Picture
from llmlab.labs.pictures import Blocks, differing_blocks
from llmlab.labs.sentences import say


@dataclass(frozen=True, slots=True)
class Cache(Blocks):
    """A pool with what it keeps.

    `found`: name of a text -> the blocks that a lookup of it finds; `unwritten`: blocks whose KV was never computed.
    """

    found: Mapping[str, Sequence[int]]
    unwritten: Sequence[int] = ()

    def labels(self, block: int) -> list[str]:
        """`A0`: the first block that a lookup of A finds."""
        return [f"{name}{list(blocks).index(block)}" for name, blocks in self.found.items() if block in blocks]

    def is_poisoned(self, block: int) -> bool:
        return block in self.unwritten and bool(self.labels(block))

    def square(self, block: int) -> tuple[object, ...]:
        return self.owners(block), self.counts[block], self.labels(block)


def cache_picture(yours: Cache, expected: Cache, call: str, sentence: str) -> Picture:
    """`call`: after which they are compared. Of the texts those are named that a lookup finds on one side at least."""
    names = [name for name in yours.found if yours.found[name] or expected.found.get(name)] or list(yours.found)
    sides = [replace(side, found={name: side.found.get(name, ()) for name in names}) for side in (yours, expected)]
    mine, theirs = map(asdict, sides)
    return {"kind": "cache", "yours": mine, "expected": theirs, "call": call, "sentence": sentence}


def sides_of(picture: Picture) -> tuple[Cache, Cache]:
    return Cache(**picture["yours"]), Cache(**picture["expected"])


def differing(picture: Picture) -> list[int]:
    """Blocks whose owners, counts or places in a chain differ, in order."""
    return differing_blocks(*sides_of(picture))


def text(picture: Picture) -> str:
    """For a terminal: one line a side, differing blocks marked with !, then what each lookup finds."""
    wrong = differing(picture)
    lines = [say("picture_title", call=picture["call"]) + ":"]
    for name, side in zip((say("yours"), say("expected")), sides_of(picture), strict=True):
        squares = []
        for block, count in enumerate(side.counts):
            cached = f"[{'+'.join(labels)}]" if (labels := side.labels(block)) else ""
            state = "+".join(side.owners(block)) or say("picture_cached" if labels else "picture_empty")
            poison = say("picture_poison") if side.is_poisoned(block) else ""
            squares.append(f"{'!' if block in wrong else ''}{block}:{state}×{count}{cached}{poison}")
        free = say("picture_free", count=side.num_free)
        lines.append(f"  {name:9} {'  '.join(squares)}  {free}")
        lines += [f"  {'':9} {chain}" for chain in chains(side)]
    return "\n".join([*lines, f"  {picture['sentence']}"])


def chains(side: Cache) -> list[str]:
    """`lookup A → 0 → 1`, for each text."""
    return [
        " → ".join([say("picture_lookup", name=name), *map(str, blocks or "–")]) for name, blocks in side.found.items()
    ]
