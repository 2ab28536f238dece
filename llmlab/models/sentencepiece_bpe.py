"""SentencePiece BPE tokenizers with byte fallback (Llama 2, Mistral v0.1): tokenizer.json to GGUF metadata and back.

tokenizer.json ranks pairs by a list of merges; GGUF gives each piece a score, and llama.cpp merges the pair whose
result scores highest. Where tokenizer.json puts a space before the first word only (Metaspace "first"), llama.cpp puts
one behind every special token too: GGUF has no word for the difference. This file must not open files.

Source: src/llama-vocab.cpp llm_tokenizer_spm_session; transformers convert_slow_tokenizer.py generate_merges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmlab.errors import ModelError
from llmlab.models.vocabulary import BYTE, NORMAL, UNKNOWN, Vocabulary, added_tokens, vocabulary_of

GGUF_MODEL = "llama"
_SPACE = "\u2581"  # what SentencePiece writes for a space
_NEVER_MERGED = -1e6


def matches(tokenizer: Mapping[str, Any]) -> bool:
    """True when this tokenizer.json is BPE with byte fallback over characters, not over bytes."""
    return bool(tokenizer["model"].get("byte_fallback"))


def to_gguf(tokenizer: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """GGUF metadata (tokens, types, scores) of a tokenizer.json. Raises ModelError for an unknown normalizer."""
    vocabulary = _with_piece_types(vocabulary_of(tokenizer, vocab_size), tokenizer["model"].get("unk_token"))
    scores = [_NEVER_MERGED] * vocab_size
    merges = (m.split(" ", 1) if isinstance(m, str) else m for m in tokenizer["model"]["merges"])
    for rank, (left, right) in enumerate(merges):
        piece = vocabulary.ids[left + right]
        scores[piece] = max(scores[piece], -float(rank))
    return {
        "tokenizer.ggml.model": GGUF_MODEL,
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": vocabulary.types,
        "tokenizer.ggml.add_space_prefix": _adds_space_prefix(tokenizer),
    }


def from_gguf(vocabulary: Vocabulary, scores: list[float], add_space_prefix: bool) -> dict[str, Any]:
    """tokenizer.json of a GGUF tokenizer of model "llama"."""
    prepend = [{"type": "Prepend", "prepend": _SPACE}] if add_space_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if add_space_prefix else []
    unknown = next((t for t, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind == UNKNOWN), None)
    return {
        "version": "1.0",
        "added_tokens": added_tokens(vocabulary),
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*prepend, {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}],
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary.ids,
            "merges": _merges(vocabulary, scores),
        },
    }


def _merges(vocabulary: Vocabulary, scores: list[float]) -> list[tuple[str, str]]:
    """Every pair of pieces whose join is a piece, best score first."""
    ids = {t: i for t, i in vocabulary.ids.items() if vocabulary.types[i] == NORMAL}
    ranked = []
    for piece, index in ids.items():
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(left, right) for left, right in pairs if left in ids and right in ids]
        known.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        ranked += [(-scores[index], pair) for pair in known]
    ranked.sort(key=lambda entry: entry[0])
    return [pair for _, pair in ranked]


def _with_piece_types(vocabulary: Vocabulary, unk_token: str | None) -> Vocabulary:
    types = [
        BYTE if re.fullmatch(r"<0x[0-9A-F]{2}>", token) else UNKNOWN if token == unk_token else kind
        for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
    ]
    return replace(vocabulary, types=types)


def _adds_space_prefix(tokenizer: Mapping[str, Any]) -> bool:
    normalizer = tokenizer.get("normalizer") or {"type": "Sequence", "normalizers": []}
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    unknown = {step["type"] for step in steps} - {"Prepend", "Replace"}
    pre_tokenizer = tokenizer.get("pre_tokenizer") or {"type": None}
    if unknown or pre_tokenizer["type"] not in (None, "Metaspace"):
        raise ModelError(
            f"tokenizer.json uses {sorted(unknown) or pre_tokenizer['type']}, which llama.cpp does not do for this"
            " kind of tokenizer. Get a ready-made .gguf of this model and load that path."
        )
    prefix = pre_tokenizer.get("prepend_scheme", "always" if pre_tokenizer.get("add_prefix_space") else "never")
    return any(step["type"] == "Prepend" for step in steps) or prefix != "never"
