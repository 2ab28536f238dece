"""OpenaiServer: a server with OpenAI's API, asked through the official client.

vLLM, llama-server and llmlab's own take more than OpenAI's fields and tell token ids: EXTRAS says who takes what.
This file must not know handles or threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import httpx2
import openai

from llmlab.engines.messages import Prompt
from llmlab.errors import EngineDied, EngineError, LlmlabError, RequestError
from llmlab.language import tr
from llmlab.remote import failures
from llmlab.remote.backend import About, Arrival, Piece
from llmlab.remote.keys import Key
from llmlab.remote.pieces import Pieces
from llmlab.trace import Capabilities, FinishReason

# who made the server, by `owned_by` of its models -> sampling fields it takes beyond OpenAI's
EXTRAS: dict[str, frozenset[str]] = {
    "vllm": frozenset({"top_k", "min_p", "ignore_eos", "regex", "choice", "grammar"}),
    "llmlab": frozenset({"top_k", "min_p", "ignore_eos", "regex", "choice", "grammar"}),
    "llamacpp": frozenset({"top_k", "min_p", "ignore_eos", "grammar"}),
}
# These tell the ids of the tokens of prompt and answer to who asks (vLLM's return_token_ids).
TELLS_IDS = ("vllm", "llmlab")
NEUTRAL = {"top_k": 0, "min_p": 0.0, "ignore_eos": False}
# These do something of their own to who asks for nothing: llama-server cuts the unlikely, vLLM does what the model's
# generation_config.json says. With us it is off, as on every other engine.
OFF: dict[str, dict[str, Any]] = {
    "vllm": {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"top_k": 0, "top_p": 1.0, "min_p": 0.0},
}
CONNECT_S, NUM_TRIES, MAX_WAIT_S = 5.0, 3, 30.0
KEPT_S = 3.0  # an idle connection: shorter than any server keeps one (uvicorn 5 s), so that no request meets its end
# A client library wants some key even where the server wants none.
NO_KEY = "none"


class OpenaiServer:
    """`url` without /v1. `mark` ends the name under which each request is sent: see whose.py."""

    def __init__(self, url: str, key: Key, timeout_s: float, *, mark: str = "") -> None:
        self.url, self._key, self._timeout_s, self._mark = url, key, timeout_s, mark
        limits = openai.Timeout(timeout_s, connect=CONNECT_S)
        # Its own retries would ask again after an answer has begun to be computed.
        self._client = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key=key.secret or NO_KEY, timeout=limits, max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(limits=httpx2.Limits(keepalive_expiry=KEPT_S)),
        )  # fmt: skip
        self.about = About("openai", "", "", None, None, Capabilities(), False)
        self._maker, self._pieces = "openai", Pieces(self._look_up)

    async def look(self, model: str | None) -> None:
        """Which models it has, and who made it. Raises: EngineError when there is no such server or model."""
        try:
            models = [entry async for entry in self._client.models.list()]
            names = [entry.id for entry in models]
        except openai.NotFoundError:
            raise failures.no_api(self.url, "HTTP 404") from None
        except openai.OpenAIError as error:
            raise self._told(error) from None
        except Exception as error:  # the client takes what it gets for a list of models, a page for people too
            raise failures.no_api(self.url, type(error).__name__) from None
        found = next((entry for entry in models if model in (None, entry.id)), None)
        if found is None:
            raise EngineError(failures.lacks(self.url, model, names))
        self._maker = found.owned_by if found.owned_by in EXTRAS else "openai"
        more = found.model_extra or {}
        tells_ids = self._maker in (*TELLS_IDS, "llamacpp")
        capabilities = Capabilities(steps=False, token_ids=tells_ids, logprobs=True, json_schema=True)
        max_model_len = more.get("max_model_len") or (more.get("meta") or {}).get("n_ctx_train")
        self.about = About(
            str(more.get("engine") or self._maker), await self._version(), found.id, max_model_len, more.get("quant"),
            capabilities, tells_ids,
        )  # fmt: skip

    async def ask(self, prompt: Prompt) -> AsyncIterator[Arrival]:
        """See Backend."""
        stream = await self._begin(prompt)
        ended: Arrival | None = None
        num_pieces, num_top = 0, int(prompt.sampling.get("logprobs") or 0)
        try:
            yield Arrival()  # it was accepted
            async for chunk in stream:
                arrival = self._arrival(chunk, num_top)
                num_pieces += len(arrival.pieces)
                if arrival.finish_reason is not None:  # the usage comes after it
                    ended = arrival
                elif ended is not None:
                    ended = replace(ended, reported={**ended.reported, **arrival.reported})
                elif arrival.pieces or arrival.prompt_token_ids:
                    yield arrival
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            raise self._broken(num_pieces, error) from None
        finally:
            await stream.close()
        if ended is None:
            raise self._broken(num_pieces, None)
        yield ended

    async def tokenize(self, text: str) -> list[int]:
        """vLLM, llama-server and llmlab's have a route for it. Raises: EngineError where there is none."""
        asked = {"content": text, "add_special": True} if self._maker == "llamacpp" else {"prompt": text}
        return [int(i) for i in (await self._look_up("tokenize", asked))["tokens"]]

    async def pieces(self, token_ids: list[int]) -> list[bytes]:
        """vLLM and llmlab's server tell them. Raises: EngineError where the server does not."""
        if self._maker not in TELLS_IDS:
            raise EngineError(tr("The server at {url} does not tell what a token is made of.", url=self.url))
        return await self._pieces.of(token_ids)

    async def close(self) -> None:
        await self._client.close()

    # ---- asking

    async def _look_up(self, route: str, asked: dict[str, Any]) -> dict[str, Any]:
        """A question about the vocabulary. Raises: EngineError where the server has no such route."""
        body = {**asked, "model": self.about.model}
        try:
            return cast(
                dict[str, Any], await self._client.post(f"{self.url}/{route}", body=body, cast_to=dict[str, Any])
            )
        except openai.NotFoundError:
            raise EngineError(
                tr("The server at {url} does not tell its tokens (it has no /{route}).", url=self.url, route=route)
            ) from None
        except Exception as error:
            raise self._told(error) from None

    async def _begin(self, prompt: Prompt) -> Any:
        """The stream of an answer. Tried again where the server cannot have begun: no connection, or 429."""
        fields, messages = self._fields(prompt), cast(Any, prompt.messages)
        for attempt in range(1, NUM_TRIES + 1):
            try:
                if messages is not None:
                    return await self._client.chat.completions.create(messages=list(messages), **fields)
                given = prompt.text if prompt.token_ids is None else list(prompt.token_ids)
                return await self._client.completions.create(prompt=given, **fields)
            except (openai.RateLimitError, openai.APIConnectionError) as error:
                wait_s = _wait_s(error, attempt)
                if wait_s is None or attempt == NUM_TRIES:
                    raise self._told(error) from None
                await asyncio.sleep(wait_s)
            except Exception as error:
                raise self._told(error) from None
        raise AssertionError("unreachable")

    def _fields(self, prompt: Prompt) -> dict[str, Any]:
        """Keyword arguments of the client. Raises: RequestError for what this server cannot do."""
        sampling = {name: value for name, value in prompt.sampling.items() if value is not None}
        extra: dict[str, Any] = {}
        for name in ("top_k", "min_p", "ignore_eos", "grammar", "regex", "choice", "lora"):
            value = sampling.pop(name, None)
            if value is None or value == NEUTRAL.get(name):
                continue
            if name not in EXTRAS.get(self._maker, ()):
                raise RequestError(
                    tr(
                        "The server at {url} takes no {name}. Leave it out, or load the model here.",
                        url=self.url,
                        name=name,
                    )
                )
            extra[name] = value
        extra = {name: off for name, off in OFF.get(self._maker, {}).items() if name not in sampling} | extra
        if self._maker in TELLS_IDS:
            forms = {name: extra.pop(name) for name in ("grammar", "regex", "choice") if name in extra}
            extra |= {"structured_outputs": forms} if forms else {}
            extra["return_token_ids"] = True
            if prompt.salt:
                extra["cache_salt"] = prompt.salt
        elif self._maker == "llamacpp" and prompt.salt:
            extra["cache_prompt"] = False
        schema, logprobs = sampling.pop("json_schema", None), sampling.pop("logprobs", None)
        if schema is not None:
            sampling["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        if logprobs is not None or self._maker not in TELLS_IDS:  # else nobody says where a token ends
            # llama-server takes 0 for none at all
            num_top = max(1, logprobs or 0) if self._maker == "llamacpp" else logprobs or 0
            is_chat = prompt.messages is not None
            sampling |= {"logprobs": True, "top_logprobs": num_top} if is_chat else {"logprobs": num_top}
        if not sampling.get("stop"):
            sampling.pop("stop", None)
        if self._maker == "openai" and prompt.messages is not None:
            sampling["max_completion_tokens"] = sampling.pop("max_tokens", None)
        if prompt.user:
            sampling["user"] = prompt.user
        return {
            **sampling, "model": self.about.model, "stream": True, "stream_options": {"include_usage": True},
            "extra_body": extra, "extra_headers": {"X-Request-Id": f"{prompt.request_id}{self._mark}"},
        }  # fmt: skip

    # ---- what comes

    def _arrival(self, chunk: Any, num_top: int) -> Arrival:
        """`num_top`: how many alternatives of a token were asked for."""
        more = chunk.model_extra or {}
        reported = {}
        if chunk.usage is not None:
            reported = {
                "num_prompt_tokens": chunk.usage.prompt_tokens,
                "num_output_tokens": chunk.usage.completion_tokens,
            }
        if not chunk.choices:
            return Arrival(reported=reported)
        choice = chunk.choices[0]
        of_choice = choice.model_extra or {}
        prompt_ids = more.get("prompt_token_ids") or of_choice.get("prompt_token_ids") or ()
        text = getattr(choice, "text", None)
        if text is None:
            text = choice.delta.content or "" if choice.delta is not None else ""
        pieces = _pieces(text, of_choice.get("token_ids") or [], _entries(choice.logprobs), num_top)
        reason = choice.finish_reason
        known: FinishReason | None = reason if reason in ("stop", "length", None) else "abort"
        return Arrival(pieces, tuple(prompt_ids), known, reported)

    async def _version(self) -> str:
        """vLLM tells it; "" otherwise."""
        if self._maker != "vllm":
            return ""
        try:
            reply = await self._client.get(f"{self.url}/version", cast_to=dict[str, Any])
        except Exception:
            return ""
        return str(reply.get("version", ""))

    # ---- errors

    def _broken(self, num_pieces: int, error: Exception | None) -> LlmlabError:
        return failures.broken_off(self.url, self._key, num_pieces, None if error is None else _sentence(error))

    def _told(self, error: Exception) -> LlmlabError:
        """What went wrong before an answer began, in our words and the server's, and never with the key."""
        said, url = self._key.hide(_sentence(error)), self.url
        match error:
            case openai.APITimeoutError():
                return failures.late(url, self._timeout_s)
            case openai.APIConnectionError() if "CERTIFICATE_VERIFY_FAILED" in said:
                return failures.untrusted(url, said)
            case openai.APIConnectionError() if url.startswith("http://") and "disconnected" in said:
                return failures.hung_up(url)
            case openai.APIConnectionError():
                return EngineDied(
                    tr(
                        "No server at {url} ({said}). Start one (`%llm serve`), or use `-e llamacpp`.",
                        url=url,
                        said=said,
                    )
                )
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return failures.no_key(url, f"%llm connect {url} --api-key-env VARIABLE", had_one=bool(self._key))
            case openai.RateLimitError():
                return EngineError(
                    tr("The server at {url} has too much to do ({said}). Ask again later.", url=url, said=said)
                )
            case openai.APIStatusError() if error.status_code < 500:
                return failures.refused(url, said)
            case LlmlabError():
                return error
        return failures.failed(url, said)


def _pieces(text: str, ids: list[int], entries: list[dict[str, Any]], num_top: int = 0) -> tuple[Piece, ...]:
    """The tokens of a chunk. Of several whose texts are not told, the last one made all of it readable.

    >>> _pieces("ab", [5, 6], [])
    (Piece(text='', token_id=5, logprob=None, top=()), Piece(text='ab', token_id=6, logprob=None, top=()))
    """
    count = max(len(ids), len(entries), 1 if text else 0)
    texts = [""] * (count - 1) + [text] if count else []
    told = [entry["token"] for entry in entries]
    if len(told) == count and "".join(told) == text:
        texts = told
    found = []
    for number, shown in enumerate(texts):
        entry = entries[number] if number < len(entries) else {}
        token_id = ids[number] if number < len(ids) else entry.get("id")
        tops = (entry.get("top_logprobs") or ())[:num_top]
        top = tuple((one.get("id"), one["logprob"], one["token"]) for one in tops)
        found.append(Piece(shown, token_id, entry.get("logprob"), top))
    return tuple(found)


def _entries(logprobs: Any) -> list[dict[str, Any]]:
    """One for each token: token, logprob, top_logprobs, and id where the server adds it. Both of OpenAI's forms."""
    if logprobs is None:
        return []
    told: dict[str, Any] = logprobs.model_dump()
    if told.get("content") is not None:
        return list(told["content"])
    tokens, values = told.get("tokens") or [], told.get("token_logprobs") or []
    tops = told.get("top_logprobs") or [None] * len(tokens)
    return [
        {
            "token": token,
            "logprob": value,
            "top_logprobs": [{"token": text, "logprob": of_top} for text, of_top in (top or {}).items()],
        }
        for token, value, top in zip(tokens, values, tops, strict=False)
    ]


def _wait_s(error: Exception, attempt: int) -> float | None:
    """How long to wait before the next try; None when the server may have begun to answer."""
    if isinstance(error, openai.APITimeoutError):
        return None
    if isinstance(error, openai.RateLimitError):
        told = error.response.headers.get("retry-after", "")
        return min(float(told), MAX_WAIT_S) if told.replace(".", "", 1).isdigit() else float(attempt)
    # only a connection that never was: one that broke may have carried the request
    never_was = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
    return 0.2 * attempt if never_was else None


def _sentence(error: Exception) -> str:
    """What a server or a library says, in one line."""
    body = getattr(error, "body", None)
    told = body.get("message") if isinstance(body, dict) else None
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
    return failures.one_line(told or cause or error or type(error).__name__)
