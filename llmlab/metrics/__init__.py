"""Figures of a trace: pure functions, Trace -> number. What was not measured is None, never 0.

Names and definitions are those of `vllm bench serve`, so figures may be put beside each other. Times of one request
(TTFT, gaps, TPOT, end to end, queue) are at home in llmlab.trace.times, because trace tables show them too.
"""

from llmlab.metrics.batching import Gap, empty_seats, longest_gap, steps_to_first_token
from llmlab.metrics.memory import (
    PrefixLookup,
    Waste,
    batch_size,
    kv_use,
    num_preemptions,
    prefix_hit_rate,
    prefix_lookups,
    recomputed_tokens,
    waste,
)
from llmlab.metrics.throughput import (
    goodput_rps,
    percentile,
    request_throughput_rps,
    throughput_tps,
    total_throughput_tps,
)
from llmlab.trace.times import RequestTimes, e2e_s, itl_s, queue_s, request_times, tpot_s, ttft_s

__all__ = [
    "Gap",
    "PrefixLookup",
    "RequestTimes",
    "Waste",
    "batch_size",
    "e2e_s",
    "empty_seats",
    "goodput_rps",
    "itl_s",
    "kv_use",
    "longest_gap",
    "num_preemptions",
    "percentile",
    "prefix_hit_rate",
    "prefix_lookups",
    "queue_s",
    "recomputed_tokens",
    "request_throughput_rps",
    "request_times",
    "steps_to_first_token",
    "throughput_tps",
    "total_throughput_tps",
    "tpot_s",
    "ttft_s",
    "waste",
]
