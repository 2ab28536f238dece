"""The routes of OpenAI's API, on one engine.

This file must not know sockets or threads.
"""

from __future__ import annotations

import asyncio
import base64
import time
from array import array
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmlab.engines.handle import EngineHandle
from llmlab.engines.result import TokenEvent
from llmlab.errors import LlmlabError
from llmlab.serve import embedding, replies
from llmlab.serve.answering import Answering, QueueStay, Stay
from llmlab.serve.asks import Ask, of_chat, of_completion, texts_to_embed
from llmlab.serve.bodies import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingsBody,
    TokenizeBody,
    read,
    read_struct,
)
from llmlab.serve.description import description
from llmlab.serve.failures import ApiError
from llmlab.serve.forms import ChatForm, CompletionForm, Form, usage_of
from llmlab.serve.metrics import Metrics
from llmlab.serve.pieces import Pieces
from llmlab.serve.queueing import Queue
from llmlab.serve.responses import CLIENT_GONE, application, as_json
from llmlab.serve.streaming import EventStream, watched
from llmlab.serve.tracing import Tracing
from llmlab.trace import FinishReason

ArgT = TypeVar("ArgT")
ResultT = TypeVar("ResultT")


class Service:
    """What the routes do. Its methods are the endpoints."""

    def __init__(self, handle: EngineHandle, queue: Queue, metrics: Metrics, *, tracing: Tracing | None = None) -> None:
        self._handle, self._queue, self._metrics = handle, queue, metrics
        self._tracing = tracing or Tracing(handle)
        self._pieces = Pieces(handle)
        self._since = int(time.time())
        self._open: set[Answering] = set()  # requests that are being answered

    def cancel_all(self) -> None:
        """End on the engine what is being answered, and who follows its trace. From any thread."""
        self._tracing.stop()
        for answering in list(self._open):
            answering.cancel()

    def app(self) -> Starlette:
        return application(self.routes(), "GET /openapi.json lists what is.")

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model:path}", self.model, methods=["GET"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat_completions, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            *self._tracing.routes(),
        ]

    async def models(self, request: Request) -> Response:
        return as_json(replies.Models(data=[self._model()]))

    async def model(self, request: Request) -> Response:
        self._check_model(request.path_params["model"])
        return as_json(self._model())

    async def completions(self, request: Request) -> Response:
        body = read(CompletionBody, await request.body())
        model = self._check_model(body.model)
        return await self._answer(request, of_completion(body, self._handle.header), CompletionForm, model)

    async def chat_completions(self, request: Request) -> Response:
        body = read(ChatBody, await request.body())
        model = self._check_model(body.model)
        return await self._answer(request, of_chat(body, self._handle.header), ChatForm, model)

    async def embeddings(self, request: Request) -> Response:
        body: EmbeddingsBody = read_struct(EmbeddingsBody, await request.body())
        model, texts = self._check_model(body.model), texts_to_embed(body)
        try:
            vectors, num_tokens = await embedding.embedded(self._handle, texts)
        except LlmlabError as error:
            raise ApiError.of(error) from None
        shown = [_base64(v) if body.encoding_format == "base64" else v for v in vectors]
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        data = [replies.Embedding(index=index, embedding=vector) for index, vector in enumerate(shown)]
        return as_json(replies.Embeddings(model=model, data=data, usage=usage))

    async def tokenize(self, request: Request) -> Response:
        """A text as the engine sees it: chat markers are tokens, BOS comes where the model wants one."""
        body: TokenizeBody = read_struct(TokenizeBody, await request.body())
        self._check_model(body.model)
        ids = await self._told(self._handle.tokenize, body.prompt)
        return as_json(replies.Tokens(ids, len(ids), self._handle.header.max_model_len))

    async def detokenize(self, request: Request) -> Response:
        """The text of tokens, and the bytes of each."""
        body: DetokenizeBody = read_struct(DetokenizeBody, await request.body())
        self._check_model(body.model)
        pieces = await self._told(self._handle.pieces, body.tokens)
        return as_json(replies.Text(b"".join(pieces).decode(errors="replace"), pieces))

    async def health(self, request: Request) -> Response:
        if not self._handle.alive:
            raise ApiError(503, f"{self._handle.name} is not loaded any more.", code="engine_died")
        return as_json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        return as_json(description())

    # ---- answers

    async def _enter(self, request: Request, count: int) -> Stay:
        """Room for so many answers, as soon as there is some. Raises: ApiError when there is too little."""
        return QueueStay(self._queue, count)

    async def _answer(self, request: Request, ask: Ask, form_of: Callable[..., Form], model: str) -> Response:
        stay = await self._enter(request, ask.num_answers)
        answering = Answering(self._handle, ask, request.state.name, stay, self._metrics)
        form = form_of(ask, answering.names[0], model, self._pieces)
        self._open.add(answering)

        def leave() -> None:
            answering.cancel()
            self._open.discard(answering)

        is_gone = False

        def note_gone() -> None:
            nonlocal is_gone
            is_gone = True
            answering.cancel()

        stream: EventStream | None = None
        try:
            async with watched(request.receive, note_gone):
                await answering.admitted()
                if not ask.stream:
                    results = await answering.done()
                    await self._learn(answering)
                    return as_json(form.whole(results))
            stream = EventStream(self._events(answering, form), leave)
            return stream
        except ApiError:
            if is_gone:  # it was stopped for that
                return Response(status_code=CLIENT_GONE)
            raise
        finally:
            if stream is None:
                leave()

    async def _events(self, answering: Answering, form: Form) -> AsyncIterator[bytes]:
        """The events of a stream: chunks, on request what it took, and the end; an error in between ends it."""
        number_of = {name: number for number, name in enumerate(answering.names)}
        try:
            async for tokens, ended in answering.events():
                await self._learn(answering, tokens)
                of_answer: dict[int, list[TokenEvent]] = {number: [] for number in ended}
                for token in tokens:
                    of_answer.setdefault(number_of[token.request_id], []).append(token)
                chunks = [
                    form.chunk(number, part, reason, answering.run.prompt_ids(number))
                    for number, of_one in of_answer.items()
                    for part, reason in _parts(answering, number, of_one, is_end=number in ended)
                ]
                if content := b"".join(replies.sse(chunk) for chunk in chunks if chunk is not None):
                    yield content
            results = answering.checked()
            if answering.ask.include_usage:
                yield replies.sse(form.last(usage_of(results, answering.ask.num_choices)))
        except ApiError as error:
            yield replies.sse(error.reply)
        yield replies.DONE

    async def _learn(self, answering: Answering, tokens: list[TokenEvent] | None = None) -> None:
        """The bytes of these tokens, or of all that came, where log probabilities will show them."""
        if "logprobs" in answering.ask.options:
            await self._pieces.learn(answering.run.tokens_since(0) if tokens is None else tokens)

    # ---- the model

    async def _told(self, ask: Callable[[ArgT], ResultT], argument: ArgT) -> ResultT:
        """What the handle says, which waits for the engine. Raises: ApiError."""
        try:
            return await asyncio.to_thread(ask, argument)
        except LlmlabError as error:
            raise ApiError.of(error) from None

    def _check_model(self, wanted: str | None) -> str:
        """The name to answer under. Raises: ApiError (404) for another model."""
        handle = self._handle
        if wanted is None or wanted in (handle.name, handle.model):
            return wanted or handle.name
        raise ApiError(
            404, f"The model {wanted[:200]!r} is not served here. This server has {handle.name!r}.",
            param="model", code="model_not_found",
        )  # fmt: skip

    def _model(self) -> replies.Model:
        handle = self._handle
        return replies.Model(
            id=handle.name, created=self._since, engine=handle.engine, quant=handle.quant,
            max_model_len=handle.header.max_model_len,
        )  # fmt: skip


def _parts(
    answering: Answering, number: int, tokens: list[TokenEvent], *, is_end: bool
) -> list[tuple[list[TokenEvent], FinishReason | None]]:
    """What goes into a chunk each, and why the answer ends with it. For who counts tokens: one token each."""
    reason = answering.run.finish_reasons[number] if is_end else None
    if not (answering.ask.return_token_ids and tokens):
        return [(tokens, reason)]
    return [*(([token], None) for token in tokens[:-1]), (tokens[-1:], reason)]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()
