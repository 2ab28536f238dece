"""Why two answers part: an ordered list of causes, each tested on the two engines at hand, none guessed.

This file must not know how a divergence is found or shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llmlab.engines.handle import EngineHandle
from llmlab.engines.precision import formats, precision
from llmlab.engines.result import Result
from llmlab.parity.case import Case, first_difference
from llmlab.parity.distances import BOUNDS
from llmlab.parity.probes import PROBES

Verdict = Literal["excluded", "confirmed", "possible"]
# What else is in the batch when a prompt is asked again in company.
COMPANY = [probe.prompt for probe in PROBES[:3]]


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause, and what its test found."""

    name: str
    verdict: Verdict
    # what was tested, with the figures of the test
    finding: str

    def __str__(self) -> str:
        return f"{self.name}: {self.verdict} ({self.finding})"


def tested(case: Case) -> tuple[Cause, ...]:
    """Every cause, in the order in which a cause makes the next ones moot. Some ask both engines again."""
    return tuple(test(case) for test in _TESTS)


def _template(case: Case) -> Cause:
    """Both have rendered the prompt already; their texts are compared."""
    texts = [result.prompt_text for result in case.results]
    if None in texts:
        return Cause("template", "excluded", "token ids were sent: no template was rendered")
    if texts[0] == texts[1]:
        return Cause("template", "excluded", f"both sent the same {len(texts[0] or '')} characters")
    return Cause("template", "confirmed", f"the prompts differ: {_first_parting(texts[0] or '', texts[1] or '')}")


def _bos(case: Case) -> Cause:
    """Whether the prompts differ by a token at their very beginning."""
    a, b = (result.prompt_token_ids for result in case.results)
    if a == b[1:] or a[1:] == b:
        longer = 0 if len(a) > len(b) else 1
        name, first = case.handles[longer].name, case.results[longer].prompt_token_ids[0]
        return Cause(
            "BOS", "confirmed", f"{name} begins with {_token(case.handles[longer], first)}, the other does not"
        )
    if a[:1] == b[:1]:
        return Cause("BOS", "excluded", f"both prompts begin with {_token(case.handles[0], a[0])}")
    firsts = [_token(handle, ids[0]) for handle, ids in zip(case.handles, (a, b), strict=True)]
    return Cause("BOS", "possible", f"the prompts begin with {firsts[0]} and {firsts[1]}")


def _tokenization(case: Case) -> Cause:
    """Both tokenize the same text, that of the first engine."""
    text = case.results[0].prompt_text
    a, b = (result.prompt_token_ids for result in case.results)
    if text is None:
        verdict: Verdict = "excluded" if a == b else "confirmed"
        return Cause("tokenization", verdict, "token ids were sent" + ("" if a == b else ", and not the same"))
    a, b = (tuple(handle.tokenize(text)) for handle in case.handles)
    at = first_difference(a, b)
    if at is None:
        return Cause("tokenization", "excluded", f"both make the same {len(a)} tokens of the prompt of the first")
    return Cause("tokenization", "confirmed", f"the same text gives other token ids from token {at} on")


def _weights(case: Case) -> Cause:
    a, b = (handle.header.fingerprint for handle in case.handles)
    adapted = [handle.name for handle in case.handles if handle.config.lora]
    if len(adapted) == 1:
        return Cause("weights", "confirmed", f"{adapted[0]} has a LoRA adapter, the other has none")
    if adapted:
        return Cause("weights", "possible", "not tested: both have a LoRA adapter")
    if a is None or b is None:
        return Cause("weights", "possible", "not tested: no fingerprint was taken of the weights when they were loaded")
    if a == b:
        return Cause("weights", "excluded", f"both were made from {a[:19]}…")
    return Cause("weights", "confirmed", f"made from {a[:19]}… and {b[:19]}…")


def _quantization(case: Case) -> Cause:
    """Whether the formats turn the two candidates around, by more than the order of additions can. Where no side is
    quantized, it goes by the name of dtype."""
    a, b = (_format(handle) for handle in case.handles)
    if a == b:
        return Cause("quantization", "excluded", f"both compute in {a}")
    is_quantized = "quantized" in (precision(handle.header) for handle in case.handles)
    name = "quantization" if is_quantized else "dtype"
    if case.moved is None:
        return Cause(name, "possible", f"{a} and {b}; {_unknown_gap(case)}")
    if not case.is_reproduced:
        return Cause(name, "possible", f"{a} and {b}; not as they answered: {_gaps(case)}")
    moved = f"{a} and {b} move the two candidates by {case.moved:.3f} nats: {_gaps(case)}"
    if case.moved <= _rounding_bound(case):
        return Cause(name, "excluded", f"{moved}; rounding alone does that")
    same_weights = _weights(case).verdict == "excluded"
    return Cause(name, "confirmed" if same_weights else "possible", moved)


def _rounding(case: Case) -> Cause:
    """Whether the two candidates are so close that the order of additions decides."""
    bound = _rounding_bound(case)
    if case.moved is None:
        return Cause("rounding", "possible", _unknown_gap(case))
    if case.is_reproduced and case.moved > bound:
        return Cause("rounding", "excluded", f"it moves two candidates by {bound:g} nats at most")
    gaps = [abs(side.gap) for side in case.sides if side.gap is not None]
    verdict: Verdict = "confirmed" if min(gaps) <= bound else "excluded"
    return Cause("rounding", verdict, f"{'a' if verdict == 'confirmed' else 'no'} near tie: {_gaps(case)}")


def _batch_size(case: Case) -> Cause:
    """Each engine is asked again: alone, and together with other prompts."""
    if not all(_is_greedy(result) for result in case.results):
        return Cause("batch size", "possible", "not tested: these answers were drawn at random")
    options = {**case.options, "max_tokens": case.index + 1}
    size = len(COMPANY) + 1
    alone, changed = [], []
    for handle, result in zip(case.handles, case.results, strict=True):
        alone.append(handle.generate(case.prompt, **options).token_ids)
        together = handle.batch([case.prompt, *COMPANY], **options).wait()[0].token_ids
        if {alone[-1], together} != {result.token_ids[: case.index + 1]}:
            changed.append(handle.name)
    if not changed:
        return Cause("batch size", "excluded", f"each engine says the same alone and in a batch of {size}")
    finding = f"{' and '.join(changed)} does not always say the same alone and in a batch of {size}"
    if alone[0] == alone[1]:
        return Cause("batch size", "confirmed", f"{finding}; alone, both engines agree")
    return Cause("batch size", "possible", f"{finding}; alone, the two engines part as well")


def _sampler(case: Case) -> Cause:
    """Whether both took the most likely token, under the same settings."""
    a, b = (dict(result.sampling) for result in case.results)
    other = sorted(name for name in {*a, *b} - {"max_tokens", "logprobs"} if a.get(name) != b.get(name))
    if other:
        shown = ", ".join(f"{name} {a.get(name)!r} and {b.get(name)!r}" for name in other)
        return Cause("sampler", "confirmed", f"the settings differ: {shown}")
    if not _is_greedy(case.results[0]):
        return Cause("sampler", "confirmed", f"temperature {a.get('temperature')}: each engine draws its own numbers")
    if not all(side.top for side in case.sides):
        return Cause("sampler", "possible", "not tested: an engine gives no log probabilities")
    late = [side.name for side in case.sides if side.token_id not in (None, side.top[0][0])]
    if not late:
        return Cause("sampler", "excluded", "temperature 0, and each took the most likely token of its own logits")
    return Cause("sampler", "possible", f"{' and '.join(late)} did not take the most likely token")


_TESTS: tuple[Callable[[Case], Cause], ...] = (
    _template, _bos, _tokenization, _weights, _quantization, _rounding, _batch_size, _sampler,
)  # fmt: skip


def _rounding_bound(case: Case) -> float:
    """What two implementations of the same arithmetic may differ by, for two tokens together, in nats."""
    kinds = [precision(handle.header) for handle in case.handles]
    finest = min((BOUNDS[kind].max_diff or BOUNDS["float16"].max_diff or 0.0) for kind in kinds)
    return 2 * finest


def _is_greedy(result: Result) -> bool:
    return not result.sampling.get("temperature", 1.0)


def _format(handle: EngineHandle) -> str:
    weights, dtype = formats(handle.header)
    return weights if weights == dtype else f"{weights} (KV {dtype})"


def _gaps(case: Case) -> str:
    return ", ".join(f"{s.name} prefers {s.text!r} by {s.gap:.3f}" for s in case.sides if s.gap is not None)


def _unknown_gap(case: Case) -> str:
    if any(side.token_id is None for side in case.sides):
        return "one answer had ended, so there are no two candidates"
    return "the token of one is not among the 64 most likely of the other"


def _token(handle: EngineHandle, token_id: int) -> str:
    return f"{handle.detokenize([token_id])!r} ({token_id})"


def _first_parting(a: str, b: str) -> str:
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"{a[at : at + 24]!r} and {b[at : at + 24]!r} from character {at} on"
