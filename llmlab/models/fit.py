"""Does it fit? Bytes of weights and KV cache against what is free, before anything is loaded.

Weights and KV are exact or within a few per cent; the overhead is an estimate and says so. This file must not load
engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmlab.errors import DoesNotFit, ModelError, unknown
from llmlab.models import memory
from llmlab.models.config import ModelConfig
from llmlab.models.model import Model
from llmlab.models.quants import parse_quant
from llmlab.models.tensors import EMBEDDING, expected_tensors, num_params

DEFAULT_CTX_TOKENS = 4096
_MIN_CTX_TOKENS = 512
_BATCH_TOKENS = 512  # llama.cpp's default n_ubatch
# process, libraries and scratch memory, measured with SmolLM2-135M on x86-64 Linux; an estimate elsewhere
_OVERHEAD_BYTES = {"llamacpp": 110_000_000, "vllm": 1_100_000_000, "torch": 500_000_000, "simulated": 0, "replay": 0}
_WITHOUT_MODEL = ("simulated", "replay")
_ON_GPU = ("vllm", "torch")
# What those take instead of a quant: the type they compute in, which is that of their weights too.
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Fit:
    """What loading a model takes, against what is free; all in bytes.

    >>> fit = fits("smollm2-135m", "llamacpp", ctx=8192)      # doctest: +SKIP
    >>> fit.ok, fit.kv_bytes                                   # doctest: +SKIP
    (True, 188743680)
    """

    model: str
    engine: str
    quant: str
    # limit of one sequence, in tokens
    ctx: int
    seqs: int
    # of the whole KV cache
    kv_tokens: int
    weights_bytes: int
    kv_bytes: int
    overhead_bytes: int
    free_bytes: int
    # "GPU" or "RAM": whose free_bytes these are
    memory: str
    # the line to type when it does not fit, "" when it does
    advice: str = ""

    @property
    def needed_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes

    @property
    def ok(self) -> bool:
        return self.needed_bytes <= self.free_bytes

    def __str__(self) -> str:
        """One sentence, and the line to type when it does not fit."""
        parts = (
            f"{self.model} as {self.quant} needs {_gb(self.needed_bytes)} GB (weights {_gb(self.weights_bytes)}, KV"
            f" cache of {self.kv_tokens} tokens {_gb(self.kv_bytes)}, engine about {_gb(self.overhead_bytes)});"
            f" {_gb(self.free_bytes)} GB of {self.memory} are free."
        )
        return parts if self.ok else f"{parts} Try `{self.advice}`."

    def require(self) -> None:
        """Raises DoesNotFit, with the line that would fit, when this does not."""
        if not self.ok:
            raise DoesNotFit(str(self))


def fits(
    model: Model | str,
    engine: str,
    *,
    quant: str | None = None,
    ctx: int | None = None,
    seqs: int | None = None,
    kv_tokens: int | None = None,
) -> Fit:
    """What `engine` needs for that model with `seqs` sequences of `ctx` tokens, and whether it is free.

    `quant`: as the engine would choose when None. `ctx`: 4096 or the model's limit when None. `seqs`: 1 when None.
    `kv_tokens`: the size of a pool that the sequences share, ctx x seqs when None. vLLM and torch are held against the
    GPU when there is one. Nothing is loaded, made or downloaded.

    Raises ModelError for an unknown model, engine or quant.
    """
    if engine not in _OVERHEAD_BYTES:
        raise ModelError(unknown("engine", engine, _OVERHEAD_BYTES))
    if isinstance(model, str):
        from llmlab.models.catalog import get

        model = get(model)
    free_gpu = memory.free_gpu_bytes() if engine in _ON_GPU else None
    free, kind = (free_gpu, "GPU") if free_gpu is not None else (memory.free_ram_bytes(), "RAM")
    chosen = (quant or _default_quant(model, engine, on_gpu=free_gpu is not None)).upper()
    need = _Need(chosen, ctx or min(model.config.max_model_len, DEFAULT_CTX_TOKENS), seqs or 1, kv_tokens)
    fit = _fit(model, engine, need, free, kind)
    if fit.ok:
        return fit
    smaller = (other for other in _smaller(model, fit, need) if _fit(model, engine, other, free, kind).ok)
    line = next((_line(model, engine, other) for other in smaller), "%llm load smollm2-135m")
    return replace(fit, advice=line)


def kv_bytes_per_token(config: ModelConfig, bytes_per_element: int = 2) -> int:
    """Bytes that one token takes in the KV cache: a key and a value per layer and KV head.

    2 x num_layers x num_kv_heads x head_dim x bytes_per_element. Grouped-query attention counts KV heads, not heads: of
    SmolLM2-135M 3 of 9, which makes 2 x 30 x 3 x 64 x 2 = 23,040 bytes in F16.

    Source: vllm/v1/kv_cache_interface.py FullAttentionSpec.page_size_bytes; llama.cpp src/llama-kv-cache.cpp.
    """
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * bytes_per_element


def weights_bytes(config: ModelConfig, quant: str) -> int:
    """Bytes of the weights in that quant, within 5 % of the file that llama.cpp's quantizer writes.

    The matrix that makes the logits keeps more bits than the layers: 8.5, or 6.6 in K-quants whose rows are a multiple
    of 256 long. Where they are not, K-quants fall back to larger types.

    Source: src/llama-quant.cpp llama_tensor_get_type_impl and tensor_type_fallback (libllama 0.5.0).
    """
    kind = parse_quant(quant)
    total = num_params(config)
    if kind.is_float:
        return int(total * kind.bits / 8)
    rows, columns = expected_tensors(config)[EMBEDDING]
    fits_k = columns % 256 == 0
    output_bits = 8.5 if kind.name == "Q8_0" or not fits_k else 6.5625
    layer_bits = kind.bits if fits_k else _FALLBACK_BITS.get(kind.name, kind.bits)
    return int((rows * columns * output_bits + (total - rows * columns) * layer_bits) / 8)


# Q2_K and Q3_K become Q4_0, Q4_K becomes Q5_0, Q5_K Q5_1, Q6_K Q8_0
_FALLBACK_BITS = {
    "Q2_K": 4.5, "Q3_K_S": 4.5, "Q3_K_M": 4.8, "Q3_K_L": 5.2, "IQ4_XS": 4.6,
    "Q4_K_S": 5.5, "Q4_K_M": 5.7, "Q5_K_S": 6.0, "Q5_K_M": 6.2, "Q6_K": 8.5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Need:
    """What was asked for: `pool` is the KV cache that the sequences share, None for one of ctx tokens each."""

    quant: str
    ctx: int
    seqs: int
    pool: int | None

    @property
    def kv_tokens(self) -> int:
        return self.ctx * self.seqs if self.pool is None else self.pool

    def shorter(self, halvings: int) -> _Need:
        """The same with a KV cache halved so many times."""
        if self.pool is None:
            return replace(self, ctx=self.ctx >> halvings)
        pool = self.pool >> halvings
        return replace(self, pool=pool, ctx=min(self.ctx, pool))


def _fit(model: Model, engine: str, need: _Need, free_bytes: int, kind: str) -> Fit:
    if engine in _WITHOUT_MODEL:
        weights = kv_bytes = overhead = 0
    else:
        # llama.cpp keeps KV in F16 whatever the weights are; the others in the type they compute in
        kv_element_bytes = 4 if need.quant == "F32" and engine != "llamacpp" else 2
        kv_bytes = kv_bytes_per_token(model.config, kv_element_bytes) * need.kv_tokens
        weights = _weights_bytes(model, engine, need.quant)
        overhead = _OVERHEAD_BYTES[engine]
    if engine == "llamacpp":  # logits of a whole batch, once in the compute buffer and once in the output
        overhead += 2 * 4 * _BATCH_TOKENS * model.config.vocab_size
    sizes = weights, kv_bytes, overhead, free_bytes
    return Fit(model.name, engine, need.quant, need.ctx, need.seqs, need.kv_tokens, *sizes, kind)


def _weights_bytes(model: Model, engine: str, quant: str) -> int:
    if engine == "llamacpp" and model.has_gguf(quant):
        return model.gguf(quant).stat().st_size
    if engine in _ON_GPU and not parse_quant(quant).is_float:
        raise ModelError(f"{engine} loads F32, F16 or BF16 weights, not {quant}. Leave -q out, or use -e llamacpp.")
    return weights_bytes(model.config, quant)


def _default_quant(model: Model, engine: str, *, on_gpu: bool) -> str:
    if engine not in _ON_GPU:
        return model.default_quant
    return "BF16" if on_gpu else "F32"


def _smaller(model: Model, fit: Fit, need: _Need) -> Iterator[_Need]:
    """What to try instead, the mildest first: a smaller quant, a smaller KV cache, both."""
    quants = ["BF16"] if fit.engine in _ON_GPU else ["Q8_0", "Q4_0"]
    smaller_quants = [
        replace(need, quant=quant) for quant in quants if weights_bytes(model.config, quant) < fit.weights_bytes
    ]
    largest = need.ctx if need.pool is None else need.pool
    num_halvings = max(0, (largest // _MIN_CTX_TOKENS).bit_length() - 1)
    shorter = [need.shorter(halvings) for halvings in range(1, num_halvings + 1)]
    kv_first = fit.kv_bytes > fit.weights_bytes
    yield from [*shorter, *smaller_quants] if kv_first else [*smaller_quants, *shorter]
    for smaller in smaller_quants:
        yield from (smaller.shorter(halvings) for halvings in range(1, num_halvings + 1))


def _line(model: Model, engine: str, need: _Need) -> str:
    seqs = f" --seqs {need.seqs}" if need.seqs > 1 else ""
    pool = f" --kv-tokens {need.pool}" if need.pool is not None else ""
    form = f"--dtype {DTYPES[need.quant]}" if engine in _ON_GPU else f"-q {need.quant}"
    return f"%llm load {model.load_name} -e {engine} {form} --ctx {need.ctx}{seqs}{pool}"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f}"
