"""Text to token ids and back on the tokenizer that vLLM has loaded, with the ids and bytes that llama.cpp gives.

This file must not know requests or vLLM.
"""

from __future__ import annotations

import json
from typing import Any

from llmlab.errors import RequestError
from llmlab.models.token_names import byte_level, sentencepiece


class Vocabulary:
    """The tokens of a model, by id: their bytes, and their text where it is whole characters."""

    def __init__(self, tokenizer: Any, num_vocab: int) -> None:
        """`tokenizer`: a fast tokenizer of transformers. `num_vocab`: rows of logits, which may be more than tokens."""
        self._tokenizer, self.num_vocab = tokenizer, num_vocab
        added: dict[int, Any] = tokenizer.added_tokens_decoder
        self._special = frozenset(i for i, token in added.items() if token.special)
        self.bytes_of = _all_bytes(tokenizer, {i: token.content for i, token in added.items()}, num_vocab)
        # What a token adds to an answer; None when its bytes are no whole characters. Markers add nothing.
        self.text_of = [
            "" if i in self._special else _whole_characters(content) for i, content in enumerate(self.bytes_of)
        ]
        self.bos_token, self.eos_token = tokenizer.bos_token or "", tokenizer.eos_token or ""

    def tokenize(self, text: str) -> list[int]:
        """Chat markers in the text become their tokens; BOS is added where the tokenizer's files ask for it."""
        token_ids: list[int] = self._tokenizer.encode(text.encode("utf-8", "replace").decode())
        return token_ids

    def answer_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to an answer: none for a marker."""
        return b"" if token_id in self._special else self.bytes_of[token_id]

    def token_text(self, token_id: int) -> str:
        """How a token is written, markers too."""
        return self.bytes_of[token_id].decode("utf-8", "replace")

    def check(self, token_ids: list[int] | tuple[int, ...]) -> None:
        """Raises: RequestError for an id that the model does not have."""
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < self.num_vocab:
            wrong = next(i for i in token_ids if not 0 <= i < self.num_vocab)
            raise RequestError(f"token id {wrong} is not in the vocabulary of {self.num_vocab} tokens.")


def _all_bytes(tokenizer: Any, added: dict[int, str], num_vocab: int) -> list[bytes]:
    """The bytes of every id; b"" for rows of the model that no token uses."""
    names: list[str | None] = tokenizer.convert_ids_to_tokens(range(min(num_vocab, len(tokenizer))))
    read = byte_level if _is_byte_level(tokenizer) else sentencepiece
    contents = [b"" if name is None else read(name) for name in names]
    contents += [b""] * (num_vocab - len(contents))
    for token_id, content in added.items():  # written as they are, in both kinds
        if token_id < num_vocab:
            contents[token_id] = content.encode()
    return contents


def _is_byte_level(tokenizer: Any) -> bool:
    """Each byte of a token is written as one printable character (GPT-2's way)."""
    decoder = json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder") or {}
    return "ByteLevel" in [decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", []))]


def _whole_characters(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
