"""Seen: a server's trace as it comes in, under our names and on our clock.

This file must not know handles or HTTP.
"""

from __future__ import annotations

import msgspec

from llmlab.remote.clock import Clock
from llmlab.remote.keys import Key
from llmlab.remote.segments import Segments
from llmlab.remote.trace_client import TraceClient
from llmlab.remote.whose import Whose
from llmlab.trace import Header, Incident, Request, Step
from llmlab.trace.lines import Line

START_S = 15.0


class Seen:
    """What a trace client hands over, under our names and on our clock."""

    def __init__(self, url: str, whose: Whose) -> None:
        self.segments, self.clock = Segments(), Clock(0.0, 0.0)
        self._url, self._whose = url, whose

    def begin(self, header: Header, clock: Clock) -> None:
        self.clock = clock
        told = header.started_at
        of_clock = {
            "of": "server",
            "error_s": round(clock.error_s, 6),
            # how far the server's wall clock is ahead of ours
            "offset_s": None if told is None else round(told - clock.started_at, 6),
        }
        extra = {**header.extra, "url": self._url, "clock": of_clock}
        header = msgspec.structs.replace(self._whose.header(header), started_at=clock.started_at, extra=extra)
        lost = header.extra.get("num_lost_records")
        why = f"{lost} records were dropped: they came faster than they were taken" if lost else "it began anew"
        self.segments.begin(header, why)

    def take(self, record: Line) -> None:
        match record:
            case Request():
                self.segments.add(self._whose.request(record))
            case Step():
                self.segments.add(self._whose.step(record))
            case Incident():
                self.segments.add(self._whose.incident(record))

    def break_off(self, why: str) -> None:
        self.segments.break_off(why)


def traced_header(header: Header, told: Header) -> Header:
    """That of a handle: what the trace says of the engine, and the server of its model."""
    capabilities = msgspec.structs.replace(
        told.capabilities, token_ids=header.capabilities.token_ids, logprobs=header.capabilities.logprobs
    )
    return msgspec.structs.replace(
        told, model=header.model, quant=header.quant or told.quant, device=header.device, capabilities=capabilities,
        kv_at_start=None,
    )  # fmt: skip


def follow(address: str, token: Key, whose: Whose) -> tuple[Seen, TraceClient]:
    """A trace that comes in. Raises: EngineError when there is none."""
    seen = Seen(address, whose)
    client = TraceClient(address, token, seen)
    try:
        client.wait_begun(START_S)
    except BaseException:
        client.close()
        raise
    return seen, client
