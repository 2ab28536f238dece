"""Story: a trace as what the pictures need, one small record a step. The pages draw it and compute no figure of it.

Requests are told by their index, in order of arrival. static/kv_state.js rebuilds from these records who holds what.
This file must not know widgets, pages or engines.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llmlab.trace import BlockDelta, CellDelta, Header, Incident, KvDelta, Request, Step, Trace
from llmlab.trace.whose import is_other
from llmlab.views.figures import BlockFigures, figures_for
from llmlab.views.narration import Events, ended, narrate
from llmlab.views.narration_arrivals import narrate_arrivals
from llmlab.views.phrases import Phrase, joined
from llmlab.views.shares import Rows, Shares
from llmlab.views.story_head import head_of, short_name

PHASES = {"prefill": 0, "decode": 1, "recompute": 2}
# Texts of tokens are told as long as all of them together stay below this; a picture is no place for more.
MAX_TEXT_BYTES = 4_000_000


class Story:
    """Grows with the trace. Each record is made once, in the order of the steps."""

    def __init__(self, header: Header) -> None:
        self.head = head_of(header)
        self.requests: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        self.known: set[str] = set()  # ids of requests whose records have come; of others there is only the name
        self._index: dict[str, int] = {}
        self._num_output: Counter[int] = Counter()  # index -> tokens that came out
        self._text_bytes = 0
        # The sentence of the last step in which requests only went on, and what it is told of.
        self._said: Phrase = []
        self._said_of: tuple[Any, ...] = ()
        self.others: set[int] = set()  # requests of other clients
        self._figures = figures_for(header)
        self._shares = Shares(self._indexes, self._figures)
        if header.kv_at_start is not None:
            self.head["start"] = self._kv(header.kv_at_start)
            self._figures.start(header.kv_at_start)

    @classmethod
    def of(cls, trace: Trace) -> Story:
        story = cls(trace.header)
        for _ in story.tell(trace, [len(trace.step_records)]):
            pass
        return story

    def tell(self, trace: Trace, ends: Sequence[int]) -> Iterator[int]:
        """All of a trace, in parts with these ends: yields each when so many steps are told."""
        for request in trace.request_records:
            self.add_request(request)
        for end in ends:
            with no_garbage():
                for step in trace.step_records[len(self.steps) : end]:
                    self.add_step(step)
            if end == len(trace.step_records):
                self.tell_end(trace.incidents)
            yield end

    def tell_end(self, incidents: Sequence[Incident]) -> None:
        """What ended the trace other than its last step: it is told with that step, once."""
        if "incident" in self.head or not incidents or not self.steps:
            return
        last, incident = self.steps[-1], incidents[-1]
        words = ended(incident, last["n"])
        self.head["incident"] = {"kind": incident.incident, "words": words, "cause": incident.text.rstrip(".")}
        last["say"] = joined([last["say"], " ", words])

    def add_request(self, request: Request) -> None:
        index = self._index.setdefault(request.request_id, len(self.requests))
        self.known.add(request.request_id)
        told = self._request(request, index)
        if is_other(request):
            told |= {"name": self._name_of_other(index), "other": True}
        if index < len(self.requests):  # its KV was there before its record came
            if not self.steps:
                told["arrival"] = None  # and before the story: it does not wait, it runs or has ended
            self.requests[index].update(told)
        else:
            self.requests.append(told)
        self._figures.add_request(request.request_id, told["most"])
        self._said_of = ()  # it may have another name now

    def add_step(self, step: Step) -> dict[str, Any]:
        """The record of a step; it is kept in `steps` too."""
        rows = self._shares.of(step)
        texts, more_texts = self._texts(step, rows)
        events = self._events(step, rows)
        figures = self._figures.after(step, [row for _, row in rows])
        if self._figures.emptied:
            events.emptied = {self._at(r): n for r, n in self._figures.emptied.items()}
        record: dict[str, Any] = {
            "n": step.step,
            "t": round(step.t_s, 6),
            "ms": _milliseconds(step),
            "d": self._shares.ranges,
            "r": [[index, PHASES[row.phase], row.num_tokens, row.num_computed_tokens] for index, row in rows],
            "u": events.tokens,
            "w": [self._index[r] for r in step.waiting if r in self._index] if step.waiting else [],
            "nw": step.num_waiting,
            "nr": step.num_running,
            "pre": events.preempted,
            "fin": events.finished,
            "hit": events.hits,
            "say": self._say(step, events),
            "fig": figures,
        }
        if "unseen" in self.head:
            came = self._came(step)
            record |= {"in": came, "say": narrate_arrivals(came, events, self.name)}
        if step.kv is not None:
            record["kv"] = self._kv(step.kv)
        if self._text_bytes < MAX_TEXT_BYTES:
            self._text_bytes += len("".join(texts)) + sum(len(str(text)) for text in more_texts[1::2])
            if texts:
                record["dx"] = texts  # in the order of "d"
            if more_texts:
                record["x"] = more_texts
        self.steps.append(record)
        return record

    def start(self) -> dict[str, Any] | None:
        """The cache after the last step, as `head.start` of a story that goes on from there.

        None when its figures do not tell: then who wants it rebuilds it, see kv_now.py.
        """
        figures = self._figures
        if not isinstance(figures, BlockFigures) or figures.has_groups:
            return None
        return {
            "r": [
                [self._at(r), PHASES["decode"], 0, figures.tokens_of(r)] for r in figures.running if r in figures.ahead
            ],
            "a": [[self._at(r), table] for r, table in figures.tables.items()],
            "c": figures.cached,
            "h": self.steps[-1].get("kv", {}).get("h", ()) if self.steps else (),
        }

    def index_of(self, request_id: str) -> int:
        return self._index[request_id]

    def name(self, index: int) -> str:
        return str(self.requests[index]["name"])

    # ---- parts of a record

    def _request(self, request: Request, index: int) -> dict[str, Any]:
        ids = request.prompt_token_ids
        most = request.sampling.get("max_tokens")
        longest = self.head["max_model_len"]
        return {
            "name": short_name(request.request_id, index),
            "id": request.request_id,
            "prompt": len(ids),
            "arrival": round(request.arrival_s, 6),
            "most": min(len(ids) + most, longest or len(ids) + most) if isinstance(most, int) else longest,
            "pieces": None,  # a live run tells them, see prompt_texts.py
        }

    def _name_of_other(self, index: int) -> str:
        """o1, o2, ... in the order in which their records came."""
        if index in self.others:
            return self.name(index)
        self.others.add(index)
        return f"o{len(self.others)}"

    def _at(self, request_id: str) -> int:
        """The index of a request. One without a record came before the trace began."""
        index = self._index.get(request_id)
        if index is None:
            index = self._index[request_id] = len(self.requests)
            name = short_name(request_id, index)
            self.requests.append({"name": name, "id": request_id, "prompt": None, "arrival": None, "most": None})
        return index

    def _indexes(self, request_ids: Sequence[str]) -> list[int]:
        index_of = self._index
        try:
            return [index_of[request_id] for request_id in request_ids]
        except KeyError:
            return [self._at(request_id) for request_id in request_ids]

    def _texts(self, step: Step, rows: Rows) -> tuple[list[str], list[int | str]]:
        """Texts of the tokens that came out; counts them.

        The text of each that goes on decoding, in order of the requests, when each has one; [request, text, ...] of
        the rest.
        """
        indexes = self._shares.indexes([token.request_id for token in step.tokens])
        words = [token.text for token in step.tokens]
        for index, row in rows:
            self._num_output[index] = row.num_output_tokens
        self._num_output.update(indexes)
        if self.others:  # what somebody else is answered is not written out
            pairs = zip(indexes, words, strict=True)
            return [], [part for index, text in pairs if index not in self.others for part in (index, text)]
        going_on = self._shares.going_on
        if indexes == going_on:
            return words, []
        number = len(going_on)
        if indexes[:number] == going_on and len(set(indexes)) == len(indexes):  # who came in this step is behind them
            return words[:number], [
                part for pair in zip(indexes[number:], words[number:], strict=True) for part in pair
            ]
        text_of = dict(zip(indexes, words, strict=True))
        if len(text_of) < len(words) or not text_of.keys() >= set(going_on):
            return [], [part for pair in zip(indexes, words, strict=True) for part in pair]
        told = [text_of.pop(index) for index in going_on]
        return told, [part for pair in text_of.items() for part in pair]

    def _came(self, step: Step) -> list[list[int]]:
        """[request, tokens that arrived in this step], of an engine whose own steps are not seen."""
        return [[index, n] for index, n in Counter(self._indexes([t.request_id for t in step.tokens])).items()]

    def _events(self, step: Step, rows: Rows) -> Events:
        """What happened to requests. To be called before the figures go on, which tell what was before the step."""
        tokens = [0, len(self._shares.going_on), 0]
        for _, row in rows:
            tokens[PHASES[row.phase]] += row.num_tokens
        events = Events(tokens=tokens, rows=rows, going_on=self._shares.going_on)
        if step.preempted:
            held, had = self._figures.held_by, self._figures.tokens_of
            # It may be back in the same step: what it held and had computed before counts.
            events.preempted = [[self._at(r), held(r), had(r)] for r in step.preempted]
        for request_id, reason in step.finished.items():
            index = self._at(request_id)
            events.finished.append([index, reason, self._num_output.get(index, 0)])
        if step.prefix_hits:
            events.hits = [[self._at(r), num_tokens] for r, num_tokens in step.prefix_hits.items()]
        if step.waiting:
            events.first_waiting = self._first_waiting(step.waiting[0])
        return events

    def _say(self, step: Step, events: Events) -> Phrase:
        """The sentence of a step. That of the step before where the same requests only went on, as in most."""
        happened = events.rows or events.preempted or events.finished or events.emptied or step.num_waiting
        if happened or (isinstance(step.kv, BlockDelta) and (step.kv.allocated or step.kv.evicted)):
            return narrate(step, events, self.name, self.head)
        told_of = (type(step.kv), self._shares.ranges, step.num_scheduled_tokens, step.token_budget)
        if told_of != self._said_of:
            self._said, self._said_of = narrate(step, events, self.name, self.head), told_of
        return self._said

    def _first_waiting(self, request_id: str) -> tuple[int, int | None] | None:
        """The request that is next in line, and the tokens it needs room for."""
        index = self._index.get(request_id)
        if index is None:
            return None
        prompt = self.requests[index]["prompt"]
        return index, None if prompt is None else prompt + self._num_output.get(index, 0)

    def _kv(self, delta: KvDelta) -> dict[str, Any]:
        if isinstance(delta, CellDelta):
            return self._cells(delta)
        return self._blocks(delta)

    def _blocks(self, delta: BlockDelta) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if delta.freed:
            has_left = self._figures.held_by  # no blocks told: all that it had
            told["f"] = [[self._at(r), blocks] if has_left(r) else [self._at(r)] for r, blocks in delta.freed.items()]
        if delta.evicted:
            told["e"] = delta.evicted
        if delta.allocated:
            told["a"] = [(self._at(r), blocks) for r, blocks in delta.allocated.items()]
        if delta.groups:
            told["g"] = [[self._at(r), list(groups)] for r, groups in delta.groups.items()]
        if delta.cached:
            told["c"] = delta.cached
        if delta.free_head:
            told["h"] = delta.free_head
        return told

    def _cells(self, delta: CellDelta) -> dict[str, Any]:
        told: dict[str, Any] = {"att": delta.num_attended, "head": delta.head}
        for key, runs in (("f", delta.freed), ("s", delta.shared), ("w", delta.written)):
            if runs:
                told[key] = [[self._at(r), *run] for r, some in runs.items() for run in some]
        return told


@contextmanager
def no_garbage() -> Iterator[None]:
    """No search for garbage: of a long trace there are a hundred thousand new objects, and all of them stay."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _milliseconds(step: Step) -> list[float] | None:
    schedule_s, forward_s, update_s = step.schedule_s, step.forward_s, step.update_s
    if schedule_s is None or forward_s is None or update_s is None:
        return None
    return [round(1000 * schedule_s, 3), round(1000 * forward_s, 3), round(1000 * update_s, 3)]


__all__ = ["PHASES", "Story", "head_of", "short_name"]
