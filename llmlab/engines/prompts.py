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
        self, prompts: Iterable[PromptLike], arrivals: Sequence[float] | None = None, *, n: int = 1, **options: Any
    ) -> list[Prompt]:
        """Prompts for the host, sent now, or `arrivals` seconds from now. Request i has seed + i.

        `n`: answers to each prompt. They are requests like others, one after the other, and name the first of them as
        their parent: an engine may compute the prompt once.

        Raises: RequestError for a sampling value out of range, an unknown one, or a prompt of no known kind.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise RequestError(f"n is {n!r}; it must be a whole number, 1 or more.")
        options = DEFAULTS | {"seed": self._seed} | {name: v for name, v in options.items() if v is not None}
        shared = _sampling(options)  # what all share is wrong: say so before anything is sent
        prompts, now_s = list(prompts), time.monotonic()
        offsets = _offsets(arrivals, len(prompts))
        made: list[Prompt] = []
        for prompt, offset in zip(prompts, offsets, strict=True):
            first = self._one(prompt, len(made), now_s + offset, options, shared)
            made.append(first)
            for nth in range(1, n):
                made.append(self._one(prompt, len(made), now_s + offset, options, shared, first.request_id, nth))
        return made

    def _one(
        self,
        prompt: PromptLike,
        index: int,
        sent_s: float,
        options: dict[str, Any],
        shared: dict[str, Any],
        parent_id: str = "",
        nth: int = 0,
    ) -> Prompt:
        """`options`, whose sampling values are `shared`, hold for all prompts; a dict has some of its own."""
        own: dict[str, Any] = {}
        if isinstance(prompt, Mapping):
            own = dict(prompt)
            if "prompt" not in own:
                raise RequestError(f'A request as a dict needs the key "prompt"; it has {", ".join(map(repr, own))}.')
            prompt = own.pop("prompt")
        name, parent_id = own.pop("request_id", None), own.pop("parent_id", parent_id)
        if nth:
            name = None
            own |= {"seed": (own["seed"] + nth) % MAX_SEED} if "seed" in own else {}
        seed = {"seed": (options["seed"] + index) % MAX_SEED}
        options = {**options, **seed, **own}
        return Prompt(
            request_id=name or f"r{next(self._numbers)}",
            sent_s=sent_s,
            sampling=_sampling(options) if own else {**shared, **seed},
            priority=options.get("priority", 0),
            user=options.get("user", ""),
            salt=options.get("salt", ""),
            parent_id=parent_id,
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
    kinds = set(map(type, items))  # a prompt of 100,000 ids is no reason to wait
    if all(map(_is_integer, kinds)):
        _refuse_system(system, "token ids")
        return {"token_ids": tuple(items if kinds == {int} else map(int, items))}
    raise RequestError(
        f"A prompt is a text, a list of messages (role, content) or a list of token ids; got {str(prompt)[:80]!r}."
    )


def _is_integer(kind: type) -> bool:
    # numpy's too: both have __index__
    return hasattr(kind, "__index__") and not issubclass(kind, bool)


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
