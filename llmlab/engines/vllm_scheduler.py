"""vLLM's own schedulers with the tracer in them, for somebody's own server:

    LLMLAB_TRACE=http://127.0.0.1:8100 LLMLAB_TRACE_TOKEN=... python -m vllm.entrypoints.openai.api_server \\
        --model NAME --scheduler-cls llmlab.engines.vllm_scheduler.TracedScheduler

LLMLAB_TRACE is where the records go, one place or several with commas between them: http://HOST:PORT is where notebooks
follow it, who know the token; ipc://PATH or tcp://HOST:PORT of a TraceReceiver; a file that does not exist yet. Without
it nothing is traced. LLMLAB_TRACE_LEVEL is off, delta or full. Prompts leave as token ids, texts never.
Importing this file imports no vLLM: the classes are made when they are asked for.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from llmlab.engines.made_classes import found_in
from llmlab.engines.trace_listener import TOKEN
from llmlab.engines.trace_outlets import Line
from llmlab.engines.trace_stream import TraceSender
from llmlab.engines.vllm_steps import says_something
from llmlab.engines.vllm_tracer import Tracer
from llmlab.trace import Capabilities, Header, Request

ADDRESS, LEVEL = "LLMLAB_TRACE", "LLMLAB_TRACE_LEVEL"
_SAMPLING = "temperature top_k top_p min_p max_tokens seed logprobs ignore_eos".split()


class Shipment:
    """The tracer of one scheduler and the way its records take. No method raises: the server goes on.

    `lock` is held while the scheduler works: a client that comes sees the cache between two of its calls.
    """

    def __init__(self, scheduler: Any, address: str, level: str, token: str | None = None) -> None:
        self.lock = threading.RLock()
        self._scheduler = scheduler
        self._num_told = 0  # errors of the tracer
        self._alive: dict[str, Request] = {}
        self._is_broken = False
        self.tracer = Tracer(scheduler, level=level)
        self.tracer.start()
        self._sender = TraceSender(address, self._opening, token=token, now_s=self._now_s, lock=self.lock)
        for listener in self._sender.listeners:
            if listener.warning:
                print(f"llmlab: {listener.warning}", file=sys.stderr)
        self._sender.open()

    def add_request(self, request: Any) -> None:
        self._safely(self._add_request, request)

    def send(self) -> None:
        """Everything that has ended since the last call."""
        self._safely(self._send)

    def close(self) -> None:
        self._safely(self._sender.close)
        self._is_broken = True

    def _safely(self, action: Callable[..., None], *args: Any) -> None:
        if self._is_broken:
            return
        try:
            action(*args)
        except Exception as error:
            self._is_broken = True
            print(f"llmlab: tracing ends here: {type(error).__name__}: {error}", file=sys.stderr)

    def _add_request(self, request: Any) -> None:
        is_open = self._sender.open()
        record = _request_record(request, self._now_s())
        self._alive[record.request_id] = record
        if is_open:
            self._sender.send([record])

    def _send(self) -> None:
        steps = self.tracer.take()
        for step in steps:
            for request_id in step.finished:
                self._alive.pop(request_id, None)
        if said := [step for step in steps if says_something(step)]:
            self._sender.send(said)
        if self.tracer.num_errors > self._num_told:
            self._num_told = self.tracer.num_errors
            print(f"llmlab: error {self._num_told} while tracing: {self.tracer.last_error}", file=sys.stderr)

    def _now_s(self) -> float:
        return time.monotonic() - self.tracer.epoch_s

    def _opening(self) -> list[Line]:
        return [_header(self._scheduler, self.tracer), *self._alive.values()]


def _request_record(request: Any, arrival_s: float) -> Request:
    params = request.sampling_params
    values = {name: getattr(params, name, None) for name in _SAMPLING}
    return Request(
        request_id=request.request_id,
        arrival_s=arrival_s,
        prompt_token_ids=tuple(request.prompt_token_ids or ()),
        sampling={name: value for name, value in values.items() if value is not None},
        priority=request.priority,
        salt=request.cache_salt or "",
    )


def _header(scheduler: Any, tracer: Tracer) -> Header:
    import vllm

    config = scheduler.vllm_config
    kv = tracer.snapshot()
    return Header(
        engine="vllm",
        engine_version=vllm.__version__,
        model=str(config.model_config.model),
        dtype=str(config.model_config.dtype).removeprefix("torch."),
        device=_device(config),
        capabilities=Capabilities(
            kv="blocks" if kv else "none",
            block_table=kv is not None,
            logprobs=True,
            prompt_logprobs=True,
            prefix_caching=bool(config.cache_config.enable_prefix_caching),
            preemption=True,
            priority=str(getattr(config.scheduler_config, "policy", "")) == "priority",
            grammar=True,
            json_schema=True,
            lora="none" if config.lora_config is None else "request",
            speculative=config.speculative_config is not None,
        ),
        block_size=scheduler.block_size,
        num_blocks=kv.num_blocks if kv else None,
        max_model_len=config.model_config.max_model_len,
        max_num_seqs=config.scheduler_config.max_num_seqs,
        token_budget=scheduler.max_num_scheduled_tokens,
        started_at=time.time() - (time.monotonic() - tracer.epoch_s),
        kv_at_start=kv,
    )


def _device(config: Any) -> str | None:
    """What computes: "cuda", or "2 x cuda" where two workers do."""
    device, num_workers = str(getattr(config.device_config, "device_type", "") or ""), config.parallel_config.world_size
    return f"{num_workers} x {device}" if device and num_workers > 1 else device or None


def _shipment(scheduler: Any) -> Shipment | None:
    address = os.environ.get(ADDRESS)
    if not address:
        print(f"llmlab: {ADDRESS} is not set, so nothing is traced: set it to http://127.0.0.1:8100", file=sys.stderr)
        return None
    try:
        return Shipment(scheduler, address, os.environ.get(LEVEL, "full"), os.environ.get(TOKEN))
    except Exception as error:
        print(f"llmlab: nothing is traced: {error}", file=sys.stderr)
        return None


def traced(base: type[Any]) -> type[Any]:
    """A scheduler class that does what `base` does, and ships what it did."""

    class Traced(base):  # type: ignore[misc, valid-type, unused-ignore]
        def __init__(self, *args: Any, **kw: Any) -> None:
            super().__init__(*args, **kw)
            self.llmlab = _shipment(self)

        def add_request(self, request: Any) -> None:
            is_known = request.request_id in self.requests  # the next part of a streamed prompt, say
            super().add_request(request)
            if self.llmlab and not is_known:
                with self.llmlab.lock:
                    self.llmlab.add_request(request)

        def schedule(self, *args: Any, **kw: Any) -> Any:
            if self.llmlab is None:
                return super().schedule(*args, **kw)
            with self.llmlab.lock:
                return self.llmlab.tracer.around_schedule(super().schedule, *args, **kw)

        def update_from_output(self, *args: Any, **kw: Any) -> Any:
            if self.llmlab is None:
                return super().update_from_output(*args, **kw)
            with self.llmlab.lock:
                outputs = self.llmlab.tracer.around_update(super().update_from_output, *args, **kw)
                self.llmlab.send()
            return outputs

        def shutdown(self) -> None:
            if self.llmlab:
                self.llmlab.close()
            super().shutdown()

    return Traced


def __getattr__(name: str) -> Any:
    """TracedScheduler, which is the asynchronous one where vLLM schedules so, and TracedAsyncScheduler."""
    if name not in ("TracedScheduler", "TracedAsyncScheduler"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    asynchronous, synchronous = traced(AsyncScheduler), traced(Scheduler)

    class TracedScheduler(synchronous):  # type: ignore[misc, valid-type]
        def __new__(cls, *args: Any, **kw: Any) -> Any:
            config = kw["vllm_config"] if "vllm_config" in kw else args[0]
            # One name for both: a synchronous scheduler under an asynchronous engine would halve its speed.
            if config.scheduler_config.async_scheduling:
                return asynchronous(*args, **kw)
            return super().__new__(cls)

    found_in(globals(), TracedScheduler=TracedScheduler, TracedAsyncScheduler=asynchronous)
    return globals()[name]
