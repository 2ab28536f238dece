"""The tokens of a model, by id, with llama.cpp's token types, and the special ones among them.

This file must not know how text is cut or merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmlab.errors import ModelError

# Source: gguf.constants.TokenType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`tokens[i]` is the text of token i (byte-level or with SentencePiece spaces), `types[i]` its kind."""

    tokens: list[str]
    types: list[int]

    @property
    def ids(self) -> dict[str, int]:
        """Text -> id of every token that is in use."""
        return {token: index for index, token in enumerate(self.tokens) if self.types[index] != UNUSED}


def vocabulary_of(tokenizer: Mapping[str, Any], vocab_size: int) -> Vocabulary:
    """The vocabulary of a tokenizer.json, filled up to `vocab_size` rows with [PAD<id>].

    Raises ModelError when the tokenizer has more tokens than the model has rows.
    """
    tokens: list[str | None] = [None] * vocab_size
    types = [NORMAL] * vocab_size
    added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", [])}
    for token, index in {**tokenizer["model"]["vocab"], **added}.items():
        if index >= vocab_size:
            raise ModelError(
                f"tokenizer.json has token {token!r} with id {index}, the model has {vocab_size} rows. Tokenizer and"
                " weights belong to different models."
            )
        tokens[index] = token
    for entry in tokenizer.get("added_tokens", []):
        types[entry["id"]] = CONTROL if entry["special"] else USER_DEFINED
    for index, maybe in enumerate(tokens):
        if maybe is None:
            types[index] = UNUSED
    # llama.cpp aborts on two tokens of the same text
    return Vocabulary([f"[PAD{i}]" if token is None else token for i, token in enumerate(tokens)], types)


def added_tokens(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """tokenizer.json's `added_tokens`: those that are found in text before it is cut."""
    return [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
