"""Lab 1, tokens and sampling: what is asked, how it is checked, and what each known mistake is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmlab.engines.base import SamplingParams
from llmlab.labs.description import Check, CheckFailed, Figure, Lab, Names, Prediction, Question
from llmlab.labs.pictures_bars import bars_of, bars_picture
from llmlab.labs.reflection import reflection_question
from llmlab.language import tr
from llmlab.parity.draws import chi_square
from llmlab.quality.loops import find_loop

Probs = NDArray[np.float64]
MARK = "\N{REPLACEMENT CHARACTER}"

# ---- Q2

TEXTS = ("a😀b", "naïve café", "東京!", "two 😀😀", "👩‍👧 ß")


def cuts_of(data: bytes, seed: int) -> Iterator[list[bytes]]:
    """The same bytes in pieces: of one, two, three, five, of random length."""
    for size in (1, 2, 3, 5):
        yield [data[i : i + size] for i in range(0, len(data), size)]
    rng, pieces, rest = np.random.default_rng(seed), [], data
    while rest:
        size = int(rng.integers(1, 6))
        pieces.append(rest[:size])
        rest = rest[size:]
    yield pieces


def holds_back_what_is_not_whole(names: Names, seed: int) -> None:
    for text in TEXTS:
        for pieces in cuts_of(text.encode(), seed):
            follow(names["StreamDecoder"](), pieces, text)
    first, second = names["StreamDecoder"](), names["StreamDecoder"]()
    shown = [first.push(b"\xf0\x9f"), second.push(b"\xc3"), first.push(b"\x98\x80"), second.push(b"\xa9")]
    if shown != ["", "", "😀", "é"]:
        raise CheckFailed(
            tr("two answers at once gave {shown}: each decoder keeps bytes of its own, set in __init__", shown=shown)
        )


def follow(decoder: Any, pieces: list[bytes], text: str) -> None:
    """After each piece just the characters that are whole must have been shown."""
    came, shown = b"", ""
    for piece in pieces:
        came += piece
        new = as_text(decoder.push(piece), f"push({piece!r})")
        shown += new
        wanted = came.decode(errors="ignore")
        if shown == wanted:
            continue
        where = tr(
            "of {text!r} in pieces {pieces}, push({piece!r}) gave {new!r}",
            text=text,
            pieces=pieces,
            piece=piece,
            new=new,
        )
        if MARK in new:
            raise CheckFailed(
                tr(
                    "{where}: a half-received character was shown as {mark}: keep the bytes until the character is "
                    "whole",
                    where=where,
                    mark=MARK,
                )
            )
        if wanted.startswith(shown):
            raise CheckFailed(
                tr(
                    "{where}: {wanted!r} is whole and must be shown at once: hold back only the bytes of the "
                    "character that is not",
                    where=where,
                    wanted=wanted[len(shown) :],
                )
            )
        raise CheckFailed(
            tr("{where}: {shown!r} is shown so far, expected {wanted!r}", where=where, shown=shown, wanted=wanted)
        )
    if left := as_text(decoder.flush(), "flush()"):
        raise CheckFailed(
            tr(
                "of {text!r} in pieces {pieces}, flush() gave {left!r}: nothing was left to show",
                text=text,
                pieces=pieces,
                left=left,
            )
        )


def as_text(value: object, call: str) -> str:
    if not isinstance(value, str):
        raise CheckFailed(
            tr("{call} gave {value!r}, expected a str: '' when there is nothing to show", call=call, value=value)
        )
    return value


def broken_bytes(names: Names, seed: int) -> None:
    for tail in (b"\xf0\x9f", b"\xe6\x9d", b"\xc3"):
        decoder = names["StreamDecoder"]()
        shown, left = as_text(decoder.push(b"ok" + tail), "push()"), as_text(decoder.flush(), "flush()")
        if shown + left != "ok" + MARK:
            raise CheckFailed(
                tr(
                    "an answer that stops inside a character must end with one {mark} at flush(), got {shown!r} + "
                    "{left!r}",
                    mark=MARK,
                    shown=shown,
                    left=left,
                )
            )
        decoder = names["StreamDecoder"]()
        for byte in tail:
            decoder.push(bytes([byte]))
        if (left := as_text(decoder.flush(), "flush()")) != MARK:
            raise CheckFailed(
                tr(
                    "an answer that stops inside a character, with {tail!r} byte by byte, must end with one {mark} "
                    "at flush(), got {left!r}",
                    tail=tail,
                    mark=MARK,
                    left=left,
                )
            )
    for broken in (b"\xff", b"\x80", b"\xf0\x9f", b"\xc3("):
        decoder = names["StreamDecoder"]()
        shown = as_text(decoder.push(broken), "push()") + as_text(decoder.push(b"abc"), "push()")
        if not shown.endswith("abc"):
            raise CheckFailed(
                tr(
                    "{broken!r} is never a character: push(b'abc') behind it must show 'abc', got {shown!r}",
                    broken=broken,
                    shown=shown,
                )
            )
        if MARK not in shown:
            raise CheckFailed(
                tr(
                    "{broken!r} is no character, and {shown!r} does not say so: show it as {mark}",
                    broken=broken,
                    shown=shown,
                    mark=MARK,
                )
            )


# ---- Q3

LOGPROB_MISTAKES: dict[str, Callable[[Probs, int], float]] = {
    tr("that is the probability: take its natural log"): lambda logits, i: float(np.exp(exact_logprobs(logits)[i])),
    tr("that is the logarithm to base 2: take the natural one"): lambda logits, i: exact_logprobs(logits)[i] / log(2),
    tr("that is the logarithm to base 10: take the natural one"): lambda logits, i: exact_logprobs(logits)[i] / log(10),
    tr("the sign is wrong: a log probability is at most 0"): lambda logits, i: -exact_logprobs(logits)[i],
    tr("that is the logit: subtract the log of the sum of all exp(logits)"): lambda logits, i: logits[i],
    tr("the log of the sum of all exp() is missing"): lambda logits, i: logits[i] - logits.max(),
}


def exact_logprobs(logits: Probs) -> Probs:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def natural_log_of_softmax(names: Names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for scale in (1, 1, 300):
        logits = (10 + 3 * rng.standard_normal(400)).astype(np.float32) * np.float32(scale)
        for token_id in (int(logits.argmax()), 7, int(logits.argmin())):
            got, exact = float(names["logprob"](logits.copy(), token_id)), logits.astype(np.float64)
            wanted = float(exact_logprobs(exact)[token_id])
            if not isfinite(got):
                raise CheckFailed(
                    tr(
                        "logprob is {got} for logits up to {largest:.0f}: exp() overflows and log(softmax) "
                        "underflows, use logit - logsumexp",
                        got=got,
                        largest=logits.max(),
                    )
                )
            if abs(got - wanted) > 1e-3 * max(1, scale / 30):
                known = next((text for text, mistake in LOGPROB_MISTAKES.items()
                              if abs(mistake(exact, token_id) - got) < 1e-3), "")  # fmt: skip
                reason = tr(
                    "logprob(logits, {token_id}) is {got:.4f}, expected {wanted:.4f}",
                    token_id=token_id,
                    got=got,
                    wanted=wanted,
                )
                raise CheckFailed(f"{reason}: {known}" if known else reason)


# ---- Q4: probabilities and what cut a token, in float64

Keep = Callable[[Probs, SamplingParams], NDArray[np.bool_]]
ORDER = ("min-p", "top-k", "top-p")


def keep_min_p(probs: Probs, params: SamplingParams) -> NDArray[np.bool_]:
    return probs >= params.min_p * probs.max()


def keep_top_k(probs: Probs, params: SamplingParams) -> NDArray[np.bool_]:
    keep = np.full(len(probs), not params.top_k)
    keep[np.argsort(-probs, kind="stable")[: params.top_k]] = True
    return keep


def keep_top_p(probs: Probs, params: SamplingParams, *, drops_the_crossing: bool = False) -> NDArray[np.bool_]:
    order = np.argsort(-probs, kind="stable")
    sums = probs[order].cumsum()
    keep = np.ones(len(probs), bool)
    if params.top_p < 1:
        keep[order] = sums <= params.top_p if drops_the_crossing else sums - probs[order] < params.top_p
    return keep


FILTERS: dict[str, Keep] = {"min-p": keep_min_p, "top-k": keep_top_k, "top-p": keep_top_p}


def softmax(logits: Probs) -> Probs:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def filtered(
    probs: Probs, params: SamplingParams, order: tuple[str, ...] = ORDER, *, normalise: bool = True, **other: Keep
) -> tuple[Probs, dict[int, str]]:
    """What is left of probabilities, and which filter cut each of the others. `other`: in place of FILTERS, with _."""
    cut: dict[int, str] = {}
    for name in order:
        keep = other.get(name.replace("-", "_"), FILTERS[name])(probs, params)
        cut |= {int(i): name for i in np.flatnonzero(~keep & (probs > 0))}
        probs = np.where(keep, probs, 0)
        if normalise:
            probs = probs / probs.sum()
    return probs / probs.sum(), cut


def at_temperature(logits: Probs, params: SamplingParams) -> Probs:
    if params.temperature == 0:
        probs = np.zeros(len(logits))
        probs[logits.argmax()] = 1
        return probs
    return softmax(logits / params.temperature)


def exact_probs(logits: Probs, params: SamplingParams) -> tuple[Probs, dict[int, str]]:
    """The contract: temperature, min-p, top-k, top-p."""
    return filtered(at_temperature(logits, params), params)


def before_temperature(order: tuple[str, ...]) -> Callable[[Probs, SamplingParams], Probs]:
    """Filters first, as llama.cpp's usual chain does."""

    def probs(logits: Probs, params: SamplingParams) -> Probs:
        left, _ = filtered(softmax(logits), params, order)
        return at_temperature(np.log(np.maximum(left, 1e-300)), params)

    return probs


def in_order(*order: str) -> Callable[[Probs, SamplingParams], Probs]:
    return lambda logits, params: filtered(at_temperature(logits, params), params, order)[0]


def with_filter(normalise: bool = True, **other: Keep) -> Callable[[Probs, SamplingParams], Probs]:
    return lambda logits, params: filtered(at_temperature(logits, params), params, normalise=normalise, **other)[0]


BEFORE_TEMPERATURE = tr(
    "you cut on the distribution BEFORE temperature (llama.cpp's usual order); here temperature comes first"
)
# sentence -> what this mistake gives
MISTAKES: tuple[tuple[str, Callable[[Probs, SamplingParams], Probs]], ...] = (
    (BEFORE_TEMPERATURE, before_temperature(("top-k", "top-p", "min-p"))),
    (BEFORE_TEMPERATURE, before_temperature(ORDER)),
    (
        tr("top-p must count the mass of what min-p and top-k left, renormalised"),
        with_filter(normalise=False),
    ),
    (
        tr("min-p is relative: keep p >= min_p x the largest p"),
        with_filter(min_p=lambda probs, params: probs >= params.min_p),
    ),
    (
        tr(
            "top-p drops the token that crosses the line: keep a token while the mass strictly in front of it is < "
            "top_p"
        ),
        with_filter(top_p=lambda probs, params: keep_top_p(probs, params, drops_the_crossing=True)),
    ),
    (tr("min-p comes first, before top-k and top-p"), in_order("top-k", "top-p", "min-p")),
    (tr("top-k comes before top-p"), in_order("min-p", "top-p", "top-k")),
    (tr("top-k comes before top-p, and min-p before both"), in_order("top-p", "top-k", "min-p")),
    (
        tr("divide the logits by the temperature, do not multiply"),
        lambda logits, params: filtered(softmax(logits * params.temperature), params)[0],
    ),
    (
        tr("the temperature changes nothing: divide the logits by it, before the softmax"),
        lambda logits, params: filtered(softmax(logits), params)[0],
    ),
)
TOP = 20
SMALLEST = 1e-30


def told(params: SamplingParams) -> str:
    """Those that are not off."""
    off = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    parts = [f"{name} {getattr(params, name)}" for name, value in off.items() if getattr(params, name) != value]
    return ", ".join([f"temperature {params.temperature}", *parts])


def filters_are_on(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1 or params.min_p > 0


def compare(names: Names, what: str, logits: NDArray[np.float32], params: SamplingParams) -> None:
    """The student's probabilities against the contract."""
    got = np.asarray(names["Sampler"]().probs(logits.copy(), params))
    call = f"{what} ({told(params)})"
    exact = logits.astype(np.float64)
    wanted, cut = exact_probs(exact, params)
    if got.shape != wanted.shape:
        raise CheckFailed(
            tr(
                "{call}: probs() gave shape {shape}, expected {wanted}: one for each token",
                call=call,
                shape=got.shape,
                wanted=wanted.shape,
            )
        )
    got = got.astype(np.float64)

    def fail(reason: str) -> None:
        base = wanted if params.temperature == 0 else at_temperature(exact, params)
        raise CheckFailed(
            f"{call}: {reason}",
            probs_picture(got, wanted, base, cut, tr("probs() with {told}", told=told(params)), reason),
        )

    if num_bad := int((~np.isfinite(got)).sum()):
        cause = tr("temperature 0 means greedy, do not divide by it") if params.temperature == 0 else (
            tr("subtract the largest logit before exp(), and keep at least one token")
        )  # fmt: skip
        fail(tr("{num_bad} of the probabilities are nan or inf: {cause}", num_bad=num_bad, cause=cause))
    if got.min() < 0:
        fail(tr("token {token} has the probability {p:.4f}: none is below 0", token=int(got.argmin()), p=got.min()))
    # A kept token may be so unlikely that float32 has 0 for it.
    misplaced = np.where(wanted > 0, (got == 0) & (wanted > SMALLEST), got > 0) & filters_are_on(params)
    if np.abs(got - wanted).max() < 1e-4 and not misplaced.any():
        return
    if abs(got.sum() - 1) > 1e-3:
        fail(
            tr("the probabilities sum to {total:.4f}, expected 1: normalise what is left after a cut", total=got.sum())
        )
    num_kept, num_wanted = int((got > 0).sum()), int((wanted > 0).sum())
    counts = tr(
        "You keep {num_kept} token{s}, expected {num_wanted}",
        num_kept=num_kept,
        s="" if num_kept == 1 else "s",
        num_wanted=num_wanted,
    )
    for sentence, mistake in MISTAKES:
        with np.errstate(all="ignore"):
            made = mistake(exact, params)
            if np.allclose(got, made, atol=1e-4) and not np.allclose(wanted, made, atol=1e-4):
                fail(f"{sentence}. {counts}")
    wrong = int(misplaced.argmax() if misplaced.any() else np.abs(got - wanted).argmax())
    if num_kept == num_wanted and misplaced.any() and what == "equal logits":
        fail(
            tr(
                "among equal logits the lower id stays: you keep {yours}, expected {wanted}",
                yours=np.flatnonzero(got).tolist(),
                wanted=np.flatnonzero(wanted).tolist(),
            )
        )
    fail(
        tr(
            "token {wrong} has the probability {got:.4g}, expected {wanted:.4g}. {counts}",
            wrong=wrong,
            got=got[wrong],
            wanted=wanted[wrong],
            counts=counts,
        )
    )


def probs_picture(
    got: Probs, wanted: Probs, base: Probs, cut: dict[int, str], call: str, sentence: str
) -> dict[str, Any]:  # fmt: skip
    """The most likely tokens: what stays, and what was cut and by which filter."""
    best = np.argsort(-base, kind="stable")[:TOP].tolist()
    yours = bars_of([base[i] if got[i] == 0 else got[i] for i in best], ["cut" if got[i] == 0 else "" for i in best])
    expected = bars_of(
        [base[i] if wanted[i] == 0 else wanted[i] for i in best],
        [cut.get(i, "cut") if wanted[i] == 0 else "" for i in best],
    )
    axis = tr("probability of the {num_best} most likely tokens", num_best=len(best))
    return bars_picture(yours, expected, [f"#{i}" for i in best], axis=axis, call=call, sentence=sentence)


def logits_for(rng: np.random.Generator, params: SamplingParams, size: int = 200) -> NDArray[np.float32]:
    """A row whose tokens are clear of the edges of the filters: float32 and float64 keep the same."""
    while True:
        logits = (3 * rng.standard_normal(size)).astype(np.float32)
        kept = [
            np.flatnonzero(exact_probs(logits.astype(np.float64), near)[0]).tolist()
            for near in (params, nudged(params, 1e-4), nudged(params, -1e-4))
        ]
        if kept[0] == kept[1] == kept[2] and is_telling(logits, params):
            return logits


def is_telling(logits: NDArray[np.float32], params: SamplingParams) -> bool:
    """min-p, where it is on, keeps other tokens than the same number as a threshold would."""
    probs = at_temperature(logits.astype(np.float64), params)
    return not 0 < params.min_p < 1 or bool((keep_min_p(probs, params) != (probs >= params.min_p)).any())


def nudged(params: SamplingParams, share: float) -> SamplingParams:
    top_p = params.top_p if params.top_p == 1 else params.top_p * (1 + share)
    return SamplingParams(params.temperature, params.top_k, top_p, min(1.0, params.min_p * (1 + share)))


def temperature(names: Names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for value in (1.0, 0.5, 1.7, 0.0):
        params = SamplingParams(value)
        compare(names, "temperature", logits_for(rng, params), params)
    for value in (1.0, 0.5):
        compare(names, "logits x 100", 100 * logits_for(rng, SamplingParams(value)), SamplingParams(value))
    equal = np.zeros(50, np.float32)
    equal[[9, 30]] = 4
    compare(names, "equal logits", equal, SamplingParams(0.0))


def each_filter_alone(names: Names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    nothing_is_cut(names, rng)
    for what, params in (
        ("top_k", SamplingParams(top_k=5)),
        ("top_k", SamplingParams(top_k=500)),
        ("top_p", SamplingParams(top_p=0.8)),
        ("top_p", SamplingParams(top_p=0.05)),
        ("min_p", SamplingParams(min_p=0.1)),
        ("min_p", SamplingParams(min_p=1.0)),
    ):
        compare(names, what, logits_for(rng, params), params)
    equal = np.zeros(300, np.float32)
    equal[rng.permutation(300)[:40]] = 3
    compare(names, "equal logits", equal, SamplingParams(top_k=7))


def nothing_is_cut(names: Names, rng: np.random.Generator) -> None:
    for _ in range(20):  # a row of which the sum in float32 comes to 1 before its end: about every second does
        logits = (2 * rng.standard_normal(20_000)).astype(np.float32)
        if np.sort(softmax(logits).astype(np.float32))[::-1].cumsum()[-2] >= 1:
            break
    num_kept = int(np.count_nonzero(names["Sampler"]().probs(logits.copy(), SamplingParams())))
    if num_kept != len(logits):
        raise CheckFailed(
            tr(
                "all filters are off (top_p 1), and you keep {num_kept:,} of {num_logits:,} tokens: skip what is "
                "off, sums of floats cut the tail",
                num_kept=num_kept,
                num_logits=len(logits),
            )
        )


GRID = (
    SamplingParams(0.5, 40, 0.9, 0.0),
    SamplingParams(1.7, 0, 0.9, 0.02),
    SamplingParams(1.5, 30, 0.7, 0.05),
    SamplingParams(1.0, 50, 0.01, 0.0),
    SamplingParams(0.8, 10, 1.0, 0.01),
    SamplingParams(1.3, 6, 0.8, 0.0),
)


def filters_together(names: Names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for params in GRID * 3:
        compare(names, "combined", logits_for(rng, params), params)


def logits_stay(names: Names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for params in (*GRID, SamplingParams(0.0), SamplingParams(0.7)):
        logits = logits_for(rng, params)
        given = logits.copy()
        names["Sampler"]().probs(given, params)
        if not np.array_equal(given, logits):
            raise CheckFailed(
                tr(
                    "probs() changed the logits it was given ({told}): the engine still needs them for logprobs; "
                    "work on a copy",
                    told=told(params),
                )
            )


# ---- Q5

# Binary fractions: their sums are exact.
LINE = np.array([0, 0.25, 0, 0.5, 0.25, 0], np.float32)
POINTS = ((0.0, 1), (0.1, 1), (0.25, 3), (0.5, 3), (0.74, 3), (0.75, 4), (0.999999, 4))
FIRST = tr("the first token whose cumulative sum exceeds u")


def inverse_of_the_sum(names: Names, seed: int) -> None:
    sampler = names["Sampler"]()
    for u, wanted in POINTS:
        got = sampler.draw(LINE.copy(), u)
        if not isinstance(got, int | np.integer) or isinstance(got, bool):
            raise CheckFailed(tr("draw(p, u={u}) gave {got!r}, expected a token id: an int", u=u, got=got))
        if got != wanted:
            p = f" (p={LINE[got]})" if 0 <= got < len(LINE) else tr(", but there are only {count}", count=len(LINE))
            raise CheckFailed(
                tr(
                    "draw(p, u={u}) gave token {got}{p}, expected {wanted}: {first}. p = {line}",
                    u=u,
                    got=got,
                    p=p,
                    wanted=wanted,
                    first=FIRST,
                    line=LINE.tolist(),
                )
            )
    low = np.full(1000, 0.000999, np.float32)  # sums to 0.999: floats seldom sum to 1
    low[-3:] = 0
    got = sampler.draw(low, 0.9999)
    if not 0 <= got < len(low) or not low[got]:
        raise CheckFailed(
            tr(
                "probabilities that sum to {total:.4f}, as floats may: draw(p, u=0.9999) gave token {got}, which "
                "{which}: let u count from 0 to the last sum",
                total=low.sum(),
                got=got,
                which=tr("has probability 0") if 0 <= got < len(low) else tr("does not exist"),
            )
        )


NUM_DRAWS, NUM_TOKENS = 2000, 40


def counts_follow(names: Names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs = np.where(rng.random(NUM_TOKENS) < 0.3, 0, rng.random(NUM_TOKENS) + 0.1)
    probs = (probs / probs.sum()).astype(np.float32)
    sampler = names["Sampler"]()
    drawn = [int(sampler.draw(probs.copy(), float(u))) for u in rng.random(NUM_DRAWS)]
    if outside := [i for i in drawn if not 0 <= i < NUM_TOKENS or not probs[i]]:
        raise CheckFailed(
            tr(
                "{count} of {num_draws} draws gave a token of probability 0, such as {first}",
                count=len(outside),
                num_draws=NUM_DRAWS,
                first=outside[0],
            )
        )
    found = chi_square(drawn, probs)
    if found.value > found.dof + 5 * sqrt(2 * found.dof):
        reason = tr("{num_draws} draws do not follow the probabilities: {found}", num_draws=NUM_DRAWS, found=found)
        observed = bars_of(np.bincount(drawn, minlength=NUM_TOKENS).tolist())
        wanted = bars_of((probs * NUM_DRAWS).round(1).tolist())
        labels = [f"#{i}" for i in range(NUM_TOKENS)]
        call = tr("{num_draws} calls of draw()", num_draws=NUM_DRAWS)
        raise CheckFailed(
            reason, bars_picture(observed, wanted, labels, axis=tr("draws of each token"), call=call, sentence=reason)
        )


# ---- what runs in the notebook show


def first_visible(events: Any) -> int:
    return next(i for i, event in enumerate(events, 1) if event.text)


def same_text_as_the_engine(names: Names) -> str:
    if "q2_mine" not in names or "q2_stream" not in names:
        return tr("run the cell that fills `q2_stream` and `q2_mine`, and check again.")
    theirs, mine = [event.text for event in names["q2_stream"]], names["q2_mine"]
    differing = [i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b]
    if differing:
        i = differing[0]
        raise CheckFailed(
            tr(
                "after token {i} your decoder shows {mine!r}, the engine {theirs!r}",
                i=i + 1,
                mine=mine[i],
                theirs=theirs[i],
            )
        )
    num_late = sum(not text for text in mine)
    return tr(
        "{count} tokens of a real stream: the text of the engine, token by token; after {num_late} nothing.",
        count=len(mine),
        num_late=num_late,
    )


# Between the logits of two programs: F16 against F32 or F16, and bfloat16.
NEAR, NEAR_BFLOAT16 = 0.02, 0.1


def logprobs_are_near(names: Names) -> str:
    if "q3" not in names or "q3_mine" not in names:
        return tr("run the cells that fill `q3` and `q3_mine`, and check again.")
    engine, mine = names["q3"].logprobs[0], names["q3_mine"]
    if abs(engine - mine) > NEAR:
        raise CheckFailed(tr("your logprob is {mine:.4f}, that of the engine {engine:.4f}", mine=mine, engine=engine))
    said = f"yours {mine:.4f}, {names['q3'].header.engine} {engine:.4f}"
    if (other := names.get("q3_other")) is None:
        return f"{said}."
    near = NEAR_BFLOAT16 if other.header.dtype == "bfloat16" else NEAR
    if other.token_ids == names["q3"].token_ids and abs(other.logprobs[0] - engine) > near:
        raise CheckFailed(
            tr(
                "{said}, {engine} {logprob:.4f}: further apart than {near}",
                said=said,
                engine=other.header.engine,
                logprob=other.logprobs[0],
                near=near,
            )
        )
    return tr(
        "{said}, {engine} {logprob:.4f}, whatever its temperature.",
        said=said,
        engine=other.header.engine,
        logprob=other.logprobs[0],
    )


def count_loops(run: Any) -> int:
    return sum(find_loop(result.token_ids) is not None for result in run.results)


def loops(run: Any) -> list[tuple[int, int]]:
    """Where each begins, and its length."""
    return [loop for result in run.results if (loop := find_loop(result.token_ids)) is not None]


def shown_of(found: Any) -> list[float]:
    """What a chi-square prints."""
    return [found.value, found.dof, found.limit, found.num_outside]


def first_apart(comparison: Any) -> int:
    """From which token on two texts differ, counted from 1."""
    [texts] = comparison.results
    pairs = zip(*(result.token_ids for result in texts), strict=False)
    return next(i for i, (a, b) in enumerate(pairs, 1) if a != b)


SAMPLER = ("Sampler",)
LAB = Lab(
    title="Lab 1: tokens and sampling",
    minutes=75,
    engines=("llamacpp", "vllm"),
    forbidden=(
        "llmlab.engines.streaming",
        "llmlab.engines.torch_sampling",
        "llmlab.engines.llamacpp_sampling",
        "llmlab.parity.distances",
        "llama_cpp",
    ),
    questions=(
        Question(
            "Q1",
            "a token is not a word",
            prediction=Prediction(
                "how many tokens are `strawberry`, ` strawberry` with a space in front, and one 😀?",
                "q1",
                tuple,
                "frequent pieces are tokens, and in running text a word has a space in front. A rare character is "
                "several tokens of one or more bytes.",
            ),
        ),
        Question(
            "Q2",
            "half a character",
            ("StreamDecoder",),
            (
                Check("held back", 10, holds_back_what_is_not_whole),
                Check("broken bytes", 5, broken_bytes, is_hidden=True),
            ),
            (
                "What are the bytes of 😀? And how do two pieces of it look alone: '😀'.encode()[:2].decode()?",
                "The first byte of a character says how many follow: 0xxxxxxx none, 110xxxxx one, 1110xxxx two, "
                "11110xxx three. All that follow are 10xxxxxx.",
                'codecs.getincrementaldecoder("utf-8")("replace") does it: decode(piece), at the end '
                'decode(b"", final=True).',
            ),
            Prediction(
                "after which token of one 😀 does the character appear?",
                "q2",
                first_visible,
                "it is whole with its last byte, and that is in its last token. Before it nothing is shown.",
            ),
            observe=same_text_as_the_engine,
        ),
        Question(
            "Q3",
            "from logits to log probabilities",
            ("logprob",),
            (Check("natural log of the softmax", 10, natural_log_of_softmax),),
            (
                "What is log(exp(a) / b)? Which of the two parts can overflow?",
                "logits 3, 1, 1: the sum of exp() is 20.1 + 2.7 + 2.7 = 25.5, its log 3.24; 3 - 3.24 = -0.24.",
                "shifted = logits - logits.max(); shifted[token_id] - np.log(np.exp(shifted).sum())",
            ),
            Prediction(
                "the logprob of the first token after `The capital of France is`",
                "q3",
                lambda result: round(float(result.logprobs[0]), 3),
                "exp(logprob) is its probability; before temperature and filters, on both engines.",
            ),
            observe=logprobs_are_near,
        ),
        Question(
            "Q4",
            "the sampler",
            SAMPLER,
            (
                Check("temperature", 10, temperature),
                Check("each filter alone", 10, each_filter_alone),
                Check("filters together, in order", 15, filters_together, is_hidden=True),
                Check("no side effects", 5, logits_stay, is_hidden=True),
            ),
            (
                "Print the sum of probs after each filter. What does top-p count then?",
                "p = .5 .3 .2, top_p .7: in front of the second token lies .5 < .7, so it stays; in front of the third "
                ".8, so it goes.",
                "before = p_sorted.cumsum() - p_sorted; p_sorted[before >= top_p] = 0",
            ),
            Prediction(
                "how many of 49,152 tokens survive temperature 0.7, min_p 0.05, top_k 40, top_p 0.95?",
                "q4",
                int,
                "a model is often sure: few tokens have 5 % of the largest probability, long before top_k counts.",
            ),
        ),
        Question(
            "Q5",
            "draw",
            SAMPLER,
            (
                Check("inverse of the cumulative sum", 10, inverse_of_the_sum),
                Check("counts follow the probabilities", 10, counts_follow, is_hidden=True),
            ),
            (
                "What should u = 0 give when p[0] = 0?",
                "np.searchsorted has two sides: of the sums 0, .25, .75 and u = .25, one side gives 1, the other 2.",
                'np.searchsorted(sums, u * sums[-1], side="right")',
            ),
            Prediction(
                "2,000 right draws over some 115 tokens: how large is chi-square?",
                "q5",
                lambda found: round(float(found.value), 1),
                "each token adds 1 on average, so it is about as large as the degrees of freedom; 95 of 100 right "
                "samplers stay below the limit that is shown beside it.",
            ),
        ),
        Question(
            "Q6",
            "why greedy repeats itself",
            prediction=Prediction(
                "six prompts, 160 tokens each, greedy: how many answers end in a loop?",
                "q6",
                count_loops,
                "what was said makes itself more likely, and greedy never leaves the most likely path.",
            ),
        ),
        reflection_question("Q7", "one seed, two texts", "what top-p keeps"),
    ),
    figures=(
        Figure("your logprob in Q3 and those of engines", "q3_mine", float),
        Figure("your logprob in Q3 and those of engines", "q3_other", lambda result: result.logprobs[0]),
        Figure("the tokens that survive in llama.cpp's usual order", "q4_usual", int),
        Figure("chi-square of your draws, its degrees of freedom and its limit", "q5", shown_of),
        Figure("chi-square of your draws against llama.cpp's usual order", "q5_usual", shown_of),
        Figure("chi-square of the two other samplers", "q5_others", lambda some: [shown_of(found) for found in some]),
        Figure("where a loop begins, and its length", "q6", loops),
        Figure("the token from which on the two texts of Q7 differ", "q7", first_apart),
    ),
)
