"""What LiteLLM's Router costs and does, in a Python of its own that has it.

    PYTHON -m benchmarks.litellm_router URL_OF_MAIN PID_OF_MAIN URL_OF_SPARE ROUNDS

Run by bench_gateway.py; the last line is JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from importlib.metadata import version
from typing import Any

os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
began = time.perf_counter()
from litellm import Router  # noqa: E402  # it is what is measured

IMPORT_S = time.perf_counter() - began
NUM_STREAMS, NUM_PIECES = 16, 200
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


def router_over(main: str, spare: str) -> Router:
    def deployment(group: str, url: str) -> dict[str, Any]:
        return {"model_name": group, "litellm_params": {"model": "openai/m", "api_base": f"{url}/v1", "api_key": "x"}}

    return Router(
        model_list=[deployment("main", main), deployment("spare", spare)], fallbacks=[{"main": ["spare"]}],
        num_retries=0, cooldown_time=1, timeout=30,
    )  # fmt: skip


async def pieces(router: Router, **fields: Any) -> tuple[float | None, int, str]:
    """Seconds to the first text, how many came, and what it ended with."""
    started, ttft_s, count = time.perf_counter(), None, 0
    try:
        async for chunk in await router.acompletion(model="main", **ASK, **fields):
            if chunk.choices and chunk.choices[0].delta.content:
                ttft_s = ttft_s or time.perf_counter() - started
                count += 1
    except Exception as error:
        return ttft_s, count, type(error).__name__
    return ttft_s, count, "end"


async def main() -> None:
    main_url, pid, spare_url, rounds = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    router = router_over(main_url, spare_url)
    firsts, rates = [], []
    for turn in range(-1, rounds):
        found = [(await pieces(router, max_tokens=2))[0] for _ in range(8)]
        started = time.perf_counter()
        await asyncio.gather(*(pieces(router, max_tokens=NUM_PIECES) for _ in range(NUM_STREAMS)))
        if turn >= 0:
            firsts += [1e3 * ttft_s for ttft_s in found if ttft_s is not None]
            rates.append(NUM_STREAMS * NUM_PIECES / (time.perf_counter() - started))
    running = [asyncio.create_task(pieces(router, max_tokens=500, seed=10)) for _ in range(20)]
    await asyncio.sleep(1)
    os.kill(pid, signal.SIGKILL)
    killed = time.perf_counter()
    ttft_s, _, end = await pieces(router, max_tokens=2)
    result = {
        "version": version("litellm"), "import_s": IMPORT_S, "first_ms": firsts, "rates": rates,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "moved_s": time.perf_counter() - killed,
        "moved_ttft_s": ttft_s, "moved_end": end, "running": [one[1:] for one in await asyncio.gather(*running)],
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
