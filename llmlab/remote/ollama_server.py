"""OllamaServer: a server with Ollama's own API, asked through the official client.

Ollama tells no token ids, and how long it took to load, to read the prompt and to answer: those figures are `reported`.
This file must not know handles or threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import ollama

from llmlab.engines.messages import Prompt
from llmlab.errors import EngineDied, EngineError, LlmlabError, RequestError
from llmlab.language import tr
from llmlab.remote import failures
from llmlab.remote.backend import About, Arrival, Piece
from llmlab.remote.keys import Key
from llmlab.trace import Capabilities

# SamplingParams -> Ollama's options
OPTIONS = {
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "seed": "seed",
    "max_tokens": "num_predict", "stop": "stop",
}  # fmt: skip
# What it would do by itself: at the temperature that is asked for, and nothing else.
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
# What a response tells of itself at its end, and how: counts as they are, durations in nanoseconds.
COUNTS = {"prompt_eval_count": "num_prompt_tokens", "eval_count": "num_output_tokens"}
DURATIONS = {
    "load_duration": "load_s", "prompt_eval_duration": "prompt_s", "eval_duration": "eval_s",
    "total_duration": "total_s",
}  # fmt: skip
NUM_TRIES, NOT_FOUND = 3, 404
Progress = Callable[[str, int, int], None]


class OllamaServer:
    """Call look() first. `keep_alive`: how long the model stays loaded afterwards; `ctx`: its context, in tokens."""

    def __init__(
        self, url: str, key: Key, timeout_s: float, *, keep_alive: str | None = None, ctx: int | None = None
    ) -> None:
        self.url, self._key, self._timeout_s = url, key, timeout_s
        self._keep_alive, self._ctx = keep_alive, ctx
        headers = {"Authorization": f"Bearer {key.secret}"} if key else {}
        self._client = ollama.AsyncClient(url, timeout=timeout_s, headers=headers)
        self.about = About("ollama", "", "", None, None, Capabilities(), False)

    async def look(self, model: str | None, *, pull: bool = False, progress: Progress | None = None) -> None:
        """Which models it has; fetches a missing one with `pull`. Raises: EngineError when there is none such."""
        try:
            names = await self._first_models()
            if model is not None and pull and _found(model, names) is None:
                await self.pull(model, progress)
                names = await self.models()
            name = _found(model, names)
            if name is None:
                raise EngineError(self._lacks(model, names))
            shown = await self._client.show(name)
            version = await self._version()
        except Exception as error:
            raise self._told(error) from None
        info = dict(shown.modelinfo or {})
        limits = [int(value) for field, value in info.items() if field.endswith(".context_length")]
        quant = shown.details.quantization_level if shown.details else None
        capabilities = Capabilities(steps=False, token_ids=False, logprobs=True, json_schema=True)
        self.about = About("ollama", version, name, self._ctx or next(iter(limits), None), quant, capabilities, False)

    async def models(self) -> list[str]:
        """The models that are there."""
        return [entry.model for entry in (await self._client.list()).models if entry.model]

    async def pull(self, model: str, progress: Progress | None) -> None:
        """Let the server fetch a model. `progress`: told what it does, and how many bytes of how many it has."""
        async for news in await self._client.pull(model, stream=True):
            if progress is not None:
                progress(news.status or "", news.completed or 0, news.total or 0)

    async def ask(self, prompt: Prompt) -> AsyncIterator[Arrival]:
        """See Backend."""
        stream, num_pieces, is_over = await self._begin(prompt), 0, False
        try:
            yield Arrival()  # it was accepted
            async for part in stream:
                arrival = _arrival(part)
                num_pieces += len(arrival.pieces)
                is_over = is_over or arrival.finish_reason is not None
                yield arrival
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            raise self._refusal(error) if not num_pieces else self._broken(num_pieces, error) from None
        finally:
            await stream.aclose()
        if not is_over:
            raise self._broken(num_pieces, None)

    async def tokenize(self, text: str) -> list[int]:
        raise self._no_tokens()

    async def pieces(self, token_ids: list[int]) -> list[bytes]:
        raise self._no_tokens()

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    # ---- asking

    async def _begin(self, prompt: Prompt) -> Any:
        fields = self._fields(prompt)
        for attempt in range(1, NUM_TRIES + 1):
            try:
                if prompt.messages is not None:
                    return await self._client.chat(messages=list(prompt.messages), stream=True, **fields)
                return await self._client.generate(prompt=prompt.text or "", raw=True, stream=True, **fields)
            except ConnectionError as error:
                if attempt == NUM_TRIES:
                    raise self._told(error) from None
                await asyncio.sleep(0.2 * attempt)
        raise AssertionError("unreachable")

    def _fields(self, prompt: Prompt) -> dict[str, Any]:
        """Keyword arguments of the client. Raises: RequestError for what Ollama cannot do."""
        if prompt.token_ids is not None:
            raise RequestError(
                tr("The server at {url} takes texts, not token ids: Ollama tokenizes them itself.", url=self.url)
            )
        given = prompt.sampling
        sampling = {name: value for name, value in given.items() if value or (name in OPTIONS and value is not None)}
        options: dict[str, Any] = OFF | {"temperature": 1.0}
        options |= {theirs: sampling.pop(ours) for ours, theirs in OPTIONS.items() if ours in sampling}
        schema = sampling.pop("json_schema", None)
        sampling.pop("logprobs", None)
        if sampling:
            name = next(iter(sampling))
            raise RequestError(tr("Ollama takes no {name}. Leave it out, or load the model here.", name=name))
        if self._ctx is not None:
            options["num_ctx"] = self._ctx
        logprobs = prompt.sampling.get("logprobs")
        asked = {"logprobs": True, "top_logprobs": logprobs} if logprobs is not None else {}
        kept = {"keep_alive": self._keep_alive} if self._keep_alive is not None else {}
        return {"model": self.about.model, "options": options, "format": schema, **asked, **kept}

    async def _version(self) -> str:
        """The client has no call for it."""
        try:
            reply = await self._client._request_raw("GET", "/api/version")  # type: ignore[no-untyped-call]
            return str(reply.json().get("version", ""))
        except Exception:
            return ""

    # ---- errors

    def _lacks(self, model: str | None, names: list[str]) -> str:
        fetch = f"%llm connect {self.url} --kind ollama --model {model or 'NAME'} --pull"
        return failures.lacks(self.url, model, names) + tr(" Let it fetch one: `{line}`.", line=fetch)

    def _no_tokens(self) -> EngineError:
        return EngineError(tr("The server at {url} does not tell its tokens: Ollama has no such call.", url=self.url))

    def _broken(self, num_pieces: int, error: Exception | None) -> LlmlabError:
        return failures.broken_off(self.url, self._key, num_pieces, None if error is None else _sentence(error))

    def _refusal(self, error: Exception) -> LlmlabError:
        """An error before the first token: the client tells of a refusal when the stream is first read."""
        if isinstance(error, ollama.ResponseError | ConnectionError | LlmlabError):
            return self._told(error)
        return self._broken(0, error)

    async def _first_models(self) -> list[str]:
        """Raises: EngineError where another kind of server answers."""
        try:
            return await self.models()
        except ollama.ResponseError as error:
            if error.status_code != NOT_FOUND:
                raise
            raise EngineError(
                tr(
                    "{url} has no list of models at /api/tags: it is no Ollama. For OpenAI's API leave `--kind ollama` "
                    "out.",
                    url=self.url,
                )
            ) from None

    def _told(self, error: Exception) -> LlmlabError:
        said = self._key.hide(_sentence(error))
        match error:
            case LlmlabError():
                return error
            case ConnectionError():
                return EngineDied(
                    tr("No Ollama at {url}. Start it (`ollama serve`), or use `-e llamacpp`.", url=self.url)
                )
            case ollama.ResponseError(status_code=401 | 403):
                line = f"%llm connect {self.url} --kind ollama --api-key-env VARIABLE"
                return failures.no_key(self.url, line, had_one=bool(self._key))
            case ollama.ResponseError() if 400 <= error.status_code < 500:
                return failures.refused(self.url, said)
        if type(error).__name__.endswith("Timeout"):
            return failures.late(self.url, self._timeout_s)
        return failures.failed(self.url, said)


def _found(model: str | None, names: list[str]) -> str | None:
    """The first model, or the one of that name. Names end in a tag, which may be left out when it is "latest"."""
    if model is None:
        return next(iter(names), None)
    return next((name for name in names if name in (model, f"{model}:latest")), None)


def _arrival(part: Any) -> Arrival:
    text = part.message.content if hasattr(part, "message") else part.response
    entries = part.logprobs or ()
    if entries and "".join(entry.token for entry in entries) == (text or ""):
        pieces = tuple(
            Piece(
                entry.token, None, entry.logprob,
                tuple((None, one.logprob, one.token) for one in entry.top_logprobs or ()),
            )
            for entry in entries
        )  # fmt: skip
    else:
        pieces = (Piece(text),) if text else ()
    if not part.done:
        return Arrival(pieces)
    counts = {ours: getattr(part, theirs) for theirs, ours in COUNTS.items()}
    times = {ours: getattr(part, theirs) for theirs, ours in DURATIONS.items()}
    reported = {name: count for name, count in counts.items() if count is not None}
    reported |= {name: ns / 1e9 for name, ns in times.items() if ns is not None}
    return Arrival(pieces, (), "length" if part.done_reason == "length" else "stop", reported)


def _sentence(error: Exception) -> str:
    return failures.one_line(str(error) or type(error).__name__)
