"""Metrics: what Prometheus scrapes. Names follow vLLM's, with llmlab for vllm.

This file must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from llmlab.engines.handle import EngineHandle
from llmlab.engines.result import Result
from llmlab.serve.queueing import Queue
from llmlab.trace import BlockDelta, CellDelta, Step

_TTFT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_E2E_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self, handle: EngineHandle, queue: Queue) -> None:
        self._registry = registry = CollectorRegistry()
        self._http = Counter("llmlab_http_requests", "HTTP requests", ["path", "status"], registry=registry)
        self._ended = Counter("llmlab_request_success", "Answers by their end", ["finished_reason"], registry=registry)
        self._prompt = Counter("llmlab_prompt_tokens", "Prompt tokens of ended answers", registry=registry)
        self._output = Counter("llmlab_generation_tokens", "Tokens of ended answers", registry=registry)
        self._ttft = Histogram(
            "llmlab_time_to_first_token_seconds", "From sent to the first token", buckets=_TTFT_S, registry=registry
        )
        self._itl = Histogram(
            "llmlab_inter_token_latency_seconds", "Between two tokens of an answer", buckets=_ITL_S, registry=registry
        )
        self._e2e = Histogram(
            "llmlab_e2e_request_latency_seconds", "From sent to the end", buckets=_E2E_S, registry=registry
        )
        registry.register(_Now(handle, queue))

    def note_http(self, path: str, status: int) -> None:
        self._http.labels(path, str(status)).inc()

    def note_ended(self, results: Iterable[Result]) -> None:
        """Answers that have ended, in whatever way."""
        for result in results:
            self._ended.labels(result.finish_reason or "error").inc()
            self._prompt.inc(result.num_prompt_tokens)
            self._output.inc(result.num_output_tokens)
            if result.ttft_s is not None:
                self._ttft.observe(result.ttft_s)
            for gap_s in result.itl_s:
                self._itl.observe(gap_s)
            if result.e2e_s is not None:
                self._e2e.observe(result.e2e_s)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    """What the engine does at the moment of the scrape, as its last step said."""

    def __init__(self, handle: EngineHandle, queue: Queue) -> None:
        self._handle, self._queue = handle, queue

    def collect(self) -> Iterator[GaugeMetricFamily]:
        handle, step = self._handle, self._handle.last_step
        is_busy = handle.alive and handle.num_open_requests > 0
        yield _gauge("llmlab_engine_up", "1 while the engine is loaded", float(handle.alive))
        yield _gauge(
            "llmlab_num_requests_open", "On the engine, of clients and of the notebook", handle.num_open_requests
        )
        yield _gauge("llmlab_queue_limit", "Answers of clients that may be open at once", self._queue.limit)
        yield _gauge("llmlab_num_requests_served", "Answers of clients that are open", self._queue.num_open)
        if step is not None:
            yield _gauge("llmlab_num_requests_running", "In the engine's batch", step.num_running if is_busy else 0)
            yield _gauge("llmlab_num_requests_waiting", "Not yet in its batch", step.num_waiting if is_busy else 0)
            if (used := _kv_used(step)) is not None:
                yield _gauge("llmlab_kv_cache_usage_perc", "Share of the KV cache in use; 1 = all", used)


def _kv_used(step: Step) -> float | None:
    match step.kv:
        case BlockDelta(num_free=free, num_blocks=total) if total:
            return 1 - free / total
        case CellDelta(num_used=used, num_cells=total) if total:
            return used / total
    return None


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
