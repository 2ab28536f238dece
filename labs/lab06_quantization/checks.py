"""Lab 6, quantization: what is asked, how it is checked, and what each known mistake is told.

The truth is what the llama.cpp of this machine makes (llmlab.models.quantize.ggml_bytes); the bytes of llmlab's own
quantizers are right as well: they are all there is without llama.cpp, and those of a compiler that fuses differ.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from llmlab.errors import ModelError
from llmlab.labs.description import Check, CheckFailed, Figure, Lab, Names, Prediction, Question
from llmlab.labs.pictures_codes import codes_picture
from llmlab.labs.reflection import reflection_question
from llmlab.models.quantize import BLOCK_SIZE, QUANTIZERS, Bytes, Floats, Quantizer, ggml_bytes


def truths(x: Floats, name: str) -> list[Bytes]:
    """All that is right; the first is what the picture shows."""
    ours = QUANTIZERS[name].quantize(x)
    try:
        return [ggml_bytes(x, name), ours]
    except ModelError:
        return [ours]


# ---- weights to quantize: what they are called, and the weights

Kinds = Iterator[tuple[str, Floats]]


def normal(seed: int) -> Kinds:
    rng = np.random.default_rng(seed)
    yield "normal", rng.normal(0, 0.05, (10, 20, 64)).astype(np.float32)


def edges(name: str, seed: int) -> Kinds:
    rng = np.random.default_rng(seed)
    top = 127 if name == "Q8_0" else 8
    yield f"halves{'8' if top == 127 else '4'}", halves(top, rng)
    codes = rng.integers(-top, top, (200, BLOCK_SIZE), endpoint=True)
    codes[:, :2] = rng.permuted([[top, -top]] * 200, axis=1)  # both signs, so that the order of equals matters
    yield "grid", (rng.permuted(codes, axis=1) * scales(200, rng)).astype(np.float32)
    yield "edge", special()


def halves(top: int, rng: np.random.Generator) -> Floats:
    """Weights half-way between two codes, 300 blocks of them; the first with a scale of exactly 1."""
    codes = rng.integers(1 - top, top - 1, (300, BLOCK_SIZE)) + np.float32(0.5)
    codes[:, 0] = top
    codes[0, 1:10] = [0.5, 1.5, 2.5, 0.49999997, 3.5, -0.5, -1.5, -2.5, -0.49999997]
    signed = codes * rng.choice([-1, 1], (300, 1))
    signed[0] = codes[0]
    factors = scales(300, rng)
    factors[0] = 1
    return (signed.astype(np.float32) * factors).astype(np.float32)


def scales(count: int, rng: np.random.Generator) -> Floats:
    """Of all sizes between 0.0001 and 1, [count, 1]."""
    return np.exp(rng.uniform(np.log(1e-4), 0, (count, 1))).astype(np.float32)


def special() -> Floats:
    """Zeros, constants, single weights, very small and large ones; one dimension."""
    blocks = np.zeros((10, BLOCK_SIZE), np.float32)
    blocks[1], blocks[2] = 0.3, -0.3
    blocks[3, 0], blocks[4, 31] = 2.0, -2.0
    blocks[5, 7], blocks[5, 20] = -1.0, 1.0
    blocks[6, 7], blocks[6, 20] = 1.0, -1.0
    blocks[7] = np.arange(-16, 16) * np.float32(1e-5)
    blocks[8] = np.arange(-16, 16) * np.float32(1000)
    return blocks.reshape(-1)


# ---- quantizers with one mistake each

Mistakes = tuple[tuple[str, Callable[[Floats], Any]], ...]
F32 = np.float32


def inverse_of(d: Any) -> Any:
    return np.where(d == 0, d.dtype.type(0), d.dtype.type(1) / d)


def joined(d: Any, codes: Any, order: str = "<f2") -> Bytes:
    return np.hstack([d.astype(order).view(np.uint8), codes.view(np.uint8)])


def away(v: Any) -> Any:
    """C's roundf."""
    return np.trunc(v) + np.sign(v) * (np.abs(v - np.trunc(v)) >= 0.5)


def magnitude(blocks: Any) -> Any:
    return np.abs(blocks).max(axis=1, keepdims=True)


def q8(
    x: Floats, *, top: int = 127, largest: Any = magnitude, rounded: Any = away, scaled: Any = None, dtype: Any = F32,
    order: str = "<f2",
) -> Bytes:  # fmt: skip
    blocks = x.reshape(-1, BLOCK_SIZE).astype(dtype)
    d = largest(blocks) / dtype(top)
    codes = rounded(scaled(blocks, d) if scaled else blocks * inverse_of(d))
    return joined(d, np.nan_to_num(codes).astype(np.int32).astype(np.int8), order)


def first_of_largest(blocks: Any) -> Any:
    return np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)


def last_of_largest(blocks: Any) -> Any:
    return first_of_largest(blocks[:, ::-1])


def low_then_high(codes: Any) -> Any:
    return codes[:, :16] | codes[:, 16:] << 4


def q4(
    x: Floats, *, divisor: int = -8, largest: Any = first_of_largest, scaled: Any = None,
    coded: Any = lambda v: np.trunc(v + F32(8.5)), most: int = 15, packed: Any = low_then_high, dtype: Any = F32,
    order: str = "<f2",
) -> Bytes:  # fmt: skip
    blocks = x.reshape(-1, BLOCK_SIZE).astype(dtype)
    d = largest(blocks) / dtype(divisor)
    codes = coded(scaled(blocks, d) if scaled else blocks * inverse_of(d))
    return joined(d, packed(np.minimum(codes, most).astype(np.int32).astype(np.uint8)), order)


def divided(blocks: Any, d: Any) -> Any:
    return np.where(d == 0, F32(0), blocks / d)


def by_float16_scale(blocks: Any, d: Any) -> Any:
    return blocks * inverse_of(d.astype(np.float16).astype(F32))


# What it is told, and what it makes.
Q8_MISTAKES: Mistakes = (
    (
        "halves are rounded to even (np.round, np.rint); C's roundf rounds halves away from zero",
        partial(q8, rounded=np.rint),
    ),
    (
        "floor(|v| + 0.5) is not roundf in float32 (0.49999997 + 0.5 gives 1.0): look at the fraction "
        "|v - trunc(v)| >= 0.5",
        partial(q8, rounded=lambda v: np.sign(v) * np.floor(np.abs(v) + F32(0.5))),
    ),
    ("halves below zero are rounded up: C's roundf rounds them away from zero",
     partial(q8, rounded=lambda v: np.floor(v + F32(0.5)))),
    ("the codes are cut, not rounded: astype(np.int8) drops what follows the point", partial(q8, rounded=np.trunc)),
    ("x / d rounds once, llama.cpp multiplies by the float32 inverse 1 / d: other last bits",
     partial(q8, scaled=divided)),
    (
        "you divide by the scale after rounding it to float16; llama.cpp divides by the float32 scale and stores the "
        "float16 one",
        partial(q8, scaled=by_float16_scale),
    ),
    ("the largest weight maps to 127, not 128", partial(q8, top=128)),
    ("the largest weight maps to 127, not 128",
     partial(q8, top=128, rounded=lambda v: np.minimum(away(v), 127))),
    ("the scale needs the largest magnitude, not the largest value",
     partial(q8, largest=lambda blocks: blocks.max(axis=1, keepdims=True))),
    ("computed in float64: other last bits; keep every step in float32", partial(q8, dtype=np.float64)),
    ("the two bytes of the scale are the wrong way round: little endian, the low byte first",
     partial(q8, order=">f2")),
    ("one scale for all blocks: each block of 32 has its own",
     partial(q8, largest=lambda blocks: np.full((len(blocks), 1), np.abs(blocks).max()))),
)  # fmt: skip
Q4_MISTAKES: Mistakes = (
    ("the range is -8..7 and the scale is max / -8, not |max| / 7", partial(q4, divisor=7, largest=magnitude)),
    ("the scale is the SIGNED largest-magnitude weight / -8: its sign matters", partial(q4, largest=magnitude)),
    ("the largest weight is put on level -8: divide it by -8, not by 8", partial(q4, divisor=8)),
    ("of equal magnitudes the first one gives the sign", partial(q4, largest=last_of_largest)),
    (
        "round(x / d) + 8 rounds halves to even; llama.cpp truncates x / d + 8.5",
        partial(q4, coded=lambda v: np.rint(v) + 8),
    ),
    ("x / d + 8.5 is truncated, not rounded: the half is in the 8.5 already",
     partial(q4, coded=lambda v: np.rint(v + F32(8.5)))),
    ("the codes are cut before 8 is added: add 8.5, then drop what follows the point",
     partial(q4, coded=lambda v: np.trunc(v) + 8)),
    (
        "x / d + 8.5 can reach 16: limit to 15 before packing, or it spills into the neighbour's nibble",
        partial(q4, most=99),
    ),
    (
        "x / d + 8.5 can reach 16: limit to 15 before packing, or it spills into the neighbour's nibble",
        partial(q4, most=99, packed=lambda codes: codes[:, :16] + (codes[:, 16:] << 4)),
    ),
    (
        "byte j holds weights j (low nibble) and j + 16 (high nibble), not neighbours 2j and 2j + 1",
        partial(q4, packed=lambda codes: codes[:, ::2] | codes[:, 1::2] << 4),
    ),
    (
        "weight j belongs in the low nibble, weight j + 16 in the high one",
        partial(q4, packed=lambda codes: codes[:, :16] << 4 | codes[:, 16:]),
    ),
    ("x / d rounds once, llama.cpp multiplies by the float32 inverse 1 / d: other last bits",
     partial(q4, scaled=divided)),
    (
        "you divide by the scale after rounding it to float16; llama.cpp divides by the float32 scale and stores the "
        "float16 one",
        partial(q4, scaled=by_float16_scale),
    ),
    ("computed in float64: other last bits; keep every step in float32", partial(q4, dtype=np.float64)),
    ("the two bytes of the scale are the wrong way round: little endian, the low byte first",
     partial(q4, order=">f2")),
)  # fmt: skip
MISTAKES = {"Q8_0": Q8_MISTAKES, "Q4_0": Q4_MISTAKES}


# ---- Q2, Q3


def same_bytes(name: str, kinds: Callable[[int], Kinds], names: Names, seed: int) -> None:
    """Bytes of each kind of weights; a warning of numpy is an error."""
    for kind, x in kinds(seed):
        what = f"{name}, {kind} values"
        before = x.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                got = names[name]().quantize(x)
            except RuntimeWarning as warning:
                raise CheckFailed(f"{what}: {warning}{_cause_of_warning(str(warning))}") from None
        if not np.array_equal(x, before):
            raise CheckFailed(f"{what}: quantize changed the weights that it was given: compute on a copy")
        right = truths(x, name)
        need_rows("quantize", got, right[0])
        if not any(np.array_equal(got, one) for one in right):
            raise _differs(what, name, x, got, right[0])


def _cause_of_warning(text: str) -> str:
    if "divide" in text or "invalid" in text:
        return ": a block of zeros has scale 0; its inverse must be 0, not inf"
    return ""


def need_rows(call: str, got: Any, wanted: np.ndarray) -> None:
    """Raises: CheckFailed unless it is an array of that type and shape."""
    if not isinstance(got, np.ndarray):
        raise CheckFailed(f"{call} returned a {type(got).__name__}, expected a numpy array")
    if got.dtype != wanted.dtype:
        raise CheckFailed(f"{call} returned {got.dtype}, expected {wanted.dtype}")
    if got.shape != wanted.shape:
        raise CheckFailed(f"{call} returned the shape {got.shape}, expected {wanted.shape}")


def _differs(what: str, name: str, x: Floats, got: Bytes, wanted: Bytes) -> CheckFailed:
    differing = got != wanted
    block, byte = (int(i) for i in np.argwhere(differing)[0])
    weights = x.reshape(-1, BLOCK_SIZE)[block]
    with np.errstate(all="ignore"):
        cause = next((text for text, mistake in MISTAKES[name] if np.array_equal(mistake(x), got)), "")
    if not cause:
        cause = (
            f"first in block {block}, {place_of(name, byte)}: yours {got[block, byte]}, llama.cpp "
            f"{wanted[block, byte]}. Block: min {weights.min():.6g}, max {weights.max():.6g}"
        )
    reason = f"{what}: {differing.sum()} of {differing.size} bytes differ: {cause}"
    call = f"{name}().quantize(...), block {block}"
    picture = codes_picture(name, weights.tolist(), got[block].tolist(), wanted[block].tolist(), call=call,
                            sentence=reason)  # fmt: skip
    return CheckFailed(reason, picture)


def place_of(name: str, byte: int) -> str:
    """What a byte of a block holds.

    >>> place_of("Q4_0", 5)
    'byte 5 (weight 3 low, weight 19 high)'
    """
    if byte < 2:
        return "the scale (bytes 0-1, float16, little endian)"
    weight = byte - 2
    return f"byte {byte} (weight {weight}{f' low, weight {weight + 16} high' if name == 'Q4_0' else ''})"


# ---- Q4

# A weight is at most this far from what comes back, as a share of its block's largest: half a step of 1/127 and the
# rounding of the scale to float16; and one step of 1/8, where +8 is cut to 7.
BOUNDS = {"Q8_0": 0.0051, "Q4_0": 0.1257}


def low_scales(blocks: Bytes, order: str = "<f2") -> Floats:
    return np.ascontiguousarray(blocks[:, :2]).view(order).astype(F32)


def nibbles(blocks: Bytes) -> Any:
    return np.hstack([blocks[:, 2:] & 15, blocks[:, 2:] >> 4]).astype(F32)


def neighbours(blocks: Bytes) -> Any:
    codes = nibbles(blocks)
    return np.stack([codes[:, :16], codes[:, 16:]], axis=2).reshape(-1, BLOCK_SIZE)


BACK_MISTAKES: dict[str, Mistakes] = {
    "Q8_0": (
        ("the codes are signed: view them as int8, not as uint8", lambda b: low_scales(b) * b[:, 2:]),
        ("the codes are signed: view them as int8, not as uint8",
         lambda b: low_scales(b) * (b[:, 2:].astype(F32) - 128)),
        ("the scale is missing", lambda b: b[:, 2:].copy().view(np.int8).astype(F32)),
        ("the scale is a float16 in little endian", lambda b: low_scales(b, ">f2") * b[:, 2:].copy().view(np.int8)),
        ("multiply in float32, not in float16: convert the scale first",
         lambda b: b[:, :2].copy().view("<f2") * b[:, 2:].copy().view(np.int8)),
    ),
    "Q4_0": (
        ("code 8 is zero: a weight is d * (q - 8)", lambda b: low_scales(b) * nibbles(b)),
        ("the nibbles are unsigned: make them float32 or int8 before you subtract 8",
         lambda b: low_scales(b) * ((nibbles(b) - 8) % 256)),
        ("the low nibbles are the first 16 weights, the high ones the last 16",
         lambda b: low_scales(b) * np.roll(nibbles(b) - 8, 16, axis=1)),
        ("byte j holds weights j and j + 16, not neighbours: first all low nibbles, then all high ones",
         lambda b: low_scales(b) * (neighbours(b) - 8)),
        ("the scale has its sign already: do not turn it round", lambda b: -low_scales(b) * (nibbles(b) - 8)),
        ("the scale is missing", lambda b: nibbles(b) - 8),
        ("the scale is a float16 in little endian", lambda b: low_scales(b, ">f2") * (nibbles(b) - 8)),
        ("multiply in float32, not in float16: convert the scale first",
         lambda b: b[:, :2].copy().view("<f2") * (nibbles(b) - 8).astype(np.float16)),
    ),
}  # fmt: skip


def round_trip(names: Names, seed: int) -> None:
    ((_, x),) = normal(seed)
    for name, bound in BOUNDS.items():
        blocks = truths(x, name)[0]
        got = np.asarray(dequantized(names, name, blocks), np.float64).reshape(-1, BLOCK_SIZE)
        weights = x.reshape(-1, BLOCK_SIZE)
        worst = (np.abs(got - weights).max(axis=1) / np.abs(weights).max(axis=1)).max()
        if not worst < bound:
            cause = _cause_of_back(name, blocks, got) or "order of the codes? offset? sign? scale?"
            raise CheckFailed(
                f"{name}: worst error is {worst:.3f} of the block's largest weight, expected < {bound:.4f}: {cause}"
            )


def exact_values(names: Names, seed: int) -> None:
    """Blocks of any bytes: scales of both signs, zero and very small ones."""
    rng = np.random.default_rng(seed)
    for name, quantizer in QUANTIZERS.items():
        blocks = rng.integers(0, 256, (200, quantizer.bytes_per_block), dtype=np.uint8)
        factors = np.array([0.0, -0.0, 6e-8, -1.0, 60000.0] * 40, "<f2") * rng.uniform(0.5, 1, 200)
        blocks[:, :2] = factors.astype("<f2")[:, None].view(np.uint8)
        before = blocks.copy()
        got, wanted = dequantized(names, name, blocks), quantizer.dequantize(blocks)
        if not np.array_equal(blocks, before):
            raise CheckFailed(f"{name}.dequantize changed the blocks that it was given: compute on a copy")
        need_rows(f"{name}.dequantize", got, wanted)
        if not np.array_equal(got, wanted):
            at = int(np.argmax(got != wanted))
            cause = _cause_of_back(name, blocks, got.reshape(-1, BLOCK_SIZE))
            raise CheckFailed(
                f"{name}.dequantize: weight {at % BLOCK_SIZE} of block {at // BLOCK_SIZE} is {got[at]:.9g}, expected "
                f"{wanted[at]:.9g}{': ' if cause else ''}{cause}"
            )


def dequantized(names: Names, name: str, blocks: Bytes) -> Any:
    """Raises: CheckFailed unless it is one weight for each code, in one dimension."""
    with np.errstate(all="ignore"):
        got = names[name]().dequantize(blocks)
    shape = np.shape(got)
    if shape != (len(blocks) * BLOCK_SIZE,):
        raise CheckFailed(f"{name}.dequantize returned the shape {shape}, expected ({len(blocks) * BLOCK_SIZE},)")
    return got


def _cause_of_back(name: str, blocks: Bytes, got: Any) -> str:
    with np.errstate(all="ignore"):
        made = ((text, np.asarray(mistake(blocks), np.float64)) for text, mistake in BACK_MISTAKES[name])
        return next((text for text, values in made if np.array_equal(values, got)), "")


# ---- Q5

TENSORS = (((49152, 576), "Q8_0"), ((576, 576), "Q4_0"), ((576,), "F32"))
# tensors -> bytes
SIZES = (
    (TENSORS, 30_269_952),
    ((((32,), "Q4_0"),), 18),
    ((((2, 3, 64), "Q8_0"), ((5,), "F16")), 418),
    ((), 0),
)
BITS = {"F32": 32, "F16": 16, "Q8_0": 8.5, "Q4_0": 4.5}


def _bytes_with(tensors: Any, **bits: float) -> float:
    return sum(math.prod(shape) * (BITS | bits)[kind] / 8 for shape, kind in tensors)


SIZE_MISTAKES = {
    "18 bytes per 32 weights (4.5 bits), 34 for Q8_0 (8.5 bits), not 4 and 8": lambda t: _bytes_with(
        t, Q8_0=8, Q4_0=4
    ),
    "a shape may have one dimension, or three: multiply all of it": lambda t: _bytes_with(
        [(shape[:2], kind) for shape, kind in t]
    ),
    "bytes, not bits: divide by 8": lambda t: 8 * _bytes_with(t),
    "the scale of a block is a float16: 2 bytes, not 4": lambda t: _bytes_with(t, Q8_0=9, Q4_0=5),
    "not every tensor has the type of the first one": lambda t: _bytes_with([(shape, t[0][1]) for shape, _ in t]),
}  # fmt: skip


def size(names: Names, seed: int) -> None:
    for tensors, wanted in SIZES:
        got = names["model_bytes"](list(tensors))
        if got != wanted:
            known = next((text for text, mistake in SIZE_MISTAKES.items() if tensors and mistake(tensors) == got), "")
            shown = ", ".join(f"{shape} {kind}" for shape, kind in tensors)
            raise CheckFailed(
                f"model_bytes of [{shown}] is {got!r} bytes, expected {wanted}{': ' if known else ''}{known}"
            )


NUM_BLOCKS, MOST_TIMES = 20_000, 25


def array_speed(names: Names, seed: int) -> None:
    x = np.random.default_rng(seed).normal(0, 0.05, (NUM_BLOCKS, BLOCK_SIZE)).astype(np.float32)
    for name, ours in QUANTIZERS.items():
        yours: Quantizer = names[name]()
        limit_s = MOST_TIMES * best_s(ours, x)
        took_s = best_s(yours, x, limit_s)
        if took_s > limit_s:
            raise CheckFailed(
                f"{name}: {NUM_BLOCKS:,} blocks take {MOST_TIMES * took_s / limit_s:.0f}x the reference: use array "
                "operations, no Python loop over blocks"
            )
        need_rows(f"{name}.quantize", yours.quantize(x), ours.quantize(x))


def best_s(quantizer: Quantizer, x: Floats, limit_s: float = math.inf) -> float:
    """Seconds of the quickest of 3 calls; of the first one when it is clear that it is too slow."""
    best = math.inf
    for _ in range(3):
        start_s = time.perf_counter()
        quantizer.quantize(x)
        best = min(best, time.perf_counter() - start_s)
        if best > 3 * limit_s:
            break
    return best


# ---- what runs in the notebook show


def files_are_equal(names: Names) -> str:
    if "q3" not in names:
        return "run the cell that fills `q3`, and check again: do the files of llama.cpp hold your bytes?"
    if broken := {name: count for name, (count, _) in names["q3"].items() if count}:
        raise CheckFailed(f"bytes of the files that differ from yours: {broken}")
    return " ".join(f"0 of the {total:,} bytes of {name} differ." for name, (_, total) in names["q3"].items())


def column(number: int) -> Callable[[Any], list[float]]:
    """Of the table of measured files."""
    return lambda rows: [row[number] for row in rows.values()]


LAB = Lab(
    title="Lab 6: quantization",
    minutes=85,
    engines=("llamacpp",),
    forbidden=("llmlab.models.quantize", "gguf", "llama_cpp", "ctypes"),
    questions=(
        Question(
            "Q1",
            "what a file holds",
            prediction=Prediction(
                "the F16 file has 271 MB: how many MB has Q4_0: 68, 76, 92?",
                "q1",
                int,
                "each block has a scale (4.5 bits a weight), and the embedding, a fifth of the weights, stays in Q8_0.",
                "MB",
            ),
        ),
        Question(
            "Q2",
            "Q8_0",
            ("Q8_0",),
            (
                Check("bytes", 15, partial(same_bytes, "Q8_0", normal)),
                Check("edges", 10, partial(same_bytes, "Q8_0", partial(edges, "Q8_0")), is_hidden=True),
            ),
            (
                "Quantize [127, 0.5, 1.5, 2.5, -2.5] by hand; the largest magnitude is 127, so the scale is 1.",
                "llama.cpp gives 127, 1, 2, 3, -3. np.round gives 127, 0, 2, 2, -2.",
                "codes = np.trunc(v), and one further from zero where np.abs(v - codes) >= 0.5.",
            ),
        ),
        Question(
            "Q3",
            "Q4_0",
            ("Q4_0",),
            (
                Check("bytes", 15, partial(same_bytes, "Q4_0", normal)),
                Check("edges", 10, partial(same_bytes, "Q4_0", partial(edges, "Q4_0")), is_hidden=True),
            ),
            (
                "16 levels: where is zero? How many are above it, how many below?",
                "The largest magnitude maps to -8, so d has the opposite sign: of [0.8, -0.4] d is -0.1, the codes are "
                "0 and 12.",
                "Low nibble: codes[:, :16]. High nibble: codes[:, 16:] << 4.",
            ),
            observe=files_are_equal,
        ),
        Question(
            "Q4",
            "back again, and the error",
            ("Q8_0", "Q4_0"),
            (
                Check("round trip", 15, round_trip),
                Check("exact values", 10, exact_values, is_hidden=True),
            ),
            (
                "Which level does code 0 of Q4_0 stand for? q - 8.",
                "Read d back as float16: blocks[:, :2].copy().view('<f2'), then make it float32.",
                "Concatenate the low nibbles, blocks[:, 2:] & 15, then the high ones, blocks[:, 2:] >> 4.",
            ),
            Prediction(
                "the largest error of a weight, in % of its block's largest: Q8_0, Q4_0?",
                "q4",
                tuple,
                "half a step of 1/127 is 0.39 %; with Q4_0 the side opposite the largest weight lacks its last level, "
                "up to a whole step of 1/8.",
                "%",
            ),
        ),
        Question(
            "Q5",
            "the size of a model",
            ("Q8_0", "Q4_0", "model_bytes"),
            (
                Check("size", 10, size),
                Check("array speed", 5, array_speed, is_hidden=True),
            ),
            (
                "Of how many bytes is a block of 32 weights? How many bits is that a weight?",
                "18 bytes are 144 bits, for 32 weights: 4.5 bits each.",
                "Sum math.prod(shape) * bits[name] / 8 over the tensors.",
            ),
            Prediction(
                "how many MB are the weights of the Q8_0 file?",
                "q5",
                int,
                "a block of 32 codes carries a scale of 2 bytes: 8.5 bits a weight.",
                "MB",
            ),
        ),
        Question(
            "Q6",
            "measure",
            prediction=Prediction(
                "F32, F16, Q8_0, Q4_K_M, Q4_0 in the order of their decode speed, the fastest first?",
                "q6",
                str,
                "a step reads all weights once, so bytes count; and unpacking them costs, for some formats more.",
            ),
        ),
        Question(
            "Q7",
            "labels",
            prediction=Prediction(
                "which has the better perplexity here, Q4_K_M or Q5_K_M?",
                "q7",
                str,
                "most tensors fall back to other types, since 576 is not a multiple of 256; and these weights were "
                "published on the grid of Q4_1.",
            ),
        ),
        reflection_question("Q8", "which file", "a bug?"),
    ),
    figures=(
        Figure(
            "the bytes of the files that you compared",
            "q3",
            lambda files: [total for _, total in files.values()],
            "bytes",
        ),
        Figure("the MB of a file", "rows", column(0), "MB"),
        Figure("the MB of a file", "sizes", dict, "MB"),
        Figure("a perplexity", "rows", column(1)),
        Figure("a perplexity", "perplexities", dict),
        Figure("tokens a second of a file", "rows", column(2)),
        Figure("how many of eight answers are the same in a batch", "q8", dict),
    ),
)
