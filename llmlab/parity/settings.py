"""What two engines say of themselves, and what goes into them: the lines of the manifest that need no logits.

This file must not know distances or divergences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from llmlab.engines.handle import EngineHandle
from llmlab.engines.precision import formats
from llmlab.engines.result import Result
from llmlab.parity.case import first_difference
from llmlab.parity.manifest import Row, row
from llmlab.parity.probes import Probe

TEXT, NUMBERS, ROOM = "text in", "numbers", "room"
# "é" as one character, and as "e" and an accent: some tokenizers compose (NFC), others keep what was written.
COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


def text_rows(
    a: EngineHandle, b: EngineHandle, probes: Sequence[Probe], results: tuple[Sequence[Result], Sequence[Result]]
) -> Iterator[Row]:
    """What becomes of a prompt on its way in: template, tokens, markers."""
    yield _prompt_tokens(probes, results)
    chats = a.chat_format(), b.chat_format()
    yield row(TEXT, "chat template", (_digest(chat.template) for chat in chats))
    yield row(TEXT, "BOS", (_bos(handle, chat.bos_token) for handle, chat in zip((a, b), chats, strict=True)))
    yield row(TEXT, "EOS", (chat.eos_token or "none" for chat in chats))
    yield row(TEXT, "accents", (_accents(a), _accents(b)), is_required=False)


def _prompt_tokens(probes: Sequence[Probe], results: tuple[Sequence[Result], Sequence[Result]]) -> Row:
    sides = [[result.prompt_token_ids for result in side] for side in results]
    one, other = (f"{sum(map(len, side))} in {len(side)} prompts" for side in sides)
    for probe, a, b in zip(probes, *sides, strict=True):
        at = first_difference(a, b)
        if at is not None:
            return Row(TEXT, "prompt token ids", one, other, "differs", f"first in {probe.name!r}, at token {at}")
    return Row(TEXT, "prompt token ids", one, other, "equal")


def _digest(template: str | None) -> str:
    if template is None:
        return "none"
    return f"{len(template)} characters, sha256 {hashlib.sha256(template.encode()).hexdigest()[:8]}"


def _bos(handle: EngineHandle, bos_token: str) -> str:
    """The BOS token, and whether the tokenizer puts it before a text by itself."""
    if not bos_token:
        return "none"
    first = handle.pieces(handle.tokenize("Hello")[:1])[0]
    return f"{bos_token}, {'added' if first == bos_token.encode() else 'not added'} by the tokenizer"


def _accents(handle: EngineHandle) -> str:
    is_composing = handle.tokenize(COMPOSED) == handle.tokenize(DECOMPOSED)
    return "composed (NFC)" if is_composing else "kept as written"


def format_rows(a: EngineHandle, b: EngineHandle) -> Iterator[Row]:
    """Which numbers the engines compute with. Formats may differ: they choose the bound for the logits."""
    headers = a.header, b.header
    sources = [header.fingerprint for header in headers]
    shown = (source and f"{source[:19]}…" for source in sources)
    yield row(NUMBERS, "weights made from", shown, is_required=None not in sources)
    yield row(NUMBERS, "weights stored in", (formats(header)[0] for header in headers), is_required=False)
    yield row(NUMBERS, "computed, KV in", (formats(header)[1] for header in headers), is_required=False)
    if a.config.lora or b.config.lora:
        yield row(NUMBERS, "LoRA adapter", ("loaded" if handle.config.lora else "none" for handle in (a, b)))


def room_rows(a: EngineHandle, b: EngineHandle) -> Iterator[Row]:
    """What answers alike and runs otherwise."""
    headers = a.header, b.header
    lengths = (header.max_model_len for header in headers)
    yield row(
        ROOM, "longest sequence", (f"{length} tokens" if length else None for length in lengths), is_required=False
    )
    yield row(ROOM, "seed", (str(handle.config.seed) for handle in (a, b)), is_required=False)
    yield row(ROOM, "device", (header.device for header in headers), is_required=False)
    threads = (header.num_threads for header in headers)
    yield row(ROOM, "threads", (str(num) if num else None for num in threads), is_required=False)
