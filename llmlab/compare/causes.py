"""Why two columns part: the causes that parity tests, and the settings in which they differ, each tried by itself.

This file must not know how a comparison is run or shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from llmlab.engines.handle import EngineHandle
from llmlab.engines.precision import formats
from llmlab.engines.prompts import PromptLike
from llmlab.engines.result import Result
from llmlab.parity.case import Case
from llmlab.parity.causes import Cause, tested

# A cause makes the next ones moot. Settings come after what goes in and who computes; the company in a batch comes
# before the formats, because its test has both engines agree when they are asked alone.
ORDER = (
    "template", "system message", "BOS", "tokenization", "LoRA", "weights", "settings",
    "max_tokens", "batch size", "quantization", "dtype", "rounding", "sampler",
)  # fmt: skip
# What each side may have for itself without another answer coming of it.
_HARMLESS = {"logprobs", "max_tokens"}
# Options that belong to a text or a conversation: token ids have their template behind them.
_OF_TEXT = ("system", "raw")
_salts = itertools.count(1)


class Asker:
    """A column as parity asks it again: its engine, under the name of the column, with the settings of the column."""

    def __init__(self, handle: EngineHandle, name: str, options: Mapping[str, Any]) -> None:
        self.name, self.options = name, dict(options)
        self.header, self.config = handle.header, handle.config
        self.tokenize, self.pieces, self.detokenize = handle.tokenize, handle.pieces, handle.detokenize
        self._handle = handle

    def generate(self, prompt: PromptLike, **options: Any) -> Result:
        return self._handle.generate(prompt, **self._merged(prompt, options))

    def batch(self, prompts: list[PromptLike], **options: Any) -> Any:
        """The first prompt as this column was asked it; the others are company."""
        own = {name: self.options[name] for name in _OF_TEXT if isinstance(prompts[0], str) and name in self.options}
        first: PromptLike = {"prompt": prompts[0], **own}
        return self._handle.batch([first, *prompts[1:]], **self._merged([], options))

    def _merged(self, prompt: PromptLike, options: dict[str, Any]) -> dict[str, Any]:
        own = self.options
        if not isinstance(prompt, str):
            own = {name: value for name, value in own.items() if name not in _OF_TEXT}
        # A salt of its own: KV that an earlier request left is computed along another path, and may turn a near tie.
        return {**own, "salt": f"compare-again-{next(_salts)}", **options}


def causes_of(case: Case) -> tuple[Cause, ...]:
    """Every cause that could be tested, in ORDER. The handles of the case are Askers."""
    askers = cast(tuple[Asker, Asker], case.handles)
    found = [_renamed(cause, case, askers) for cause in tested(case)]
    found += [*_settings(case, askers[0]), *_lengths(case)]
    return tuple(sorted(_by_elimination(found, case), key=_rank))


def _rank(cause: Cause) -> int:
    return ORDER.index(cause.name if cause.name in ORDER else "settings")


def _renamed(cause: Cause, case: Case, askers: Sequence[Asker]) -> Cause:
    """The same finding, by the name of what the user changed."""
    if cause.verdict != "confirmed":
        return cause
    systems = {asker.options.get("system") for asker in askers}
    if cause.name == "template" and len(systems) == 2:
        return replace(cause, name="system message")
    if cause.name == "weights" and any(handle.config.lora for handle in case.handles):
        return replace(cause, name="LoRA")
    return cause


def _by_elimination(found: list[Cause], case: Case) -> list[Cause]:
    """Where the two differ in nothing but the format, the format turned a near tie, however close it was."""
    a, b = (handle.header for handle in case.handles)
    same_machinery = (a.engine, a.engine_version, a.device, a.num_threads) == (
        b.engine, b.engine_version, b.device, b.num_threads,
    )  # fmt: skip
    others = [cause for cause in found if cause.name not in ("quantization", "dtype", "rounding")]
    if not same_machinery or formats(a) == formats(b) or any(cause.verdict != "excluded" for cause in others):
        return found
    only = "; the same engine and settings, and the same answer each time: nothing else differs"
    return [
        replace(cause, verdict="confirmed", finding=cause.finding.partition("; rounding alone")[0] + only)
        if cause.name in ("quantization", "dtype") and cause.verdict != "confirmed"
        else cause
        for cause in found
    ]


def _settings(case: Case, first: Asker) -> list[Cause]:
    """Of each sampling setting in which the two differ: does the first say what the second did when it has this one?"""
    a, b = (dict(result.sampling) for result in case.results)
    names = sorted(name for name in {*a, *b} - _HARMLESS if a.get(name) != b.get(name))
    told = list(case.results[1].token_ids[: case.index + 1])
    found = []
    for name in names:
        again = first.generate(case.prompt, **{name: b.get(name), "max_tokens": case.index + 1})
        says_the_same = list(again.token_ids) == told
        change = f"{name} {a.get(name)!r} and {b.get(name)!r}"
        verb = "says what" if says_the_same else "does not say what"
        verdict = "confirmed" if says_the_same else "possible"
        finding = f"{change}: with the latter, {first.name} {verb} {case.sides[1].name} said"
        found.append(Cause("LoRA" if name == "lora" else name, verdict, finding))  # type: ignore[arg-type]
    return found


def _lengths(case: Case) -> list[Cause]:
    """One answer was cut where the other goes on."""
    limits = [result.sampling.get("max_tokens") for result in case.results]
    cut = [
        side.name
        for side, result in zip(case.sides, case.results, strict=True)
        if side.token_id is None and result.finish_reason == "length"
    ]
    if not cut or limits[0] == limits[1]:
        return []
    return [Cause("max_tokens", "confirmed", f"{cut[0]} was cut at {case.index} tokens")]
