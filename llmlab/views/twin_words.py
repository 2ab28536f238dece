"""The frozen twin in words: its text form, and the figures beside its picture. This file must not draw.

Figures are those of the step (`fig`); nothing is computed here but a ratio for the unit of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmlab.views.kv_now import BlocksNow, CellsNow, Memory
from llmlab.views.story import Story

MAX_REQUESTS = 40
MAX_BLOCKS = 40  # of a block table
Section = tuple[str, list[tuple[str, str, str]]]  # heading, rows of (name, figure, source)


def number(value: float | None) -> str:
    """34909 -> "34 909", with a thin space; what is not known -> "–".

    >>> number(34909) == "34\\u2009909", number(None)
    (True, '–')
    """
    return "–" if value is None else f"{value:,}".replace(",", "\u2009")


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def subtitle(head: Mapping[str, Any]) -> str:
    """What stands beside the title."""
    room = ""
    if head["kind"] == "blocks" and head["num_blocks"]:
        room = f"{number(head['num_blocks'])} blocks of {head['block_size']} tokens"
    elif head["kind"] == "cells" and head["num_cells"]:
        room = f"{number(head['num_cells'])} cells"
    source = "" if head["source"] == "measured" else head["source"]
    parts = [head["engine"], head["model"], head["dtype"], head["device"], room, source]
    return " · ".join(part for part in parts if part)


def step_noun(head: Mapping[str, Any]) -> str:
    """What a record is: of an engine that is seen from outside, what arrived at once."""
    return "arrival" if "unseen" in head else "step"


def begin_s(story: Story) -> float:
    """From when a picture counts its seconds: of an engine that is seen from outside, when the first was sent."""
    if "unseen" not in story.head:
        return 0.0
    sent = [request["arrival"] for request in story.requests if request["arrival"] is not None]
    return float(min([*sent, story.steps[0]["t"]]))


def step_words(story: Story, index: int) -> str:
    """ "step 26 of 111"."""
    return f"{step_noun(story.head)} {story.steps[index]['n']} of {story.steps[-1]['n']}"


def say(record: Mapping[str, Any]) -> str:
    """The sentences of a step, without their bold."""
    return "".join(words for words, _ in record["say"])


def kv_line(head: Mapping[str, Any], fig: Mapping[str, Any]) -> str:
    """The KV cache in one line."""
    if head["kind"] == "blocks":
        shared = f" ({number(fig.get('shared'))} shared)"
        return (
            f"{number(fig.get('held'))} of {number(head['num_blocks'])} blocks held{shared}, "
            f"{number(fig.get('cached'))} cached, {number(fig.get('free'))} free; "
            f"{number(fig.get('tokens'))} tokens, {percent(fig.get('waste'))} waste"
        )
    if head["kind"] == "cells":
        shared = f" ({number(fig.get('shared'))} shared)" if head["prefix_caching"] else ""
        return (
            f"{number(fig.get('used'))} of {number(head['num_cells'])} cells used{shared}, "
            f"{number(fig.get('holes'))} holes, {number(fig.get('padding'))} padding, "
            f"{number(fig.get('unread'))} not read; attention reads {number(fig.get('read'))}"
        )
    return "This engine shows no KV cache."


def timeline_line(story: Story, index: int) -> str:
    """What the step did, in one line."""
    record, budget = story.steps[index], story.head["token_budget"]
    total, limit = sum(record["u"]), f" of {number(budget)}" if budget else ""
    shares = ", ".join(
        f"{number(n)} {name}" for name, n in zip(("prefill", "decode", "recompute"), record["u"], strict=True) if n
    )
    told = f" ({shares})" if shares else ""
    requests = f"{len(story.requests)} request{'' if len(story.requests) == 1 else 's'}"
    return f"{requests}; {total}{limit} tokens{told}; {record['nr']} run, {record['nw']} wait"


def text_twin(story: Story | None, index: int, parts: Sequence[str], title: str, state: Memory | None) -> str:
    """All that the picture shows, as text."""
    if story is None or not story.steps or state is None:
        return f"{title}\nNothing has run yet."
    record = story.steps[index]
    lines = [f"{title} · {story.head['engine']} · {step_words(story, index)}"]
    if "unseen" in story.head:
        return "\n".join([*lines, story.head["unseen"], say(record), *arrival_lines(story, index)])
    if "kv" in parts:
        lines.append(kv_line(story.head, record["fig"]))
    if "timeline" in parts:
        lines.append(timeline_line(story, index))
    return "\n".join([*lines, say(record), *request_lines(story, index, state)])


def arrival_lines(story: Story, index: int) -> list[str]:
    """One line a request, of an engine that is seen from outside: tokens, when the first came, how it ended."""
    came: dict[int, list[tuple[float, int]]] = {}
    ends: dict[int, str] = {}
    for record in story.steps[: index + 1]:
        for request, num_tokens in record["in"]:
            came.setdefault(request, []).append((record["t"], num_tokens))
        ends.update({request: reason for request, reason, _ in record["fin"]})
    lines = []
    for r, request in enumerate(story.requests[:MAX_REQUESTS]):
        tokens, sent = came.get(r, []), request["arrival"]
        num_tokens = sum(n for _, n in tokens)
        first = f", the first after {tokens[0][0] - sent:.2f} s" if tokens and sent is not None else ""
        end = f", ended ({ends[r]})" if r in ends else ""
        lines.append(f"{story.name(r)} {number(num_tokens)} token{'' if num_tokens == 1 else 's'}{first}{end}")
    if (more := len(story.requests) - MAX_REQUESTS) > 0:
        lines.append(f"and {more} more requests")
    return lines


def request_lines(story: Story, index: int, state: Memory) -> list[str]:
    """One line a request that is there: name, phase, tokens, blocks or cells; above 40 the largest."""
    record = story.steps[index]
    phases = {row[0]: ("prefill", "decode", "recompute")[row[1]] for row in state.rows}
    waiting, ended = set(record["w"]), {fin[0] for fin in record["fin"]}
    holders = set(getattr(state, "tables", {})) | set(_cells_of(state))
    present = sorted(set(state.tokens) | waiting | ended | holders)
    chosen = present
    if len(present) > MAX_REQUESTS:
        chosen = sorted(sorted(present, key=lambda r: (-state.tokens.get(r, 0), r))[:10])
    cells, lines = _cells_of(state), []
    for r in chosen:
        phase = (
            "ended"
            if r in ended
            else phases.get(r) or ("waiting" if r in waiting else "kept" if r in cells else "idle")
        )
        tokens = f"{number(state.tokens[r])} tokens" if r in state.tokens else ""
        lines.append(" ".join(filter(None, [story.name(r), phase, tokens, _where(state, r, cells)])))
    if len(chosen) < len(present):
        lines.append(f"and {len(present) - len(chosen)} more requests")
    return lines


def _where(state: Memory, request: int, cells: Mapping[int, int]) -> str:
    if isinstance(state, BlocksNow) and request in state.tables:
        table = state.tables[request]
        more = f" … {len(table)} in all" if len(table) > MAX_BLOCKS else ""
        return "blocks " + " ".join(map(str, table[:MAX_BLOCKS])) + more
    return f"{number(cells[request])} cells" if request in cells else ""


def _cells_of(state: Memory) -> dict[int, int]:
    """Request -> cells it holds."""
    counts: dict[int, int] = {}
    if isinstance(state, CellsNow):
        for holders in state.holders.values():
            for request in holders:
                counts[request] = counts.get(request, 0) + 1
    return counts


def panel(story: Story, index: int, state: Memory) -> list[Section]:
    """The figures beside the picture of the KV cache."""
    head, fig = story.head, story.steps[index]["fig"]
    source = "predicted" if head["cell_source"] == "predicted" else head["source"]
    if isinstance(state, BlocksNow):
        found = _block_sections(head, fig, state, source)
    elif isinstance(state, CellsNow):
        found = _cell_sections(head, fig, source)
    else:
        found = []
    return [(name, [(n, f, "" if f == "–" else s) for n, f, s in rows]) for name, rows in found]


def _block_sections(head: Mapping[str, Any], fig: Mapping[str, Any], state: BlocksNow, source: str) -> list[Section]:
    reserved, slots = fig.get("reserved"), fig.get("total_slots")
    running = fig.get("running")
    same = "the running request, contiguous" if running == 1 else f"the {number(running)} running, contiguous"
    sections: list[Section] = [
        (
            f"{number(head['num_blocks'])} blocks of {head['block_size']} tokens",
            [(name, number(fig.get(name)), source) for name in ("held", "cached", "free")],
        ),
        (
            "Memory",
            [
                ("tokens held", number(fig.get("tokens")), source),
                ("waste in last blocks", percent(fig.get("waste")), source),
                (same, percent(None if reserved is None or not slots else reserved / slots, 0), "simulated"),
            ],
        ),
    ]
    if head["prefix_caching"]:
        rows = [
            ("shared blocks", number(fig.get("shared")), source),
            ("blocks saved by sharing", number(fig.get("saved")), source),
            ("prefix-hit tokens so far", number(fig.get("hits")), "reported" if source == "measured" else source),
        ]
        sections.append(("Sharing", rows))
    if state.next_out:
        told = state.next_out[: 6 if state.next_out[0] < 1000 else 4]
        queue = " ".join(f"#{block}{'c' if block in state.cached else ''}" for block in told)
        is_any_cached = any(block in state.cached for block in told)
        note = [("c = still cached; evicted when reused", "", "")] if is_any_cached else []
        sections.append(("Free queue, next out first", [("", queue, ""), *note]))
    return sections


def _cell_sections(head: Mapping[str, Any], fig: Mapping[str, Any], source: str) -> list[Section]:
    masked = fig.get("masked")
    share = f" ({percent(masked / fig['read'], 0)})" if masked is not None and fig.get("read") else ""
    sections: list[Section] = [
        (
            f"{number(head['num_cells'])} cells",
            [(words, number(fig.get(name)), source) for name, words in
             (("used", "used"), ("holes", "holes"), ("padding", "padding"), ("unread", "not read"))],
        ),
        (
            "Attention span",
            [
                ("cells read each step", number(fig.get("read")), source),
                ("of them masked", number(masked) + share, source),
            ],
        ),
    ]  # fmt: skip
    if head["prefix_caching"]:
        rows = [
            ("shared cells", number(fig.get("shared")), source),
            ("cells saved", number(fig.get("saved")), source),
            ("prefix-hit tokens so far", number(fig.get("hits")), head["source"]),
        ]
        sections.append(("Sharing", rows))
    return sections
