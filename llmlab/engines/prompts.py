"""What a user hands over as a prompt, as messages for the host and entries of a run.

This file must not know how they travel.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmlab.engines.base import SamplingParams
from llmlab.engines.entry import Entry
from llmlab.engines.messages import Prompt
from llmlab.errors import RequestError

# Greedy, because the same question should have the same answer unless somebody asks for chance.
DEFAULTS: dict[str, Any] = {"temperature": 0.0, "max_tokens": 256}
MAX_SEED = 2**32
# What a request has beside its prompt and its sampling.
_OF_REQUEST = ("system", "raw", "priority", "user", "salt")

# A text, a conversation ([{"role": ..., "content": ...}, ...]), token ids, or a dict: {"prompt": one of these, and what
# this one request wants other than the rest, such as "temperature"}.
PromptLike = str | Sequence[Mapping[str, Any]] | Sequence[int] | Mapping[str, Any]


class PromptMaker:
    """Numbers requests r1, r2, ... and fills in what a user left out."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._numbers = itertools.count(1)

    def make(
        self, prompts: Iterable[PromptLike], arrivals: Sequence[float] | None = None, **options: Any
    ) -> list[Prompt]:
        """Prompts for the host, sent now, or `arrivals` seconds from now. Request i has seed + i.

        Raises: RequestError for a sampling value out of range, an unknown one, or a prompt of no known kind.
        """
        options = DEFAULTS | {"seed": self._seed} | {name: v for name, v in options.items() if v is not None}
        _sampling(options)  # what all share is wrong: say so before anything is sent
        prompts, now_s = list(prompts), time.monotonic()
        offsets = _offsets(arrivals, len(prompts))
        return [self._one(prompt, i, now_s + offsets[i], options) for i, prompt in enumerate(prompts)]

    def _one(self, prompt: PromptLike, index: int, sent_s: float, options: dict[str, Any]) -> Prompt:
        own: dict[str, Any] = {}
        if isinstance(prompt, Mapping):
            own = dict(prompt)
            if "prompt" not in own:
                raise RequestError(f'A request as a dict needs the key "prompt"; it has {", ".join(map(repr, own))}.')
            prompt = own.pop("prompt")
        options = {**options, "seed": (options["seed"] + index) % MAX_SEED, **own}
        return Prompt(
            request_id=f"r{next(self._numbers)}",
            sent_s=sent_s,
            sampling=_sampling(options),
            priority=options.get("priority", 0),
            user=options.get("user", ""),
            salt=options.get("salt", ""),
            **_content(prompt, options.get("system"), raw=options.get("raw", False)),
        )


def entry_of(prompt: Prompt) -> Entry:
    """The place where a run collects the answer to it."""
    return Entry(prompt.request_id, prompt.sent_s, prompt.sampling)


def _sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling values among the options, checked."""
    values = {name: value for name, value in options.items() if name not in _OF_REQUEST}
    if isinstance(values.get("stop"), str):
        values["stop"] = [values["stop"]]
    SamplingParams.of(values)
    return values


def _content(prompt: Any, system: str | None, *, raw: bool) -> dict[str, Any]:
    """Which field of a Prompt it goes into: text, messages or token_ids."""
    if isinstance(prompt, str) and raw:
        _refuse_system(system, "raw=True")
        return {"text": prompt}
    if isinstance(prompt, str):
        before = [{"role": "system", "content": system}] if system else []
        return {"messages": (*before, {"role": "user", "content": prompt})}
    items = list(prompt) if isinstance(prompt, Iterable) else [prompt]
    if items and all(isinstance(item, Mapping) for item in items):
        _refuse_system(system, "a conversation")
        return {"messages": tuple(dict(item) for item in items)}
    if all(_is_id(item) for item in items):
        _refuse_system(system, "token ids")
        return {"token_ids": tuple(int(item) for item in items)}
    raise RequestError(
        f"A prompt is a text, a list of messages (role, content) or a list of token ids; got {str(prompt)[:80]!r}."
    )


def _is_id(item: object) -> bool:
    # numpy integers too: both have __index__
    return hasattr(item, "__index__") and not isinstance(item, bool)


def _refuse_system(system: str | None, what: str) -> None:
    if system:
        raise RequestError(f"system was given together with {what}, which has its place for it already. Leave one out.")


def _offsets(arrivals: Sequence[float] | None, num_prompts: int) -> Sequence[float]:
    if arrivals is None:
        return [0.0] * num_prompts
    offsets = [float(offset) for offset in arrivals]
    if len(offsets) != num_prompts:
        raise RequestError(f"{len(offsets)} arrivals were given for {num_prompts} prompts; give one for each.")
    if not all(0 <= offset < float("inf") for offset in offsets):
        raise RequestError(f"arrivals are seconds from now, 0 or more; got {min(offsets)!r}.")
    return offsets
