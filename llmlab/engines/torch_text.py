"""The tokenizer of the torch engine: text to token ids, and the bytes of each token.

This file must not know requests.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from llmlab.engines.vllm_text import Vocabulary
from llmlab.models.config import read_json


class Text(Vocabulary):
    """The vocabulary of a model folder, its chat template, and the tokens that end an answer."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        super().__init__(tokenizer, vocab_size)
        template = tokenizer.chat_template
        self.chat_template = template if isinstance(template, str) else None
        self.end_ids = _end_ids(folder, tokenizer.eos_token_id)


def _end_ids(folder: Path, of_tokenizer: int | None) -> frozenset[int]:
    """Those of the tokenizer, config.json and generation_config.json."""
    found = {of_tokenizer} if of_tokenizer is not None else set()
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            ids = read_json(folder / name).get("eos_token_id")
            found |= set(ids) if isinstance(ids, list) else {ids} if isinstance(ids, int) else set()
    return frozenset(found)
