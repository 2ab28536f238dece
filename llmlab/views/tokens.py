"""One answer as the tokens view draws it: texts, probabilities, times; and one real distribution to sample from.

The figures are made here; static/tokens.js and static/sampler.js draw them. This file must not know widgets or engines.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from llmlab.engines.base import SamplingParams
from llmlab.engines.result import Result
from llmlab.errors import RequestError, TraceError, unknown
from llmlab.trace import Header, Token, Trace
from llmlab.views.page import frame
from llmlab.views.story import head_of

if TYPE_CHECKING:
    from llmlab.engines.handle import EngineHandle

# token ids -> the bytes of each, as EngineHandle.pieces() tells them
Pieces: TypeAlias = Callable[[Sequence[int]], list[bytes]]

NUM_ROWS = 6  # tokens listed in the panel; `others` is what they leave
NUM_BARS = 40  # tokens of the sampler whose texts are sent
# Where the sliders of the sampler stand at first: each filter cuts something.
FIRST_PARAMS = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.05}
_ENDS = {
    "stop": "ended by itself",
    "length": "cut at max_tokens",
    "abort": "stopped",
    "interrupted": "stopped",
    "error": "ended by an error",
    None: "still running",
}


def tokens_data(
    result: Result, *, pieces: Pieces | None = None, sampler: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What showTokens() of static/tokens.js draws. Times are those of the notebook.

    `pieces`: `handle.pieces`, for the bytes of tokens whose text is no whole character. `sampler`: see sampler_data().
    """
    return _data(result, "arrival in the notebook", pieces) | {"sampler": sampler}


def tokens_data_of(trace: Trace, request_id: str, *, pieces: Pieces | None = None) -> dict[str, Any]:
    """tokens_data() of one request of a trace. Times are those of the engine: the end of each token's step.

    Raises: TraceError for a request that the trace does not have.
    """
    requests = {request.request_id: request for request in trace.request_records}
    if request_id not in requests:
        raise TraceError(unknown("request", request_id, list(requests)))
    request = requests[request_id]
    come = [(step.t_s, token) for step in trace.step_records for token in step.tokens if token.request_id == request_id]
    result = Result(
        request_id=request_id,
        header=trace.header,
        prompt_text=request.prompt_text,
        prompt_token_ids=request.prompt_token_ids,
        tokens=tuple(token for _, token in come),
        token_times_s=tuple(t_s - request.arrival_s for t_s, _ in come),
        finish_reason=next((s.finished[request_id] for s in trace.step_records if request_id in s.finished), None),
        stopped_by=next((s.stopped_by[request_id] for s in trace.step_records if request_id in s.stopped_by), None),
        sampling=request.sampling,
    )
    return _data(result, "end of its step in the engine", pieces)


def sampler_data(
    handle: EngineHandle, prompt: str | Iterable[int] | Result, *, at: int = 0, **sampling: Any
) -> dict[str, Any]:
    """The next-token distribution of an idle engine, for showSampler() of static/sampler.js.

    `prompt`: token ids, a text as it is (no chat template), or an answer: then the distribution before its token `at`.
    All log probabilities travel, 4 bytes each: a temperature above 1 lifts the tail, and of a tail that was cut off
    nobody knows by how much. `sampling`: where the sliders stand at first.

    Raises: RequestError for a sampling value out of range, or when the answer is shorter than `at`.
    """
    import numpy as np

    params = FIRST_PARAMS if not sampling else {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | sampling
    SamplingParams.of(params)
    words, ids = _asked(handle, prompt, at)
    row = handle.logits(ids)[-1].astype(np.float64)
    high = row.max()
    logprobs = (row - high - np.log(np.exp(row - high).sum())).astype("<f4")
    best = [int(i) for i in np.lexsort((np.arange(len(row)), -logprobs))[:NUM_BARS]]
    texts = [piece.decode(errors="replace") for piece in handle.pieces(best)]
    return {
        "title": "Sampler",
        "subtitle": " · ".join([*_model_words(handle.header), f"after {len(ids)} tokens"]),
        "source": handle.header.source,
        "prompt": words,
        "at": at if isinstance(prompt, Result) else None,
        "logprobs": b64encode(logprobs.tobytes()).decode(),
        "texts": [[i, text] for i, text in zip(best, texts, strict=True)],
        "params": params,
    }


def tokens_page(data: dict[str, Any], *, title: str = "Tokens", theme: str = "light") -> str:
    """tokens_data() or sampler_data() as one HTML file: no kernel, no network."""
    return frame(data, module="tokens_page", title=title, theme=theme)


# ---- parts


def _asked(handle: EngineHandle, prompt: str | Iterable[int] | Result, at: int) -> tuple[str, list[int]]:
    """Text and token ids in front of the token that is to be drawn."""
    if isinstance(prompt, Result):
        if not 0 <= at <= len(prompt.tokens):
            raise RequestError(f"at is {at}; the answer has {_count(len(prompt.tokens), 'token')}, counted from 0.")
        ids = [*prompt.prompt_token_ids, *prompt.token_ids[:at]]
        return (prompt.prompt_text or "") + "".join(token.text for token in prompt.tokens[:at]), ids
    if isinstance(prompt, str):
        return prompt, handle.tokenize(prompt)
    ids = [int(i) for i in prompt]
    return handle.detokenize(ids), ids


def _data(result: Result, timed: str, pieces: Pieces | None) -> dict[str, Any]:
    times_ms = [1000 * t for t in result.token_times_s]
    gaps_ms = [after - before for before, after in zip([0.0, *times_ms], times_ms, strict=False)]
    told = [None] * len(result.tokens) if pieces is None else pieces(list(result.token_ids))
    # Of a result that still grows, the last token's time may come a moment later than the token.
    count = min(len(result.tokens), len(gaps_ms))
    tokens = []
    for i, token in enumerate(result.tokens[:count]):
        follows_whole = i == 0 or result.tokens[i - 1].text != ""
        tokens.append(_token(token, told[i], follows_whole) | {"t_s": times_ms[i] / 1000, "gap_ms": gaps_ms[i]})
    return {
        "title": "Tokens",
        "subtitle": " · ".join(_words(result)),
        "source": result.header.source,
        "prompt": result.prompt_text,
        "num_prompt_tokens": result.num_prompt_tokens,
        "finish_reason": result.finish_reason,
        "error": result.error,
        "timed": timed,
        "median_gap_ms": median(gaps_ms[1:]) if len(gaps_ms) > 1 else None,
        "tokens": tokens,
    }


def _token(token: Token, told: bytes | None, follows_whole: bool) -> dict[str, Any]:
    piece = told if told is not None else _bytes_of(token.text, follows_whole)
    others, entropy_bits = _rest(token)
    return {
        "id": token.token_id,
        "text": token.text,
        "mark": "" if token.text else mark_of(token.token_id, piece),
        "logprob": token.logprob,
        "top": [list(entry) for entry in token.top if math.isfinite(entry[1])],
        "bytes": None if piece is None else piece.hex(" "),
        "others": others,
        "entropy_bits": entropy_bits,
    }


def mark_of(token_id: int, piece: bytes | None) -> str:
    """What stands for a token without text: the marker that it is, the bytes of half a character, or its id.

    >>> mark_of(2, b"<|im_end|>"), mark_of(172, bytes([0xF0, 0x9F])), mark_of(172, None)
    ('<|im_end|>', 'F0 9F', 'id 172')
    """
    if not piece:
        return f"id {token_id}"
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece.hex(" ").upper()


def _bytes_of(text: str, follows_whole: bool) -> bytes | None:
    """The bytes of a token, from its text; None where they may be part of a character that began before it."""
    return text.encode() if text and follows_whole and "\ufffd" not in text else None


def _rest(token: Token) -> tuple[float | None, float | None]:
    """What the tokens of the panel leave, and the entropy in bits, at least: all unknown tokens count as one.

    >>> _rest(Token(request_id="r1", token_id=1, logprob=math.log(0.5), top=((1, math.log(0.5), "a"),)))
    (0.5, 1.0)
    """
    if token.logprob is None:
        return None, None
    chosen = {token.token_id: token.logprob}
    listed = {i: logprob for i, logprob, _ in token.top[:NUM_ROWS]} | chosen
    known = [math.exp(logprob) for logprob in ({i: lp for i, lp, _ in token.top} | chosen).values()]
    shares = [share for share in (*known, 1 - sum(known)) if share > 0]
    entropy_bits = max(0.0, -sum(share * math.log2(share) for share in shares))
    return max(0.0, 1 - sum(math.exp(logprob) for logprob in listed.values())), entropy_bits


def _model_words(header: Header) -> list[str]:
    head = head_of(header)
    return [word for word in (head["engine"], head["model"], head["dtype"], head["device"]) if word]


def _words(result: Result) -> list[str]:
    """What stands beside the title."""
    end = f"ended by {result.stopped_by!r}" if result.stopped_by else _ENDS.get(result.finish_reason, "")
    counts = f"{_count(result.num_prompt_tokens, 'prompt token')}, {result.num_output_tokens} out"
    has_logprobs = any(token.logprob is not None for token in result.tokens)
    probabilities = f"probabilities {result.header.source}" if has_logprobs else ""
    words = [*_model_words(result.header), sampling_words(result.sampling), counts, end, probabilities]
    return [word for word in words if word]


def sampling_words(sampling: Mapping[str, Any]) -> str:
    """How tokens were drawn, shortly; "" when nobody told.

    >>> sampling_words({"temperature": 0}), sampling_words({"temperature": 0.8, "top_k": 20, "top_p": 1.0, "seed": 3})
    ('greedy', 'temperature 0.8, top_k 20, seed 3')
    """
    if "temperature" not in sampling:
        return ""
    if not sampling["temperature"]:
        return "greedy"
    off = {"temperature": None, "top_k": 0, "top_p": 1, "min_p": 0, "seed": None}
    return ", ".join(f"{name} {sampling[name]}" for name, value in off.items() if sampling.get(name, value) != value)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
