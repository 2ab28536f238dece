"""GatewayMetrics: what Prometheus scrapes of a gateway.

This file must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from llmlab.gateway.log import Entry
from llmlab.gateway.upstream import Upstream

_TTFT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class GatewayMetrics:
    """The figures of one gateway, in a registry of its own."""

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._registry = registry = CollectorRegistry()
        of_answer = ["model", "backend"]
        self._http = Counter("llmlab_gateway_http_requests", "HTTP requests", ["path", "status"], registry=registry)
        self._ended = Counter(
            "llmlab_gateway_requests", "Requests by who answered", [*of_answer, "status"], registry=registry
        )
        self._moved = Counter(
            "llmlab_gateway_moved_requests", "Requests that a backend did not take", ["backend"], registry=registry
        )
        self._prompt = Counter("llmlab_gateway_prompt_tokens", "Prompt tokens", of_answer, registry=registry)
        self._output = Counter("llmlab_gateway_generation_tokens", "Tokens of answers", of_answer, registry=registry)
        self._cost = Counter("llmlab_gateway_cost", "By the prices of the configuration", of_answer, registry=registry)
        self._ttft = Histogram(
            "llmlab_gateway_time_to_first_token_seconds", "From asked to the first token", of_answer,
            buckets=_TTFT_S, registry=registry,
        )  # fmt: skip
        self._unlogged = Counter(
            "llmlab_gateway_unlogged_requests", "Requests whose line could not be written", registry=registry
        )
        registry.register(_Now(upstreams))

    def note_http(self, path: str, status: int) -> None:
        self._http.labels(path, str(status)).inc()

    def note(self, entry: Entry) -> None:
        """A request that has ended, in whatever way."""
        labels = entry.model, entry.backend or ""
        self._ended.labels(*labels, str(entry.status)).inc()
        for attempt in entry.attempts:
            self._moved.labels(attempt.backend).inc()
        if entry.backend is not None:
            self._prompt.labels(*labels).inc(entry.num_prompt_tokens)
            self._output.labels(*labels).inc(entry.num_output_tokens or 0)
            self._cost.labels(*labels).inc(entry.cost or 0.0)
        if entry.ttft_s is not None:
            self._ttft.labels(*labels).observe(entry.ttft_s)

    def note_unlogged(self) -> None:
        self._unlogged.inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    """How the backends are at the moment of the scrape."""

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._upstreams = upstreams

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily("llmlab_gateway_backend_up", "1 while it can be asked", labels=["backend"])
        open_ = GaugeMetricFamily("llmlab_gateway_backend_open", "Answers that are open", labels=["backend"])
        for name, upstream in self._upstreams.items():
            standing = upstream.standing
            up.add_metric([name], float(standing.why_down is None))
            open_.add_metric([name], standing.num_open)
        yield up
        yield open_
