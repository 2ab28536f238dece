"""Lab 2, the KV cache: what is asked, how it is checked, and what each known mistake is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmlab.labs.description import Check, CheckFailed, Figure, Lab, Names, Prediction, Question
from llmlab.labs.pictures_bars import bars_of, bars_picture
from llmlab.labs.pictures_weights import weights_picture
from llmlab.labs.reflection import reflection_question
from llmlab.language import tr
from llmlab.models import ModelConfig

Floats = NDArray[np.float32]
Exact = NDArray[np.float64]


def config(
    layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, head_dim: int, vocab: int
) -> ModelConfig:  # fmt: skip
    return ModelConfig("llama", layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, 8192)


SMALL = config(30, 576, 1536, 9, 3, 64, 49_152)  # SmolLM2-135M
BIG = config(32, 4096, 14_336, 32, 8, 128, 128_256)  # an 8B model
# Its heads are wider than hidden_size / num_heads.
WIDE = config(28, 1024, 3072, 16, 8, 128, 151_936)
MANY_HEADS = config(12, 768, 3072, 12, 12, 64, 50_257)  # each head has a KV head of its own

# ---- Q2


def exact_attention(
    q: Floats,
    k: Floats,
    v: Floats,
    *,
    sees: Callable[[int, int, int], Any] | None = None,
    kv_head: Callable[[int, int, int], int] | None = None,
    scale: float | None = None,
) -> Exact:
    """The slow loop, in float64. The keywords make the known mistakes.

    `sees`: position of the query, index of its row, all keys -> which keys; `kv_head`: head, heads, KV heads -> which.
    """
    (num_new, num_heads, head_dim), (total, num_kv_heads, _) = q.shape, k.shape
    out = np.empty(q.shape)
    for j in range(num_heads):
        j_kv = kv_head(j, num_heads, num_kv_heads) if kv_head else j // (num_heads // num_kv_heads)
        for i in range(num_new):
            position = total - num_new + i
            keys = np.arange(total) <= position if sees is None else sees(position, i, total)
            scores = (k[:, j_kv].astype(np.float64) @ q[i, j]) * (head_dim**-0.5 if scale is None else scale)
            scores = np.where(keys, scores, -np.inf)
            with np.errstate(invalid="ignore"):
                weights = np.exp(scores - scores.max())
                out[i, j] = (weights / weights.sum()) @ v[:, j_kv]
    return out


# sentence -> how the slow loop makes this mistake
ATTENTION_MISTAKES: dict[str, dict[str, Any]] = {
    tr("head j must read KV head j // (num_heads // num_kv_heads); yours reads j % num_kv_heads"): {
        "kv_head": lambda j, heads, kv_heads: j % kv_heads
    },
    tr("the causal mask ignores the computed tokens: query i may see keys 0..(t - n + i)"): {
        "sees": lambda position, i, total: np.arange(total) <= i
    },
    tr("a token must see itself: key <= query position, not <"): {
        "sees": lambda position, i, total: np.arange(total) < position
    },
    tr("later tokens are seen: the causal mask is missing"): {"sees": lambda position, i, total: np.ones(total, bool)},
    tr("the mask is the wrong way round: a token sees what is before it"): {
        "sees": lambda position, i, total: np.arange(total) >= position
    },
    tr("the scores are not divided by sqrt(head_dim)"): {"scale": 1.0},
    tr("all heads read KV head 0"): {"kv_head": lambda j, heads, kv_heads: 0},
}
SHAPES, MORE_SHAPES = ((5, 5), (1, 9), (3, 9)), ((4, 4), (2, 11), (1, 1))
NEAR = 1e-3


def rows(
    rng: np.random.Generator, num_new: int, total: int, heads: int = 9, kv_heads: int = 3, head_dim: int = 64
) -> tuple[Floats, Floats, Floats]:
    """Random q, k, v."""
    shapes = (num_new, heads, head_dim), (total, kv_heads, head_dim), (total, kv_heads, head_dim)
    q, k, v = (1.2 * rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return q, k, v


def compare_attention(names: Names, q: Floats, k: Floats, v: Floats) -> None:
    """The student's answer against the slow loop."""
    num_new, num_old = len(q), len(k) - len(q)
    call = tr("attention of {num_new} new tokens, {num_old} computed before", num_new=num_new, num_old=num_old)
    given = [x.copy() for x in (q, k, v)]
    with np.errstate(all="ignore"):
        got = np.asarray(names["attention"](*given))
    if got.shape != q.shape:
        raise CheckFailed(
            tr(
                "{call}: it gave shape {shape}, expected that of q: {wanted}",
                call=call,
                shape=got.shape,
                wanted=q.shape,
            )
        )
    for name, before, after in zip("qkv", (q, k, v), given, strict=True):
        if not np.array_equal(before, after):
            raise CheckFailed(
                tr("{call}: it changed {name}, which belongs to the engine: work on a copy", call=call, name=name)
            )
    wanted = exact_attention(q, k, v)
    difference = float(np.abs(got - wanted).max())
    if difference < NEAR:
        return
    call_of = tr("{call} ({heads} heads, {kv_heads} KV heads)", call=call, heads=q.shape[1], kv_heads=k.shape[1])

    def fail(reason: str) -> None:
        raise CheckFailed(f"{call}: {reason}", shown_weights(names, q, k, call_of, reason))

    for sentence, mistake in ATTENTION_MISTAKES.items():
        if np.allclose(got, exact_attention(q, k, v, **mistake), atol=NEAR, equal_nan=True):
            fail(
                tr(
                    "{sentence} (largest difference {difference:.2f})",
                    sentence=sentence,
                    difference=float(np.nanmax(np.abs(got - wanted))),
                )
            )
    if not np.isfinite(got).all():
        fail(tr("nan: a row of scores has no key left, or exp() overflows: subtract the row maximum before exp()"))
    i, j, _ = np.unravel_index(np.abs(got - wanted).argmax(), got.shape)
    fail(
        tr(
            "the answer to query {i}, head {j} differs (largest difference {difference:.2f})",
            i=i,
            j=j,
            difference=difference,
        )
    )


def shown_weights(names: Names, q: Floats, k: Floats, call: str, sentence: str) -> Any:
    """The attention weights of one head: its answer to values that are 1 at one key only, each in its own column."""
    total, _, head_dim = k.shape
    if total > head_dim:
        return None
    v = np.zeros(k.shape, np.float32)
    v[np.arange(total), :, np.arange(total)] = 1
    with np.errstate(all="ignore"):
        yours, expected = np.asarray(names["attention"](q.copy(), k.copy(), v)), exact_attention(q, k, v)
    apart = np.abs(np.nan_to_num(yours - expected, nan=1.0)).max(axis=(0, 2))
    head = int(apart.argmax())
    return weights_picture(
        yours[:, head, :total].tolist(), expected[:, head, :total].tolist(),
        rows=[f"token {total - len(q) + i}" for i in range(len(q))], columns=[str(i) for i in range(total)],
        call=tr('{call}: weights of head {head}', call=call, head=head), sentence=sentence,
    )  # fmt: skip


def slow_loop(names: Names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for num_new, total in SHAPES:
        compare_attention(names, *rows(rng, num_new, total))


def chunks_and_other_shapes(names: Names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for heads, kv_heads in ((9, 3), (8, 8), (4, 1)):
        for num_new, total in MORE_SHAPES:
            compare_attention(names, *rows(rng, num_new, total, heads, kv_heads, 16))
    for num_new, total in SHAPES:
        q, k, v = rows(rng, num_new, total)
        with np.errstate(all="ignore"):
            got = np.asarray(names["attention"](200 * q, k.copy(), v.copy()))
        if not np.isfinite(got).all():
            raise CheckFailed(tr("nan for large scores: subtract the row maximum before exp()"))
        if np.abs(got - exact_attention(200 * q, k, v)).max() > NEAR:
            raise CheckFailed(tr("for large scores the answer differs from the slow loop: compute in float32 at least"))
    whole_is_its_chunks(names, rng)


def whole_is_its_chunks(names: Names, rng: np.random.Generator) -> None:
    """A chunked prefill computes the same as one in a piece."""
    q, k, v = rows(rng, 12, 12)
    whole = np.asarray(names["attention"](q.copy(), k.copy(), v.copy()))
    parts = [np.asarray(names["attention"](q[i:j].copy(), k[:j].copy(), v[:j].copy())) for i, j in ((0, 5), (5, 12))]
    if np.abs(whole - np.concatenate(parts)).max() > NEAR:
        raise CheckFailed(tr("12 tokens at once and in chunks of 5 and 7 give different answers: look at the mask"))


# ---- Q3

LAYERS, ROOM, KV_HEADS, HEAD_DIM = 3, 8, 3, 64
CHUNKS = (5, 1, 1)


def cached_equals_uncached(names: Names, seed: int) -> None:
    """Layers of random keys and values, in chunks: what append() returns must be all that came."""
    rng = np.random.default_rng(seed)
    cache = names["KVCache"](LAYERS, ROOM, KV_HEADS, HEAD_DIM)
    came = rng.standard_normal((LAYERS, 2, sum(CHUNKS), KV_HEADS, HEAD_DIM)).astype(np.float32)
    first = 0
    for size in CHUNKS:
        end = first + size
        counted = []
        for layer in range(LAYERS):
            got = cache.append(layer, came[layer, 0, first:end].copy(), came[layer, 1, first:end].copy())
            compare_kv(got, came[layer, :, :end], layer, end)
            counted.append(cache.num_computed_tokens)
        if counted[0] != first:
            raise CheckFailed(
                tr(
                    "within a step, after layer 0 of 0 to {layers}: num_computed_tokens is {got}, expected {first}: "
                    "tokens that ALL layers have",
                    layers=LAYERS - 1,
                    got=counted[0],
                    first=first,
                )
            )
        first = end
        if cache.num_computed_tokens != first:
            raise CheckFailed(
                tr(
                    "after a step with all layers num_computed_tokens is {got}, expected {first}",
                    got=cache.num_computed_tokens,
                    first=first,
                )
            )
    compare_num_bytes(names)


def compare_kv(got: object, wanted: Floats, layer: int, num_tokens: int) -> None:
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise CheckFailed(
            tr("append() returned {kind}, expected all keys and all values of the layer", kind=type(got).__name__)
        )
    for name, values, want in zip(("keys", "values"), got, wanted, strict=True):
        values = np.asarray(values)
        if values.shape != want.shape:
            raise CheckFailed(
                tr(
                    "after {num_tokens} tokens append() returns {name} of shape {shape}, expected {wanted}: all "
                    "tokens so far, this layer only",
                    num_tokens=num_tokens,
                    name=name,
                    shape=values.shape,
                    wanted=want.shape,
                )
            )
        if not np.array_equal(values, want):
            wrong = int(np.flatnonzero((values != want).any(axis=(1, 2)))[0])
            other = wanted[1 if name == "keys" else 0]
            cause = tr(": keys and values are swapped") if np.array_equal(values, other) else ""
            raise CheckFailed(
                tr(
                    "after {num_tokens} tokens the {name} of layer {layer} differ from those that were appended, "
                    "first at token {wrong}{cause}",
                    num_tokens=num_tokens,
                    name=name,
                    layer=layer,
                    wrong=wrong,
                    cause=cause,
                )
            )


def compare_num_bytes(names: Names) -> None:
    yours, wanted, labels = [], [], []
    for layers, room, dtype in ((3, 8, np.float32), (3, 8, np.float16), (30, 200, np.float16)):
        cache = names["KVCache"](layers, room, KV_HEADS, HEAD_DIM, dtype)
        yours.append(float(cache.num_bytes))
        wanted.append(2.0 * layers * room * KV_HEADS * HEAD_DIM * np.dtype(dtype).itemsize)
        labels.append(tr("{layers} layers, {room} tokens, {name}", layers=layers, room=room, name=np.dtype(dtype).name))
    for got, want, label in zip(yours, wanted, labels, strict=True):
        if got != want:
            reason = tr(
                "num_bytes of {label}, {kv_heads} KV heads of {head_dim} is {got:,.0f}, expected {want:,.0f}",
                label=label,
                kv_heads=KV_HEADS,
                head_dim=HEAD_DIM,
                got=got,
                want=want,
            )
            raise CheckFailed(reason, bytes_picture(yours, wanted, labels, "num_bytes", reason))


def bytes_picture(
    yours: Sequence[float], wanted: Sequence[float], labels: Sequence[str], call: str, reason: str
) -> Any:
    return bars_picture(bars_of(yours), bars_of(wanted), labels, axis="bytes", call=call, sentence=reason)


def allocated_once(names: Names, seed: int) -> None:
    cache = names["KVCache"](LAYERS, ROOM, KV_HEADS, HEAD_DIM)
    rng = np.random.default_rng(seed)
    before: list[tuple[int, int]] = []
    for num_new in (3, 1, 1, 3):
        new = [rng.standard_normal((2, num_new, KV_HEADS, HEAD_DIM)).astype(np.float32) for _ in range(LAYERS)]
        got = [cache.append(layer, *new[layer]) for layer in range(LAYERS)]
        places = [(address(k), address(v)) for k, v in got]
        if before and places != before:
            raise CheckFailed(
                tr(
                    "the cache was copied while it grew: write in place, return views (a copy per step makes decode "
                    "O(n^2))"
                )
            )
        before = places
        kept = [(k.copy(), v.copy()) for k, v in got]
    refuses_the_ninth(cache, kept)
    refuses_too_many_at_once(names, rng)


def address(view: Any) -> int:
    return int(np.asarray(view).__array_interface__["data"][0])


def refuses_the_ninth(cache: Any, kept: list[tuple[Floats, Floats]]) -> None:
    """Full: ValueError, and nothing has changed."""
    one = np.full((1, KV_HEADS, HEAD_DIM), 7, np.float32)
    if not is_refused(cache, one):
        raise CheckFailed(tr("a ninth token was accepted by a cache of {room}: raise ValueError", room=ROOM))
    if cache.num_computed_tokens != ROOM:
        raise CheckFailed(
            tr(
                "after a refusal num_computed_tokens is {got}, expected {room}",
                got=cache.num_computed_tokens,
                room=ROOM,
            )
        )
    for layer, (k, v) in enumerate(kept):
        now = cache.append(layer, one[:0], one[:0])
        if not (np.array_equal(now[0], k) and np.array_equal(now[1], v)):
            raise CheckFailed(tr("a refusal changed layer {layer}: count first, write afterwards", layer=layer))


def refuses_too_many_at_once(names: Names, rng: np.random.Generator) -> None:
    """Two places are left, three tokens come."""
    cache = names["KVCache"](LAYERS, ROOM, KV_HEADS, HEAD_DIM)
    for layer in range(LAYERS):
        new = rng.standard_normal((ROOM - 2, KV_HEADS, HEAD_DIM)).astype(np.float32)
        cache.append(layer, new, new)
    three = np.full((3, KV_HEADS, HEAD_DIM), 7, np.float32)
    if not is_refused(cache, three):
        raise CheckFailed(
            tr(
                "3 tokens more were accepted by a cache of {room} with {held} in it: raise ValueError",
                room=ROOM,
                held=ROOM - 2,
            )
        )
    keys, _ = cache.append(0, three[:0], three[:0])
    if len(keys) != ROOM - 2:
        raise CheckFailed(
            tr(
                "a refusal changed layer 0: {num_keys} tokens, not {room}: count first, write afterwards",
                num_keys=len(keys),
                room=ROOM - 2,
            )
        )


def is_refused(cache: Any, new: Floats) -> bool:
    """Layer 0 of a cache without room for them."""
    try:
        cache.append(0, new, new)
    except ValueError:
        return True
    except (IndexError, MemoryError) as error:
        raise CheckFailed(
            tr("a cache of {room} is full: it raised {kind}, not ValueError", room=ROOM, kind=type(error).__name__)
        ) from None
    return False


# ---- Q4


def exact_kv_bytes(num_tokens: int, cfg: ModelConfig, bytes_per_element: int = 2) -> int:
    return 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * bytes_per_element * num_tokens


KV_MISTAKES: dict[str, Callable[[int, ModelConfig, int], float]] = {
    tr("you count {cfg.num_heads} query heads; K and V are stored for the {cfg.num_kv_heads} KV heads only (GQA)"): (
        lambda n, cfg, size: 2 * cfg.num_layers * cfg.num_heads * cfg.head_dim * size * n
    ),
    tr(
        "you count {cfg.num_heads} query heads (hidden_size); K and V are stored for the {cfg.num_kv_heads} KV heads "
        "only (GQA)"
    ): lambda n, cfg, size: 2 * cfg.num_layers * cfg.hidden_size * size * n,
    tr("bytes_per_element is {size} here"): lambda n, cfg, size: exact_kv_bytes(n, cfg, 2) if size != 2 else -1,
    tr("wrong for a model whose head_dim is not hidden_size / num_heads: read cfg.head_dim"): (
        lambda n, cfg, size: 2 * cfg.num_layers * cfg.num_kv_heads * (cfg.hidden_size // cfg.num_heads) * size * n
    ),
    tr("a key AND a value: times 2"): lambda n, cfg, size: exact_kv_bytes(n, cfg, size) / 2,
    tr("all {cfg.num_layers} layers keep keys and values"): (
        lambda n, cfg, size: exact_kv_bytes(n, cfg, size) / cfg.num_layers
    ),
    tr("you count numbers: times bytes_per_element"): lambda n, cfg, size: exact_kv_bytes(n, cfg, 1),
    tr("that is one token: times num_tokens"): lambda n, cfg, size: exact_kv_bytes(1, cfg, size),
}


def compare_kv_bytes(names: Names, cases: Sequence[tuple[int, ModelConfig, int, str]]) -> None:
    got = [names["kv_bytes"](n, cfg, size) for n, cfg, size, _ in cases]
    wanted = [exact_kv_bytes(n, cfg, size) for n, cfg, size, _ in cases]
    for (n, cfg, size, name), value, want in zip(cases, got, wanted, strict=True):
        if value == want:
            continue
        known = next((text for text, mistake in KV_MISTAKES.items() if mistake(n, cfg, size) == value), "")
        reason = tr(
            "{value:,} bytes for {n:,} token{s} of {name}, expected {want:,}",
            value=value,
            n=n,
            s="" if n == 1 else "s",
            name=name,
            want=want,
        )
        if known:
            reason = f"{reason}: {known.format(cfg=cfg, size=size)}"
        labels = [tr("{which}, {one} bytes a number", which=which, one=one) for _, _, one, which in cases]
        # of a token, so that one bar does not hide the others
        yours = [float(a) / n for a, (n, *_) in zip(got, cases, strict=True)]
        per_token = [b / n for b, (n, *_) in zip(wanted, cases, strict=True)]
        raise CheckFailed(
            reason,
            bars_picture(
                bars_of(yours), bars_of(per_token), labels, axis=tr("bytes a token"), call="kv_bytes()", sentence=reason
            ),
        )


def known_models(names: Names, seed: int) -> None:
    compare_kv_bytes(
        names, [(1, SMALL, 2, "SmolLM2-135M"), (8192, BIG, 2, tr("the 8B model")), (200, SMALL, 4, "SmolLM2-135M")]
    )
    if (got := names["kv_bytes"](1, SMALL)) != 23_040:
        raise CheckFailed(
            tr("kv_bytes(1, cfg) is {got:,}, expected 23,040: bytes_per_element is 2 unless it is given", got=got)
        )


def other_models(names: Names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers, kv_heads = int(rng.integers(2, 50)), int(rng.choice([1, 2, 4]))
    drawn = config(layers, 512, 2048, 8, kv_heads, 64, 32_000)
    compare_kv_bytes(
        names,
        [
            (1000, MANY_HEADS, 2, tr("a model without GQA")),
            (17, drawn, 4, tr("{layers} layers, {kv_heads} KV heads", layers=layers, kv_heads=kv_heads)),
            (1, WIDE, 2, tr("a model with wide heads")),
            (333, WIDE, 1, tr("a model with wide heads")),
        ],
    )


# ---- Q5

SMALL_WEIGHTS = 269e6
# new tokens, computed before, bytes of the weights, bytes of a number in the cache
PASSES = ((1, 100, SMALL_WEIGHTS, 2), (100, 0, SMALL_WEIGHTS, 2), (1, 2000, 1e6, 2), (64, 1000, 1e6, 4))
WITHIN = 0.01


def weights_of_layers(cfg: ModelConfig) -> int:
    width, kv_width = cfg.num_heads * cfg.head_dim, cfg.num_kv_heads * cfg.head_dim
    return cfg.num_layers * cfg.hidden_size * (2 * width + 2 * kv_width + 3 * cfg.intermediate_size)


def exact_flops(cfg: ModelConfig, n: int, c: int, *, num_pairs: int | None = None, num_logit_rows: int = 1) -> int:
    pairs = n * c + n * (n + 1) // 2 if num_pairs is None else num_pairs
    attention = 4 * cfg.num_layers * cfg.num_heads * cfg.head_dim * pairs
    return 2 * weights_of_layers(cfg) * n + attention + 2 * num_logit_rows * cfg.vocab_size * cfg.hidden_size


def exact_bytes(cfg: ModelConfig, n: int, c: int, weight_bytes: float, size: int = 2) -> float:
    return weight_bytes + exact_kv_bytes(c + 2 * n, cfg, size)


DECODE_HINT = tr("2 x each weight + 4 x num_heads x head_dim x attended tokens x layers + one logits row")
PREFILL_HINT = tr("query i attends i + 1 keys, logits for the last row only")
FLOP_MISTAKES: dict[str, Callable[[ModelConfig, int, int], float]] = {
    tr("a multiplication and an addition for each weight are 2 operations"): lambda cfg, n, c: (
        exact_flops(cfg, n, c) / 2
    ),
    tr("logits are computed for the last token only"): lambda cfg, n, c: exact_flops(cfg, n, c, num_logit_rows=n),
    tr("the logits are missing: 2 x vocab_size x hidden_size"): lambda cfg, n, c: exact_flops(
        cfg, n, c, num_logit_rows=0
    ),
    tr(
        "attention to {c} tokens before and the new ones is missing: 4 x num_heads x head_dim for each pair and layer"
    ): (lambda cfg, n, c: exact_flops(cfg, n, c, num_pairs=0)),
    tr("count the pairs: query i attends computed + i + 1 keys"): lambda cfg, n, c: exact_flops(
        cfg, n, c, num_pairs=n * n
    ),
    tr("all new tokens see all tokens in this count; query i attends computed + i + 1 keys"): (
        lambda cfg, n, c: exact_flops(cfg, n, c, num_pairs=n * (c + n))
    ),
}
BYTE_MISTAKES: dict[str, Callable[[ModelConfig, int, int, float, int], float]] = {
    tr("weights are read once a pass, not once a token"): (
        lambda cfg, n, c, w, size: w * n + exact_kv_bytes(c + 2 * n, cfg, size)
    ),
    tr("the KV cache is missing: keys and values are read and written"): lambda cfg, n, c, w, size: w,
    tr("keys and values of the tokens before are read, too"): (
        lambda cfg, n, c, w, size: w + exact_kv_bytes(2 * n, cfg, size)
    ),
    tr("bytes_per_element is {size} here"): lambda cfg, n, c, w, size: exact_bytes(cfg, n, c, w, 2),
}


def is_near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= WITHIN * abs(wanted)


def in_words(value: float) -> str:
    """Three digits after the point, with a prefix."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.4g} {prefix}"
    return f"{value:.4g} "


def compare_flops(names: Names, cfg: ModelConfig, n: int, c: int) -> None:
    got, wanted = float(names["forward_flops"](cfg, n, c)), exact_flops(cfg, n, c)
    if is_near(got, wanted):
        return
    what = (
        tr("decode after {c} tokens", c=c)
        if n == 1
        else tr("prefill of {n} tokens", n=n) + (f" after {c}" if c else "")
    )
    known = next((text for text, mistake in FLOP_MISTAKES.items() if is_near(got, mistake(cfg, n, c))
                  and not is_near(mistake(cfg, n, c), wanted)), DECODE_HINT if n == 1 else PREFILL_HINT)  # fmt: skip
    raise CheckFailed(
        tr(
            "{what}: {got}FLOP, expected {wanted}FLOP: {known}",
            what=what,
            got=in_words(got),
            wanted=in_words(wanted),
            known=known.format(c=c),
        )
    )


def flops_and_bytes(names: Names, seed: int) -> None:
    for n, c in ((1, 100), (1, 2000), (100, 0), (1000, 0)):
        compare_flops(names, SMALL, n, c)
    compare_flops(names, BIG, 8000, 0)
    for n, c, weight_bytes, size in PASSES:
        got = float(names["forward_bytes"](SMALL, n, c, weight_bytes, size))
        wanted = exact_bytes(SMALL, n, c, weight_bytes, size)
        if not is_near(got, wanted):
            known = next((text for text, mistake in BYTE_MISTAKES.items()
                          if is_near(got, mistake(SMALL, n, c, weight_bytes, size))), "")  # fmt: skip
            known = known or tr("all weights once + KV of all tokens read + KV of the new ones written")
            raise CheckFailed(
                tr(
                    "{n} new tokens after {c}, weights of {weights}B: {got}B moved, expected {wanted}B: {known}",
                    n=n,
                    c=c,
                    weights=in_words(weight_bytes),
                    got=in_words(got),
                    wanted=in_words(wanted),
                    known=known.format(size=size),
                )
            )


def additive(names: Names, seed: int) -> None:
    flops, rng = names["forward_flops"], np.random.default_rng(seed)
    for cfg in (SMALL, WIDE, MANY_HEADS):
        first, second = (32, 32) if cfg is SMALL else (int(n) for n in rng.integers(40, 400, 2))
        logits = 2 * cfg.vocab_size * cfg.hidden_size
        whole, parts = flops(cfg, first + second, 0), flops(cfg, first, 0) + flops(cfg, second, first)
        if not is_near(parts - logits, whole):
            raise CheckFailed(
                tr(
                    "chunks of {first} and {second} tokens: {parts}FLOP, all at once {whole}FLOP; they may differ by"
                    " one logits row only ({logits}FLOP)",
                    first=first,
                    second=second,
                    parts=in_words(parts),
                    whole=in_words(whole),
                    logits=in_words(logits),
                )
            )
        compare_flops(names, cfg, second, first)
        compare_flops(names, cfg, 1, 4000)


# ---- what runs in the notebook show


def times_the_flops(pair: Any) -> float:
    """Without a cache to with one."""
    cached, uncached = (sum(step.extra["flops"] for step in steps) for steps in steps_of(pair))
    return round(uncached / cached, 1)


def steps_of(pair: Any) -> list[list[Any]]:
    """With a cache, without."""
    cached, uncached = pair
    return [cached.trace.step_records, [step for run in uncached for step in run.trace.step_records]]


def seconds(pair: Any) -> list[float]:
    return [sum(step.forward_s for step in steps) for steps in steps_of(pair)]


def times_by_the_clock(pair: Any) -> float:
    with_s, without_s = seconds(pair)
    return without_s / with_s


def gflops(pair: Any) -> list[tuple[float, float]]:
    """And a second."""
    flops = [sum(step.extra["flops"] for step in steps) / 1e9 for steps in steps_of(pair)]
    return [(count, count / took_s) for count, took_s in zip(flops, seconds(pair), strict=True)]


def rates_and_ratio(rates: Any) -> list[float]:
    return [*rates.values(), rates[16] / rates[1]]


def clock_says_less(names: Names) -> str:
    if "q1" not in names:
        return tr("run the cells that fill `q1`, and check again.")
    return tr(
        "by the clock {ratio:.1f} times as long, for {times:.1f} times the operations.",
        ratio=times_by_the_clock(names["q1"]),
        times=times_the_flops(names["q1"]),
    )


# Of log probabilities: float32 in another order of the sums.
LOGPROB_NEAR = 1e-3


def same_answers(names: Names, name: str, ours: str) -> str:
    mine, theirs = names[name], names[ours]
    if mine.token_ids != theirs.token_ids:
        at = next(i for i, (a, b) in enumerate(zip(mine.token_ids, theirs.token_ids, strict=False)) if a != b)
        raise CheckFailed(tr("`{name}` differs from `{ours}` at token {at}", name=name, ours=ours, at=at))
    apart = max(abs(a - b) for a, b in zip(mine.logprobs, theirs.logprobs, strict=True))
    if apart > LOGPROB_NEAR:
        raise CheckFailed(
            tr(
                "the tokens of `{name}` are right, its log probabilities are up to {apart:.4f} off",
                name=name,
                apart=apart,
            )
        )
    return tr(
        "{count} tokens as from the engine's own, log probabilities at most {apart:.0e} apart.",
        count=len(mine.token_ids),
        apart=apart,
    )


def attention_is_equal(names: Names) -> str:
    if "q2" not in names or "q2_ours" not in names:
        return tr("run the cell that fills `q2` and `q2_ours`, and check again.")
    return same_answers(names, "q2", "q2_ours")


def bytes_of_200_tokens(run: Any) -> float:
    header, steps = run.trace.header, run.trace.step_records
    return float(max(step.kv.num_used for step in steps) * header.kv_cache_bytes / header.num_cells)


def cache_in_a_real_run(names: Names) -> str:
    if "q3" not in names:
        return tr("run the cell that fills `q3`, and check again.")
    computed = 0
    for step in names["q3"].trace.step_records:
        computed += sum(row.num_tokens for row in step.scheduled)
        if step.kv.num_used and step.kv.num_used != computed:
            raise CheckFailed(
                tr(
                    "step {step}: {cells} cells for {computed} computed tokens",
                    step=step.step,
                    cells=step.kv.num_used,
                    computed=computed,
                )
            )
    said = tr(
        "after every step of `q3` as many cells were in use as tokens computed, {computed} at the end",
        computed=computed,
    )
    if "q3_cached" not in names or "q2_ours" not in names:
        return tr(
            "{said}. Run the cell that fills `q3_cached`: does a real engine find its KV in your cache?", said=said
        )
    return tr("{said}; from your cache {answers}", said=said, answers=same_answers(names, "q3_cached", "q2_ours"))


def formula_fits(names: Names) -> str:
    if "q4_measured" not in names:
        return tr("run the cell that fills `q4_measured`, and check again.")
    for engine, measured, formula in names["q4_measured"]:
        if not is_near(measured, formula):
            raise CheckFailed(
                tr(
                    "{engine} takes {measured:,.0f} bytes a token, your formula says {formula:,}",
                    engine=engine,
                    measured=measured,
                    formula=formula,
                )
            )
    engines = ", ".join(f"{engine} {measured:,.0f}" for engine, measured, _ in names["q4_measured"])
    return tr("bytes a token as engines have them, within 1 % of your formula: {engines}.", engines=engines)


LAB = Lab(
    title="Lab 2: the KV cache",
    minutes=80,
    engines=("torch", "llamacpp", "vllm"),
    forbidden=(
        "llmlab.engines.torch_attention",
        "llmlab.models.fit",
        "llmlab.models.kv_bytes_per_token",
        "llmlab.views.plots.work",
        "llmlab.engines.cost_model",
        "torch",
        "llama_cpp",
    ),
    questions=(
        Question(
            "Q1",
            "with and without",
            prediction=Prediction(
                "64 new tokens after a prompt of 100: how many times more multiplications without a cache?",
                "q1",
                times_the_flops,
                "without a cache each new token computes all tokens before it once more: 64 times about 132 tokens "
                "against 163.",
            ),
            observe=clock_says_less,
        ),
        Question(
            "Q2",
            "attention",
            ("attention",),
            (
                Check("equal to a slow loop", 15, slow_loop),
                Check("chunks and other shapes", 10, chunks_and_other_shapes, is_hidden=True),
            ),
            (
                "Draw the mask for 3 new tokens after 6.",
                "Row 0 is the token at position 6: it sees 7 keys. Head 4 of 9, with 3 KV heads, reads KV head 1.",
                "np.arange(total) <= np.arange(total - num_new, total)[:, None]",
            ),
            observe=attention_is_equal,
        ),
        Question(
            "Q3",
            "the cache",
            ("KVCache",),
            (
                Check("cached equals uncached", 15, cached_equals_uncached),
                Check("allocated once", 10, allocated_once, is_hidden=True),
            ),
            (
                "Which object is new in every step? None should be.",
                "Slice, do not concatenate: a slice of an array is a view of it.",
                "self.kv[layer, 0, n : n + len(k)] = k; return self.kv[layer, 0, : n + len(k)], ...",
            ),
            Prediction(
                "bytes of 200 tokens of SmolLM2-135M in the cache, in F16?",
                "q3",
                bytes_of_200_tokens,
                "200 tokens x 30 layers x (key + value) x 3 KV heads x 64 numbers x 2 bytes = 200 x 23,040.",
                "bytes",
            ),
            observe=cache_in_a_real_run,
        ),
        Question(
            "Q4",
            "bytes of any model",
            ("kv_bytes",),
            (
                Check("two known models", 15, known_models),
                Check("other models", 10, other_models, is_hidden=True),
            ),
            (
                "Which heads are stored?",
                "3, not 9; and a key and a value for each.",
                "2 x layers x KV heads x head_dim x bytes, times the tokens",
            ),
            Prediction(
                "KV bytes of one token of SmolLM2-135M, and of 8,192 tokens of an 8B model with 8 KV heads?",
                "q4",
                tuple,
                "2 x 30 x 3 x 64 x 2 bytes; and 2 x 32 x 8 x 128 x 2 = 131,072 bytes for each of 8,192: 1 GiB.",
                "bytes",
            ),
            observe=formula_fits,
        ),
        Question(
            "Q5",
            "arithmetic and memory",
            ("forward_flops", "forward_bytes"),
            (
                Check("operations and bytes", 15, flops_and_bytes),
                Check("additive", 10, additive, is_hidden=True),
            ),
            (
                "Do one layer by hand, for one token.",
                "Query i attends computed + i + 1 keys: 3 new tokens after 6 make 7 + 8 + 9 = 24 pairs.",
                "num_pairs = n * c + n * (n + 1) // 2",
            ),
            Prediction(
                "operations per byte of one decode step after 100 tokens, and of a prefill of 100 tokens?",
                "q5",
                lambda pair: [round(float(value), 2) for value in pair],
                "both move all weights once; decode computes 1 token with them, prefill 100.",
            ),
        ),
        reflection_question("Q6", "faster memory", "why batching helps"),
    ),
    figures=(
        Figure("the seconds with a cache and without", "q1", seconds, "s"),
        Figure("how many times as long it took by the clock", "q1", times_by_the_clock),
        Figure("the GFLOP with a cache and without, in all and a second", "q1", gflops),
        Figure("the bytes a token that engines take", "q4_measured", lambda rows: [row[1] for row in rows], "bytes"),
        Figure("tokens a second alone and in a batch of 16, and their ratio", "rates", rates_and_ratio),
    ),
)
