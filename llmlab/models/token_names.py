"""How the files of a tokenizer write a token, and which bytes that is.

This file must not know tokenizers or engines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def byte_level(name: str) -> bytes:
    """Each byte is one printable character (GPT-2's way); an added token with others in it stands as it is.

    >>> byte_level("Ġsky"), byte_level("Ã"), byte_level("<｜end｜>").decode()
    (b' sky', b'\\xc3', '<｜end｜>')
    """
    if not _BYTE_OF.keys() >= set(name):
        return name.encode()
    return bytes(_BYTE_OF[character] for character in name)


def sentencepiece(name: str) -> bytes:
    """A space is U+2581, a byte that is no character <0x..>.

    >>> sentencepiece("▁sky"), sentencepiece("<0xC3>")
    (b' sky', b'\\xc3')
    """
    if byte := _BYTE.fullmatch(name):
        return bytes([int(byte[1], 16)])
    return name.replace("▁", " ").encode()


def contents_of(names: Sequence[str], text: str) -> list[bytes] | None:
    """The bytes of tokens that are `text` together, in whichever of both ways they are written; None: in another.

    >>> contents_of(["The", "Ġsky"], "The sky"), contents_of(["▁The", "▁sky"], "The sky"), contents_of(["x"], "y")
    ([b'The', b' sky'], [b' The', b' sky'], None)
    """
    for read in (byte_level, sentencepiece):
        contents = [read(name) for name in names]
        # sentencepiece begins a text with a space that nobody wrote
        if b"".join(contents).decode(errors="replace").strip() == text.strip():
            return contents
    return None


def _bytes_by_character() -> dict[str, int]:
    """Source: bytes_to_unicode() of GPT-2: printable bytes stand for themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _bytes_by_character()
