"""Requests on an engine, whichever it is: made, run to their end, and what the trace says of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmlab.engines.base import Engine
from llmlab.trace import Request, Trace


def request(on: Engine, name: str, prompt: str | Sequence[int], **sampling: Any) -> Request:
    """Greedy and of 24 tokens, unless `sampling` says otherwise."""
    token_ids = on.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
    extra = {key: sampling.pop(key) for key in ("priority", "user", "salt") if key in sampling}
    return Request(
        request_id=name,
        arrival_s=0.0,
        prompt_token_ids=tuple(token_ids),
        sampling={"temperature": 0.0, "max_tokens": 24, **sampling},
        **extra,
    )


def serve(on: Engine, requests: Sequence[Request]) -> Trace:
    """Run these requests to their end; the trace of it."""
    for each in requests:
        on.add_request(each)
    steps = []
    while on.has_unfinished_requests():
        steps.append(on.step())
    return Trace(on.header, tuple(requests), tuple(steps))


def token_ids(trace: Trace, name: str) -> list[int]:
    return [t.token_id for step in trace.step_records for t in step.tokens if t.request_id == name]


def text(trace: Trace, name: str) -> str:
    return "".join(t.text for step in trace.step_records for t in step.tokens if t.request_id == name)


def reason(trace: Trace, name: str) -> str:
    (found,) = [step.finished[name] for step in trace.step_records if name in step.finished]
    return found
