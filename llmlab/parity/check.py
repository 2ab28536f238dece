"""parity(): ask both engines the same, and hold every answer of the one against that of the other.

This file must not know how a manifest looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llmlab.engines.handle import EngineHandle
from llmlab.engines.precision import ORDER, precision
from llmlab.engines.result import Result
from llmlab.errors import EngineError
from llmlab.parity.case import NUM_ASKED, case_of, has_same_tokens
from llmlab.parity.distances import BOUNDS, Bound, Distance, distance, merged
from llmlab.parity.divergence import Divergence, divergence_of
from llmlab.parity.manifest import Manifest, Row, Verdict
from llmlab.parity.probes import MAX_TOKENS, Probe, probes_of
from llmlab.parity.settings import NUMBERS, TEXT, format_rows, room_rows, text_rows

OUT = "text out"
NUM_VOCAB_PROBES = 512  # tokens, spread over the vocabulary, whose bytes are compared
Results = tuple[Sequence[Result], Sequence[Result]]


def parity(
    a: EngineHandle, b: EngineHandle, probes: Iterable[str | Probe] | None = None, *, max_tokens: int = MAX_TOKENS
) -> Manifest:
    """The parity manifest of two loaded engines: text in, numbers, room, text out.

    `probes`: prompts to ask instead of the built-in ones. `max_tokens`: of the greedy answer to each.

    >>> llmlab.parity(a, b).table()     # doctest: +SKIP

    Raises: EngineError for an engine without logits; RequestError while one is paused or has requests of its own.
    """
    sizes = _num_vocab(a), _num_vocab(b)
    asked = probes_of(probes)
    results = _answers(a, asked, max_tokens), _answers(b, asked, max_tokens)
    bound = BOUNDS[max((precision(a.header), precision(b.header)), key=ORDER.index)]
    rows = [*text_rows(a, b, asked, results), *format_rows(a, b), *room_rows(a, b)]
    if not _has_same_vocabulary(a, b, sizes, results):
        why = "their token ids do not mean the same"
        rows += [Row(TEXT, "vocabulary", f"{sizes[0]} tokens", f"{sizes[1]} tokens", "differs", "other tokens")]
        rows += [Row(NUMBERS, "logits", None, None, "not comparable", why)]
        rows += [Row(OUT, "greedy answers", None, None, "not comparable", why, is_required=False)]
        return Manifest(a.name, b.name, _in_order(rows), bound)
    rows.append(_vocabulary(sizes))
    apart = merged(_distances(a, b, results[0], min(sizes)))
    rows += _logits_rows(apart, bound)
    divergence = _first_divergence(a, b, asked, results)
    rows.append(_answers_row(asked, results))
    return Manifest(a.name, b.name, _in_order(rows), bound, apart, divergence)


def _num_vocab(handle: EngineHandle) -> int:
    """Raises: EngineError or RequestError when this engine cannot be asked for logits."""
    handle.require_idle()
    try:
        return int(handle.logits([0]).shape[1])
    except EngineError as error:
        if not handle.alive:
            raise
        raise EngineError(
            f"{handle.name}: the {handle.engine} engine has no logits to compare. Load the model itself: "
            "`%llm load MODEL -e both`."
        ) from error


def _answers(handle: EngineHandle, probes: Sequence[Probe], max_tokens: int) -> list[Result]:
    """Greedy, with the distributions that the tokens were taken from: evidence, where two answers part."""
    run = handle.batch([probe.prompt for probe in probes], max_tokens=max_tokens, logprobs=NUM_ASKED)
    return list(run.wait())


def _has_same_vocabulary(a: EngineHandle, b: EngineHandle, sizes: tuple[int, int], results: Results) -> bool:
    used = {i for side in results for result in side for i in (*result.prompt_token_ids, *result.token_ids)}
    spread = range(0, min(sizes), max(1, min(sizes) // NUM_VOCAB_PROBES))
    return has_same_tokens(a, b, sorted({*used, *spread}))


def _vocabulary(sizes: tuple[int, int]) -> Row:
    """Equal in all tokens that were looked at; one side may have rows beyond them that no text uses."""
    a, b = (f"{size} tokens" for size in sizes)
    note = "" if a == b else "the same tokens; the rest is padding, and is left out of the logits"
    return Row(TEXT, "vocabulary", a, b, "equal" if a == b else "noted", note)


def _distances(a: EngineHandle, b: EngineHandle, results: Sequence[Result], num_vocab: int) -> Iterator[Distance]:
    """Of each prompt, at the token ids that `a` was given."""
    for result in results:
        token_ids = result.prompt_token_ids
        yield distance(a.logits(token_ids)[:, :num_vocab], b.logits(token_ids)[:, :num_vocab])


def _logits_rows(apart: Distance, bound: Bound) -> Iterator[Row]:
    def held(value: float, limit: float | None) -> Verdict:
        return "noted" if limit is None else "within bound" if value <= limit else "beyond bound"

    def allowed(limit: float | None) -> str:
        return "" if limit is None else f"; {bound.precision} allows {limit:g}"

    note = f"{apart.max_diff:.2g} nats at most{allowed(bound.max_diff)}"
    yield Row(NUMBERS, "log probabilities", None, None, held(apart.max_diff, bound.max_diff), note)
    note = f"{apart.kl_mean:.2g} nats on average, {apart.kl_max:.2g} at most{allowed(bound.kl_mean)}"
    yield Row(NUMBERS, "KL divergence", None, None, held(apart.kl_mean, bound.kl_mean), note)
    note = f"the same at {apart.num_top1_equal} of {apart.num_positions} positions"
    if apart.num_top1_equal < apart.num_positions:
        note += f"; elsewhere {apart.top1_gap:.2g} nats apart{allowed(bound.top1_gap)}"
    yield Row(NUMBERS, "most likely token", None, None, held(apart.top1_gap, bound.top1_gap), note)


def _first_divergence(a: EngineHandle, b: EngineHandle, probes: Sequence[Probe], results: Results) -> Divergence | None:
    for probe, one, other in zip(probes, *results, strict=True):
        case = case_of((a, b), (one, other), probe.prompt, {})
        if case is not None:
            return divergence_of(case)
    return None


def _answers_row(probes: Sequence[Probe], results: Results) -> Row:
    """Token equality is a gift, never a duty: a near tie turns on the last bit."""
    sides = [[result.token_ids for result in side] for side in results]
    different = [probe.name for probe, one, other in zip(probes, *sides, strict=True) if one != other]
    a, b = (f"{sum(map(len, side))} tokens" for side in sides)
    if not different:
        return Row(OUT, "greedy answers", a, b, "equal", f"{len(probes)} of {len(probes)} answers", is_required=False)
    note = f"{len(probes) - len(different)} of {len(probes)} answers; not {', '.join(different)}"
    return Row(OUT, "greedy answers", a, b, "differs", note, is_required=False)


def _in_order(rows: Sequence[Row]) -> tuple[Row, ...]:
    sections = list(dict.fromkeys(r.section for r in rows))
    return tuple(sorted(rows, key=lambda r: sections.index(r.section)))
