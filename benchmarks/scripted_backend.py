"""A server with OpenAI's streams and no engine: what is in front of it is measured, and nothing else.

    python -m benchmarks.scripted_backend NAME

Prints its port. A request says by `max_tokens` how many pieces it gets, and by `seed` how many ms lie between two.
"""

from __future__ import annotations

import asyncio
import json
import sys

from aiohttp import web


def event(text: str | None, end: str | None = None) -> bytes:
    delta = {"role": "assistant"} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": end}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def answer(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(event(None))
    for _ in range(body["max_tokens"]):
        await response.write(event("word "))
        await asyncio.sleep(body.get("seed", 0) / 1000)
    usage = {"prompt_tokens": 9, "completion_tokens": body["max_tokens"], "total_tokens": 9 + body["max_tokens"]}
    last = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [], "usage": usage}
    await response.write(event("", "stop") + f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
    return response


async def models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})


async def main() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
