"""The texts of answers that vLLM computes: tokens come as ids and leave with what became readable, up to a stop string.

Most tokens are whole characters of an answer without stop strings: they cost one look into a table, since a GPU makes
50,000 of them in a second. This file must not know vLLM or scheduling.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import force_setattr

from llmlab.engines.base import SamplingParams
from llmlab.engines.decode_step import DecodeStep
from llmlab.engines.streaming import StopMatcher, StreamDecoder
from llmlab.engines.vllm_text import Vocabulary
from llmlab.trace import Step


class _Writer:
    """One answer that cannot be looked up: a character is incomplete, or a stop string may come."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder, self._matcher, self.has_stop = StreamDecoder(), StopMatcher(stop), bool(stop)

    @property
    def is_needed(self) -> bool:
        return self.has_stop or not self._decoder.is_whole

    @property
    def matched(self) -> str | None:
        return self._matcher.matched

    def push(self, piece: bytes) -> str:
        return self._matcher.push(self._decoder.push(piece))

    def flush(self) -> str:
        return self._matcher.push(self._decoder.flush()) + self._matcher.flush()


class Answers:
    """All answers that are being written."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._writers: dict[str, _Writer] = {}

    def begin(self, request_id: str, params: SamplingParams) -> None:
        if params.stop:
            self._writers[request_id] = _Writer(params.stop)

    def end(self, request_id: str) -> None:
        self._writers.pop(request_id, None)

    @property
    def may_stop(self) -> bool:
        """A stop string may end one of them in any step."""
        return any(writer.has_stop for writer in self._writers.values())

    def write_columns(self, step: DecodeStep) -> None:
        """Fill in the texts of a step. No stop string may be waited for: see may_stop."""
        texts = self._vocabulary.text_of
        found = [texts[token_id] for token_id in step.token_ids]
        pairs = zip(step.request_ids, step.token_ids, found, strict=True)
        step.texts = [
            self._pushed(request_id, token_id) if text is None or request_id in self._writers else text
            for request_id, token_id, text in pairs
        ]

    def write(self, step: Step) -> dict[str, str]:
        """Fill in the texts of a step. request_id -> the stop string that ends its answer with this step.

        Tokens behind a stop string, which only speculation makes, are taken out of the step.
        """
        texts, writers, behind = self._vocabulary.text_of, self._writers, []
        for token in step.tokens:
            text = texts[token.token_id]
            if text is None or token.request_id in writers:
                text = self._slowly(token.request_id, token.token_id)
            if text is None:
                behind.append(id(token))
            elif text:
                # These records are nobody else's yet: to replace each one would cost as much as all the rest.
                force_setattr(token, "text", text)
            if token.top:
                force_setattr(token, "top", tuple((i, lp, self._vocabulary.token_text(i)) for i, lp, _ in token.top))
        if behind:
            force_setattr(step, "tokens", tuple(token for token in step.tokens if id(token) not in behind))
        if writers:
            self._flush(step)
        return {name: writer.matched for name, writer in writers.items() if writer.matched is not None}

    def _slowly(self, request_id: str, token_id: int) -> str | None:
        """What became readable with a token; None when its answer has ended before it."""
        writer = self._writers.get(request_id)
        return None if writer is not None and writer.matched is not None else self._pushed(request_id, token_id)

    def _pushed(self, request_id: str, token_id: int) -> str:
        writer = self._writers.get(request_id)
        if writer is None:
            writer = self._writers[request_id] = _Writer()
        text = writer.push(self._vocabulary.answer_bytes(token_id))
        if not writer.is_needed:
            del self._writers[request_id]
        return text

    def _flush(self, step: Step) -> None:
        """What was held back belongs to the last token of an answer that has ended without a stop string."""
        for request_id in step.finished:
            writer = self._writers.get(request_id)
            if writer is None or writer.matched is not None or not (left := writer.flush()):
                continue
            last = next((token for token in reversed(step.tokens) if token.request_id == request_id), None)
            if last is not None:
                force_setattr(last, "text", last.text + left)
