"""Which backend gets a request, and the reason that stands in the log."""

from __future__ import annotations

from typing import Any

import pytest

from llmlab.gateway.config import Backend, Model, Price, Rule
from llmlab.gateway.figures import Figures, figures_of
from llmlab.gateway.policy import Ask, Decision, Standing, decide

FREE, DEAR = Price(prompt=0, output=0), Price(prompt=1, output=10)
BACKENDS = {
    "laptop": Backend(url="http://a", price=FREE, seats=2, max_prompt_tokens=4096),
    "lab": Backend(url="http://b", price=FREE, seats=4),
    "main": Backend(url="http://c", price=DEAR, seats=100, max_waiting=8, max_kv_use=0.9),
}
NAMES = {"laptop": "m", "lab": "m", "main": "M"}
LONG = Rule(prompt_tokens_over=2048, use="main")
DOWN = Standing("connection refused")


def decided(ask: Ask, model: Model, **standings: Standing) -> Decision:
    return decide(ask, model, BACKENDS, {name: standings.get(name, Standing()) for name in BACKENDS})


def model_of(prefer: Any = "order", *rules: Rule, names: dict[str, str] = NAMES) -> Model:
    return Model(backends=names, prefer=prefer, rules=list(rules))


def waiting(count: int, kv_use: float = 0.1) -> Standing:
    return Standing(figures=Figures(1, count, kv_use))


@pytest.mark.parametrize(
    ("ask", "model", "standings", "backend", "reason"),
    [
        (Ask("m", 10), model_of(), {}, "laptop", "first in order: laptop"),
        (Ask("m", 10), model_of(), {"laptop": DOWN}, "lab",
         "laptop is down (connection refused); next in order: lab"),
        (Ask("m", 10), model_of(names={"lab": "m"}), {}, "lab", "the only one: lab"),
        (Ask("m", 3000), model_of("order", LONG), {}, "main", "prompt of about 3,000 tokens > 2,048: main"),
        (Ask("m", 3000, is_estimate=False), model_of("order", LONG), {}, "main",
         "prompt of 3,000 tokens > 2,048: main"),
        (Ask("m", 2048), model_of("order", LONG), {}, "laptop", "first in order: laptop"),
        (Ask("m", 3000), model_of("order", LONG), {"main": DOWN}, "laptop",
         "main is down (connection refused); first in order: laptop"),
        (Ask("m", 9000), model_of(), {}, "lab", "laptop takes prompts of 4,096 tokens at most; next in order: lab"),
        (Ask("m", 10, key="ann"), model_of("order", Rule(keys=["ann", "ben"], use=["lab", "main"])), {"lab": DOWN},
         "main", "lab is down (connection refused); key ann: main"),
        (Ask("m", 10, key="ann"), model_of("order", Rule(keys=["ben"], use="lab"), Rule(prompt_tokens_up_to=16,
         use="main")), {}, "main", "prompt of about 10 tokens ≤ 16: main"),
        (Ask("m", 1000, max_tokens=100), model_of("price"), {}, "laptop", "cheapest, about 0 EUR: laptop"),
        (Ask("m", 1000, max_tokens=100), model_of("price"), {"laptop": DOWN, "lab": DOWN}, "main",
         "laptop is down (connection refused); lab is down (connection refused); cheapest, about 0.002 EUR: main"),
        (Ask("m", 10), model_of("load"), {"laptop": waiting(1), "lab": waiting(2)}, "main",
         "least busy, 0 requests on 100 seats: main"),
        (Ask("m", 10), model_of("load"),
         {"laptop": waiting(3), "lab": Standing(num_open=3), "main": waiting(99)}, "lab",
         "least busy, 3 requests on 4 seats: lab"),
        (Ask("m", 3000), model_of("order", LONG), {"main": waiting(9)}, "laptop",
         "main has 9 waiting > 8; first in order: laptop"),
        (Ask("m", 3000), model_of("order", LONG), {"main": waiting(0, kv_use=0.97)}, "laptop",
         "main has its KV cache 97% full > 90%; first in order: laptop"),
        (Ask("m", 3000), model_of("order", LONG), {"main": waiting(8, kv_use=0.9)}, "main",
         "prompt of about 3,000 tokens > 2,048: main"),
        (Ask("m", 10), model_of(names={"main": "M"}), {"main": waiting(9)}, "main",
         "main has 9 waiting > 8; and nobody is free; the only one: main"),
        (Ask("m", 10), model_of(names={"main": "M"}), {"main": DOWN}, None, "main is down (connection refused)"),
        (Ask("m", 10), model_of(), {"laptop": Standing("HTTP 500", was_tried=True)}, "lab",
         "laptop did not take it (HTTP 500); next in order: lab"),
    ],
)  # fmt: skip
def test_a_decision_has_a_reason(
    ask: Ask, model: Model, standings: dict[str, Standing], backend: str | None, reason: str
):
    assert decided(ask, model, **standings) == Decision(backend, reason)


def test_a_prompt_that_is_too_long_for_all_is_not_a_matter_of_waiting():
    alone = model_of(names={"laptop": "m"})
    found = decided(Ask("m", 9000), alone)
    assert found == Decision(None, "laptop takes prompts of 4,096 tokens at most", is_too_long=True)
    assert not decided(Ask("m", 10), alone, laptop=DOWN).is_too_long


def test_equal_loads_keep_the_order_of_the_file():
    assert decided(Ask("m", 10), model_of("load")).backend == "laptop"


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        (b"", Figures()),
        (b'# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_running{engine="0",model_name="a b"} 3.0\n'
         b'vllm:num_requests_waiting{engine="0"} 12.0\nvllm:num_requests_waiting_by_reason{reason="x"} 99\n'
         b'vllm:kv_cache_usage_perc{engine="0"} 0.25\n', Figures(3, 12, 0.25)),
        (b'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_running{engine="1"} 4\n'
         b'vllm:gpu_cache_usage_perc{engine="0"} 0.5\nvllm:gpu_cache_usage_perc{engine="1"} 0.75\n',
         Figures(7, None, 0.75)),
        (b"llmlab_engine_up 1.0\nllmlab_num_requests_running 2.0\nllmlab_num_requests_waiting 1.0\n"
         b"llmlab_kv_cache_usage_perc 0.5\n", Figures(2, 1, 0.5, True)),
        (b"llmlab_engine_up 0.0\n", Figures(is_up=False)),
        (b"llamacpp:requests_processing 1\nllamacpp:requests_deferred 5\n", Figures(1, 5)),
        (b"vllm:num_requests_waiting nonsense\n\xff\xfe", Figures()),
    ],
)  # fmt: skip
def test_figures_are_read_by_the_names_of_each_server(text: bytes, figures: Figures):
    assert figures_of(text) == figures
