"""From tokens to text while they come: whole characters only, nothing of a stop string, and why an answer ends.

This file must not know any engine.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from llmlab.engines.base import SamplingParams
from llmlab.trace import FinishReason


class StreamDecoder:
    """Bytes of tokens in, whole characters out. For valid UTF-8, all pushes and flush() together are the text.

    >>> d = StreamDecoder(); [d.push(b"\\xf0\\x9f"), d.push(b"\\x98"), d.push(b"\\x80")]
    ['', '', '😀']
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, piece: bytes) -> str:
        return self._decoder.decode(piece)

    @property
    def is_whole(self) -> bool:
        """No character is incomplete."""
        return not self._decoder.getstate()[0]

    def flush(self) -> str:
        """What is left; one U+FFFD when the text ends inside a character."""
        return self._decoder.decode(b"", final=True)


class StopMatcher:
    """Text in, text out, up to a stop string. Holds back only what may still become one.

    >>> m = StopMatcher(["END"]); [m.push("the E"), m.push("N"), m.push("ough"), m.matched]
    ['the ', '', 'ENough', None]
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """What can be shown now. After a match: the text before it, then nothing more."""
        if not self._stop:
            return text
        self._held += text
        found = [(self._held.find(stop), stop) for stop in self._stop if stop in self._held]
        if found:
            at, self.matched = min(found)
            shown, self._held = self._held[:at], ""
            return shown
        keep = max(_overlap(self._held, stop) for stop in self._stop)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back: the answer ended without the stop string."""
        shown, self._held = self._held, ""
        return shown


class Answer:
    """The text of one request as it grows, until it ends."""

    def __init__(self, params: SamplingParams, max_output_tokens: int) -> None:
        self._decoder, self._stop = StreamDecoder(), StopMatcher(params.stop)
        self._tokens_left = min(params.max_tokens, max_output_tokens)
        self._ignore_eos, self._watches = params.ignore_eos, bool(params.stop)

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended it."""
        return self._stop.matched

    def push(self, piece: bytes, *, is_end: bool) -> tuple[str, FinishReason | None]:
        """The bytes of the next token, b"" for a marker: what can be shown now, and why the answer ends, if it does."""
        text = self._decoder.push(piece)
        self._tokens_left -= 1
        if self._watches:
            text = self._stop.push(text)
            if self._stop.matched is not None:
                return text, "stop"
        if is_end and not self._ignore_eos:
            return text + self._flush(), "stop"
        if not self._tokens_left:
            return text + self._flush(), "length"
        return text, None

    def _flush(self) -> str:
        return self._stop.push(self._decoder.flush()) + self._stop.flush()


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of text that begins stop."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
