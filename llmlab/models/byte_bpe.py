"""Byte-level BPE tokenizers (GPT-2's kind: Llama 3, Qwen, SmolLM): tokenizer.json to GGUF metadata and back.

This file must not open files: it turns one dictionary into another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlab.errors import ModelError
from llmlab.models import pre_tokenizers
from llmlab.models.vocabulary import Vocabulary, added_tokens, vocabulary_of

GGUF_MODEL = "gpt2"


def to_gguf(tokenizer: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """GGUF metadata (tokens, types, merges, pre) of a tokenizer.json.

    Raises ModelError when the pre-tokenizer or normalizer has no equal in llama.cpp.
    """
    model = tokenizer["model"]
    vocabulary = vocabulary_of(tokenizer, vocab_size)
    pre = pre_tokenizers.detect(tokenizer.get("pre_tokenizer"))
    normalizer = tokenizer.get("normalizer")
    if normalizer and not (normalizer.get("type") == "NFC" and pre in pre_tokenizers.NORMALIZES_NFC):
        raise ModelError(
            f"tokenizer.json normalizes text by {normalizer.get('type')!r}, which llama.cpp does not do for this kind"
            " of tokenizer. Get a ready-made .gguf of this model and load that path."
        )
    return {
        "tokenizer.ggml.model": GGUF_MODEL,
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.token_type": vocabulary.types,
        # older files write a merge as "a b", newer ones as ["a", "b"]
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in model["merges"]],
        "tokenizer.ggml.add_space_prefix": False,
    }


def from_gguf(vocabulary: Vocabulary, merges: list[str], pre: str) -> dict[str, Any]:
    """tokenizer.json of a GGUF tokenizer of model "gpt2". Raises ModelError for an unknown `pre`."""
    name = pre_tokenizers.canonical(pre)
    return {
        "version": "1.0",
        "added_tokens": added_tokens(vocabulary),
        "normalizer": {"type": "NFC"} if name in pre_tokenizers.NORMALIZES_NFC else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers.CUTS[name]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": name in pre_tokenizers.IGNORE_MERGES,
            "vocab": vocabulary.ids,
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }
