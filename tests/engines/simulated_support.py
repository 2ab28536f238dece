"""Requests for simulated workers, and prices that are easy to add up."""

from __future__ import annotations

import random

from llmlab.engines.cost_model import LinearCost
from llmlab.engines.simulated_worker import Asked
from llmlab.trace import Request, Token

# 10 ms a step, 0.1 ms a token of a prompt, 1 ms a decoding sequence
PRICES = LinearCost(step_s=0.01, prefill_token_s=0.0001, decode_token_s=0.001)


def asked(request_id: str, prompt: list[int], num_tokens: int, arrival_s: float = 0.0, **more: object) -> Asked:
    request = Request(request_id=request_id, arrival_s=arrival_s, prompt_token_ids=tuple(prompt), **more)
    tokens = [Token(request_id=request_id, token_id=1000 + i) for i in range(num_tokens)]
    return Asked(request, tokens)


def crowd(number: int, *, seed: int = 0, rate: float = 40.0, shared: int = 20) -> list[Asked]:
    """Requests at random moments with a common beginning, of all lengths."""
    chance = random.Random(seed)
    moment_s, out = 0.0, []
    for i in range(number):
        moment_s += chance.expovariate(rate)
        prompt = [*range(shared), *(chance.randrange(10_000) for _ in range(chance.randint(1, 60)))]
        out.append(asked(f"r{i}", prompt, chance.randint(1, 70), moment_s))
    return out
