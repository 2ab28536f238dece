"""The tokenizer of a model folder (tokenizer.json and its companions) as GGUF metadata, and the other way round.

Which kind of BPE it is: byte_bpe.py and sentencepiece_bpe.py. This file adds what they share: special tokens, whether a
prompt begins with BOS, the chat template. It must not know weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.errors import ModelError
from llmlab.models import byte_bpe, sentencepiece_bpe
from llmlab.models.config import read_json
from llmlab.models.gguf_file import GgufHeader
from llmlab.models.vocabulary import NORMAL, Vocabulary

# name in tokenizer_config.json -> GGUF key
_SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a conversation becomes a prompt: the Jinja template and the two tokens it may name ("" when there is"
    " none)."""

    template: str | None
    bos_token: str = ""
    eos_token: str = ""


def hf_chat_format(folder: Path) -> ChatFormat:
    """The chat format of a model folder; `template` is None for a base model."""
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    bos, eos = (_content(settings.get(name)) or "" for name in ("bos_token", "eos_token"))
    return ChatFormat(_hf_template(folder, settings), bos, eos)


def gguf_chat_format(header: GgufHeader) -> ChatFormat:
    """The chat format in GGUF metadata; `template` is None for a base model."""
    bos, eos = _SPECIAL["bos_token"], _SPECIAL["eos_token"]
    # reading the tokens costs 40 ms: only when one is named
    tokens = header["tokenizer.ggml.tokens"] if bos in header or eos in header else []

    def text(key: str) -> str:
        index = header.get(key, -1)
        return tokens[index] if 0 <= index < len(tokens) else ""

    return ChatFormat(header.get("tokenizer.chat_template"), text(bos), text(eos))


def gguf_metadata(folder: Path, vocab_size: int) -> dict[str, Any]:
    """GGUF metadata of the folder's tokenizer.

    Raises ModelError when tokenizer.json is missing, broken, or does what llama.cpp cannot.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} has no tokenizer.json. Make it with"
            " AutoTokenizer.from_pretrained(folder).save_pretrained(folder), or load a ready-made .gguf of this model."
        )
    tokenizer = read_json(path)
    try:
        if tokenizer["model"]["type"] != "BPE":
            raise ModelError(f"{path} is of type {tokenizer['model']['type']!r}; llmlab converts BPE. Load a .gguf.")
        kind = sentencepiece_bpe if sentencepiece_bpe.matches(tokenizer) else byte_bpe
        return kind.to_gguf(tokenizer, vocab_size) | _special_metadata(folder, tokenizer)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} lacks or garbles {error}. Fetch the file again.") from error


def _special_metadata(folder: Path, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    ids = dict(tokenizer["model"]["vocab"]) | {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    metadata: dict[str, Any] = {}
    for name, key in _SPECIAL.items():
        content = _content(settings.get(name))
        index = ids.get(content) if content else _configured_id(folder, name)
        if index is not None:
            metadata[key] = index
    starts, ends = _template_ends(tokenizer.get("post_processor"))
    metadata["tokenizer.ggml.add_bos_token"] = _adds(settings, "bos_token", starts)
    metadata["tokenizer.ggml.add_eos_token"] = _adds(settings, "eos_token", ends)
    template = _hf_template(folder, settings)
    return metadata | ({"tokenizer.chat_template": template} if template else {})


def _configured_id(folder: Path, name: str) -> int | None:
    """The id in config.json of a special token that the tokenizer's own files do not name (Qwen's BOS)."""
    index = read_json(folder / "config.json").get(f"{name}_id")
    return index if isinstance(index, int) and index >= 0 else None


def _adds(settings: Mapping[str, Any], name: str, written: set[str]) -> bool:
    """Whether the tokenizer itself adds that token to every prompt: a flag if there is one, else the post-processor."""
    flag = settings.get(f"add_{name}")
    return bool(flag) if flag is not None else _content(settings.get(name)) in written


def _template_ends(post_processor: Mapping[str, Any] | None) -> tuple[set[str], set[str]]:
    """Special tokens that a post-processor puts before and behind a single text."""
    if post_processor is None:
        return set(), set()
    if post_processor["type"] == "Sequence":
        parts = [_template_ends(part) for part in post_processor["processors"]]
        return set().union(*(start for start, _ in parts)), set().union(*(end for _, end in parts))
    pieces = post_processor.get("single", [])
    specials = [piece["SpecialToken"]["id"] if "SpecialToken" in piece else None for piece in pieces]
    text_at = specials.index(None) if None in specials else 0
    return {s for s in specials[:text_at] if s}, {s for s in specials[text_at + 1 :] if s}


def _hf_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones
        named = {entry["name"]: entry["template"] for entry in template}
        return named.get("default", next(iter(named.values()), None))
    return template


def _content(token: object) -> str | None:
    """The text of a special token, which is a string or an AddedToken object."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def write_hf(header: GgufHeader, folder: Path, max_model_len: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json of a GGUF file into `folder`.

    Raises ModelError for a tokenizer that is not BPE, or whose pre-tokenizer is unknown.
    """
    tokens = header["tokenizer.ggml.tokens"]
    vocabulary = Vocabulary(tokens, header.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens)))
    kind = header.get("tokenizer.ggml.model")
    if kind == byte_bpe.GGUF_MODEL:
        pre = header.get("tokenizer.ggml.pre", "default")
        tokenizer = byte_bpe.from_gguf(vocabulary, header["tokenizer.ggml.merges"], pre)
    elif kind == sentencepiece_bpe.GGUF_MODEL:
        prefix = header.get("tokenizer.ggml.add_space_prefix", True)
        tokenizer = sentencepiece_bpe.from_gguf(vocabulary, header["tokenizer.ggml.scores"], prefix)
    else:
        raise ModelError(
            f"{header.path}: tokenizer model {kind!r} has no tokenizer.json form here. Known: gpt2, llama. Load the"
            " model folder that the file was made from."
        )
    specials = {
        name: tokens[header[key]] for name, key in _SPECIAL.items() if header.get(key, len(tokens)) < len(tokens)
    }
    tokenizer["post_processor"] = _post_processor(header, specials, vocabulary.ids)
    settings = specials | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_model_len,
    }
    if "tokenizer.chat_template" in header:
        settings["chat_template"] = header["tokenizer.chat_template"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=2), encoding="utf-8")


def _post_processor(header: GgufHeader, specials: Mapping[str, str], ids: Mapping[str, int]) -> dict[str, Any] | None:
    """TemplateProcessing that adds BOS and EOS where llama.cpp would, None when it adds nothing."""
    default_bos = header.get("tokenizer.ggml.model") == sentencepiece_bpe.GGUF_MODEL
    bos = specials.get("bos_token") if header.get("tokenizer.ggml.add_bos_token", default_bos) else None
    eos = specials.get("eos_token") if header.get("tokenizer.ggml.add_eos_token", False) else None
    used = [token for token in (bos, eos) if token]
    if not used:
        return None

    def around(text: str, type_id: int) -> list[dict[str, Any]]:
        middle = {"Sequence": {"id": text, "type_id": type_id}}
        before = [{"SpecialToken": {"id": bos, "type_id": type_id}}] if bos else []
        behind = [{"SpecialToken": {"id": eos, "type_id": type_id}}] if eos else []
        return [*before, middle, *behind]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in used},
    }
