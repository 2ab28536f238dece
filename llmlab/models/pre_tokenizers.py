"""How a byte-level BPE tokenizer cuts text before it merges: tokenizer.json's `pre_tokenizer`, GGUF's `pre` name.

One table serves both directions. A wrong name here gives other token ids for digits, accents and white space while
English text looks right, so an unknown cut is an error, never a guess. This file must not open files.

Source: src/llama-vocab.cpp of llama.cpp (libllama 0.5.0), llm_tokenizer_bpe: the regexes behind each name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlab.errors import ModelError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_TAIL}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_TAIL}"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": use_regex}


# GGUF name -> the cuts, in order, as tokenizer.json writes them
CUTS: Mapping[str, list[dict[str, Any]]] = {
    "smollm": [{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)],
    "gpt-2": [_byte_level(use_regex=True)],
    "llama-bpe": [_split(_LLAMA3), _byte_level(use_regex=False)],
    "qwen2": [_split(_QWEN2), _byte_level(use_regex=False)],
    "tekken": [_split(_TEKKEN), _byte_level(use_regex=False)],
}
# other names under which llama.cpp keeps the same regexes
_ALIASES = {
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    "gpt-2": ("phi-2", "olmo", "mpt", "jais", "mellum", "exaone4"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "dbrx", "smaug-bpe"),
    "qwen2": ("deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"),
}
# a word that is itself a token is taken whole, even where no merges lead to it
IGNORE_MERGES = ("llama-bpe", "tekken")
# names whose tokenizer.json normalizes text first; llama.cpp does not, so ids differ on text that is not NFC
NORMALIZES_NFC = ("qwen2",)


def detect(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """The GGUF name of tokenizer.json's `pre_tokenizer`.

    Raises ModelError when llama.cpp has no such cut, or llmlab does not know its name.
    """
    cuts = _as_list(pre_tokenizer)
    for name, known in CUTS.items():
        if [_essence(cut) for cut in cuts] == [_essence(cut) for cut in known]:
            return name
    raise ModelError(
        f"tokenizer.json cuts text by {[cut.get('type') for cut in cuts]}, which is none of: {', '.join(CUTS)}."
        " Get a ready-made .gguf of this model and load that path."
    )


def canonical(name: str) -> str:
    """The key of CUTS for a GGUF `pre` name. Raises ModelError for a name without a known cut."""
    for known in CUTS:
        if name == known or name in _ALIASES.get(known, ()):
            return known
    raise ModelError(
        f"Pre-tokenizer {name!r} of the .gguf has no tokenizer.json form here. Known: {', '.join(CUTS)}. Load the model"
        " folder that the file was made from."
    )


def _as_list(pre_tokenizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer.get("type") == "Sequence":
        return [part for cut in pre_tokenizer.get("pretokenizers", []) for part in _as_list(cut)]
    return [pre_tokenizer]


def _essence(cut: Mapping[str, Any]) -> dict[str, Any]:
    """What changes token ids; `trim_offsets` does not, and some fields may be left out of the file."""
    essence = {key: value for key, value in cut.items() if key != "trim_offsets"}
    return essence | {"use_regex": cut.get("use_regex", True)} if cut.get("type") == "ByteLevel" else essence
