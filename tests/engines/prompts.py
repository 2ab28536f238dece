"""Prompts as the notebook's side sends them to a loop."""

from __future__ import annotations

import time
from typing import Any

from llmlab.engines import messages as wire


def prompt(name: str, text: str = "hello", *, in_s: float = 0.0, **given: Any) -> wire.Prompt:
    """A greedy one of 4 tokens, unless `sampling` says otherwise; `in_s`: how long from now it is to arrive."""
    sampling = {"temperature": 0.0, "max_tokens": 4, **given.pop("sampling", {})}
    given = given or {"text": text}
    return wire.Prompt(request_id=name, sent_s=time.monotonic() + in_s, sampling=sampling, **given)
