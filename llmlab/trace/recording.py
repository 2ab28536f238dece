"""Trace: the record of a run, in memory. Reading and writing files is jsonl.py, checking is validation.py.

This file must not know any engine.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.errors import TraceError
from llmlab.trace import jsonl, tables, validation
from llmlab.trace.records import Header, Incident, Request, Step

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trace:
    """What an engine did: a header, the requests in order of arrival, the steps in order, and what broke them off.

    `steps`, `requests` and `tokens` are pandas DataFrames; `step_records` and `request_records` the records behind.
    """

    header: Header
    request_records: tuple[Request, ...] = ()
    step_records: tuple[Step, ...] = ()
    incidents: tuple[Incident, ...] = field(default=())

    @classmethod
    def load(cls, path: str | Path, *, salvage: bool = False) -> Trace:
        """Read a trace file (JSON Lines, gzip by the suffix .gz).

        With salvage=True what stands before a broken line is kept, and an Incident "cut" ends the requests that were
        still running there. Without a sound header there is nothing to keep.

        Raises: TraceError, with the number of the line that is broken.
        """
        records: list[jsonl.Line] = []
        try:
            records.extend(jsonl.read(Path(path)))
        except TraceError as error:
            if not (salvage and records):
                raise
            records.append(_cut(records, str(error)))
        return cls.of(records)

    @classmethod
    def of(cls, records: Iterable[jsonl.Line]) -> Trace:
        """A trace from its records in the order of the file: the header first."""
        header, *rest = records
        if not isinstance(header, Header):
            raise TypeError(f"the first record of a trace is its Header, not {type(header).__name__}")
        return cls(
            header,
            tuple(r for r in rest if isinstance(r, Request)),
            tuple(r for r in rest if isinstance(r, Step)),
            tuple(r for r in rest if isinstance(r, Incident)),
        )

    def save(self, path: str | Path) -> Path:
        """Write the trace (gzip by the suffix .gz). The file appears whole or not at all.

        Raises: TraceError when it cannot be written (disk full, no such folder).
        """
        return jsonl.write(Path(path), self.records())

    def records(self) -> list[jsonl.Line]:
        """All records in file order: each request stands before the first step that ends after its arrival."""
        # A merge, not a sort: steps that are out of order stay so, for validate() to see.
        parts: tuple[Iterable[jsonl.Line], ...] = (self.request_records, self.step_records, self.incidents)
        return [self.header, *heapq.merge(*parts, key=_time_s)]

    def to_perfetto(self, path: str | Path) -> Path:
        """Write the trace as a file for ui.perfetto.dev or chrome://tracing: see perfetto.write.

        Raises: TraceError when it cannot be written.
        """
        from llmlab.trace import perfetto

        return perfetto.write(self, path)

    def validate(self) -> list[validation.Violation]:
        """Every broken invariant as (step, rule, sentence); an empty list is a sound trace."""
        return validation.validate(self)

    def replay(self, **changes: Any) -> Trace:
        """The same requests on a simulated engine that differs in what you name: see llmlab.what_if().

        >>> from llmlab.trace.recorded import recorded
        >>> recorded("burst_of_64").replay(policy="static", block_size=32, engine="simulated")
        Trace(simulated, smollm2-135m, 64 requests, 240 steps)
        """
        from llmlab import public  # a trace knows no engine

        again: Trace = public("what_if")(self, **changes)
        return again

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a step."""
        return tables.steps(self)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row a request, with its times."""
        return tables.requests(self)

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """One row a token that came out."""
        return tables.tokens(self)

    def kv(self, step: int | None = None) -> pd.DataFrame:
        """Who holds which block or cell at the end of a step: see kv_tables.kv_table."""
        from llmlab.trace.kv_tables import kv_table

        return kv_table(self, step)

    def of_requests(self, request_ids: Sequence[str]) -> Trace:
        """The same steps, with the request records of these ids only."""
        keep = set(request_ids)
        return Trace(
            self.header,
            tuple(r for r in self.request_records if r.request_id in keep),
            self.step_records,
            self.incidents,
        )

    def __repr__(self) -> str:
        n, m = len(self.request_records), len(self.step_records)
        return f"Trace({self.header.engine}, {self.header.model}, {n} requests, {m} steps)"


def _time_s(record: jsonl.Line) -> float:
    if isinstance(record, Request):
        return record.arrival_s
    return record.t_s if isinstance(record, (Step, Incident)) else 0.0


def _cut(records: Sequence[jsonl.Line], text: str) -> Incident:
    """The end of a trace whose file broke off: it names the requests whose end is lost."""
    unfinished = dict.fromkeys(r.request_id for r in records if isinstance(r, Request))
    for record in records:
        ended = record.finished if isinstance(record, Step) else getattr(record, "requests", ())
        for request_id in ended:
            unfinished.pop(request_id, None)
    last_s = max((_time_s(r) for r in records if not isinstance(r, Header)), default=0.0)
    return Incident(incident="cut", t_s=last_s, requests=tuple(unfinished), text=text)
