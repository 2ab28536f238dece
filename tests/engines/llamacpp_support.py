"""Engines on the embedded model, and a loop that runs requests on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmlab import models
from llmlab.engines.base import EngineConfig
from llmlab.engines.llamacpp import LlamaCppEngine
from llmlab.trace import Request, Step, Trace


def engine(quant: str = "Q4_1", *, options: Mapping[str, Any] | None = None, **config: Any) -> LlamaCppEngine:
    plug_ins = {name: config.pop(name) for name in ("policy", "sampler") if name in config}
    path = str(models.get("smollm2-135m").gguf(quant))
    settings = {"threads": 2, **(options or {})}
    return LlamaCppEngine(
        EngineConfig("llamacpp", "smollm2-135m", path, quant=quant, options=settings, **config), **plug_ins
    )


def request(on: LlamaCppEngine, name: str, prompt: str | Sequence[int], **sampling: Any) -> Request:
    token_ids = on.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
    extra = {key: sampling.pop(key) for key in ("priority", "user", "salt") if key in sampling}
    return Request(
        request_id=name,
        arrival_s=0.0,
        prompt_token_ids=tuple(token_ids),
        sampling={"temperature": 0.0, "max_tokens": 24, **sampling},
        **extra,
    )


def serve(on: LlamaCppEngine, requests: Sequence[Request]) -> Trace:
    """Run these requests to their end; the trace of it, checked."""
    for each in requests:
        on.add_request(each)
    steps: list[Step] = []
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
