"""vLLM as an engine: its own scheduler and its own forward pass, one step at a time, and what they really did.

Arguments, the core of vLLM, sampling, text, adapters and tracing have files of their own beside this one.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque

from msgspec.structs import force_setattr

from llmlab.engines.base import EngineConfig, Floats, SamplingParams, StepOutput, check_prompt
from llmlab.engines.decode_step import DecodeStep
from llmlab.engines.self_test import self_test
from llmlab.engines.vllm_adapters import Adapters
from llmlab.engines.vllm_answers import Answers
from llmlab.engines.vllm_arguments import trace_level
from llmlab.engines.vllm_core import Core
from llmlab.engines.vllm_logits import prompt_logprobs
from llmlab.engines.vllm_sampling import vllm_sampling
from llmlab.engines.vllm_steps import says_something
from llmlab.engines.vllm_text import Vocabulary
from llmlab.engines.vllm_tracer import Tracer
from llmlab.errors import RequestError
from llmlab.trace import Capabilities, FinishReason, Header, Request, Step

# A step without anything in it is handed out after this time at the latest: commands are taken between two steps.
IDLE_STEP_S, IDLE_SLEEP_S = 0.05, 0.001


class VllmEngine:
    """vLLM's LLMEngine in this process, driven by our loop.

    Raises: EngineError when vLLM is not here, or cannot use the model or an option.
    """

    name = "vllm"

    def __init__(self, config: EngineConfig) -> None:
        level = trace_level(config.options)
        self.core = Core(config)
        self.vocabulary = Vocabulary(self.core.tokenizer, self.core.num_vocab)
        template = config.chat_template or self.core.tokenizer.chat_template
        self.chat_template = template if isinstance(template, str) else None
        self.bos_token, self.eos_token = self.vocabulary.bos_token, self.vocabulary.eos_token
        self._adapters = Adapters(self.core.add_lora, self.core.max_lora_rank, default=config.lora)
        self._is_altered = config.lora is not None or "hf_overrides" in config.options
        self._answers = Answers(self.vocabulary)
        self._running: set[str] = set()
        self._ended: dict[str, FinishReason] = {}  # ends that no step has reported yet
        self._ready: deque[StepOutput] = deque()
        self._num_steps = 0
        self._num_trace_errors = 0
        self._tracer = Tracer(self.core.scheduler, level=level)
        self._tracer.attach()
        self.epoch_s = self._tracer.epoch_s
        self.capabilities = self._capabilities(is_traced=level != "off")
        self.header = self._header(config)

    def _capabilities(self, *, is_traced: bool) -> Capabilities:
        config = self.core.config
        return Capabilities(
            kv="blocks" if is_traced else "none",
            block_table=is_traced,
            logprobs=True,
            prompt_logprobs=True,
            prefix_caching=bool(config.cache_config.enable_prefix_caching),
            preemption=True,
            priority=self.core.is_by_priority,
            grammar=True,
            json_schema=True,
            lora="none" if self.core.max_lora_rank is None else "request",
            speculative=config.speculative_config is not None,
        )

    def _header(self, config: EngineConfig) -> Header:
        import vllm
        from vllm.platforms import current_platform

        core, on_cpu = self.core, current_platform.is_cpu()
        device = "CPU" if on_cpu else current_platform.get_device_name()
        return Header(
            engine=self.name,
            engine_version=vllm.__version__,
            model=config.model,
            fingerprint=config.fingerprint,
            dtype=str(core.config.model_config.dtype).removeprefix("torch."),
            device=f"{core.num_workers} x {device}" if core.num_workers > 1 else device,
            num_threads=core.num_workers * int(os.environ["OMP_NUM_THREADS"]) if on_cpu else None,
            capabilities=self.capabilities,
            block_size=core.block_size,
            num_blocks=core.num_blocks,
            kv_cache_bytes=core.kv_cache_bytes,
            max_model_len=core.max_model_len,
            max_num_seqs=core.config.scheduler_config.max_num_seqs,
            token_budget=core.scheduler.max_num_scheduled_tokens,
            started_at=time.time() - (time.monotonic() - self.epoch_s),
        )

    def self_test(self) -> str | None:
        """A sentence when the arithmetic of this machine is broken, else None. Leaves the cache empty.

        Random weights (load_format=dummy) have nothing to be compared with.
        """
        if str(self.core.config.load_config.load_format).endswith("dummy"):
            return None
        return self_test(self, is_altered=self._is_altered)

    # ---- text, and questions outside a step

    def tokenize(self, text: str) -> list[int]:
        return self.vocabulary.tokenize(text)

    def pieces(self, token_ids: list[int]) -> list[bytes]:
        self.vocabulary.check(token_ids)
        return [self.vocabulary.bytes_of[token_id] for token_id in token_ids]

    def logits(self, token_ids: list[int]) -> Floats:
        """Log probabilities at every position of a text, [num_tokens, num_vocab]. Kept prefixes are forgotten.

        They are the logits less one constant for each row (its log-sum-exp), which no softmax can see.

        Raises: RequestError while requests run, or when the text is longer than max_model_len - 1.
        """
        if self.has_unfinished_requests():
            raise RequestError("logits() needs an idle engine: wait for the running requests, or stop them.")
        self.vocabulary.check(token_ids)
        if not 0 < len(token_ids) < self.core.max_model_len:
            raise RequestError(f"logits() takes 1 to {self.core.max_model_len - 1} tokens, got {len(token_ids)}.")
        self._tracer.detach()  # a trace tells of requests that somebody sent
        try:
            return prompt_logprobs(self.core, token_ids, lora=self._adapters.request(None))
        finally:
            self._tracer.attach()

    def memory_bytes(self) -> dict[str, int]:
        """Weights and KV cache as they lie in memory, and the part of the cache that running requests hold."""
        core = self.core
        per_block = core.kv_cache_bytes // (core.num_blocks + 1)
        kv = {
            "kv_cache": core.num_blocks * per_block,
            "kv_used": (core.num_blocks - core.num_free_blocks) * per_block,
        }
        weights = core.weights_bytes
        return kv if weights is None else {"weights": weights, **kv}

    # ---- requests

    def add_request(self, request: Request) -> None:
        params = SamplingParams.of(request.sampling)
        self._check(request, params)
        core_request = self.core.request(
            request.request_id,
            list(request.prompt_token_ids),
            vllm_sampling(params),
            lora=self._adapters.request(params.lora),
            priority=request.priority,
            salt=request.salt,
        )
        self.core.add(core_request)
        self._running.add(request.request_id)
        self._answers.begin(request.request_id, params)

    def _check(self, request: Request, params: SamplingParams) -> None:
        self.vocabulary.check(request.prompt_token_ids)
        is_in_use = request.request_id in self._running or request.request_id in self._ended
        check_prompt(request, params, self.core.max_model_len, is_in_use=is_in_use)
        if request.priority and not self.core.is_by_priority:
            raise RequestError(
                f"priority is {request.priority}, and this engine serves who came first. "
                "Load it with `--opt scheduling_policy=priority`."
            )

    def abort_request(self, request_id: str) -> None:
        if request_id in self._running:
            self._end([request_id])
            self._ended[request_id] = "abort"

    def has_unfinished_requests(self) -> bool:
        return bool(self._running or self._ended or self._ready or self.core.is_in_flight)

    def interrupt(self) -> None:
        """A forward pass of vLLM cannot be broken off: it ends before the next command is taken."""

    # ---- one step

    def step(self) -> StepOutput:
        if not self._ready:
            self._ready.extend(self._steps())
        return self._complete(self._ready.popleft())

    def _steps(self) -> list[StepOutput]:
        """Turns of vLLM's loop until a step has come to its end; one without anything in it when none will."""
        started = time.monotonic()
        while True:
            self.core.get_output()
            steps = self._tracer.take_columns()
            self._log_trace_errors()
            if steps := [step for step in steps if says_something(step)]:
                return steps
            is_idle = not (self.core.is_in_flight or self.core.has_requests)
            if is_idle or self._ended or time.monotonic() - started > IDLE_STEP_S:
                return [Step(step=0, t_s=time.monotonic() - self.epoch_s)]
            if not self.core.is_in_flight:
                time.sleep(IDLE_SLEEP_S)  # all requests wait, for example for a grammar that is being compiled

    def _complete(self, step: StepOutput) -> StepOutput:
        """What only this engine knows of a step: its number, the texts, and the ends that it decides itself."""
        force_setattr(step, "step", self._num_steps)
        self._num_steps += 1
        if isinstance(step, DecodeStep):
            if not (self._ended or self._answers.may_stop):
                self._answers.write_columns(step)
                return step
            step = step.record()
        stopped_by = self._answers.write(step)
        for request_id in step.finished:
            self._running.discard(request_id)
            self._answers.end(request_id)
        if stopped_by:
            self._end([request_id for request_id in stopped_by if request_id in self._running])
            step = self._tracer.settle(step)
            force_setattr(step, "stopped_by", stopped_by)
        if stopped_by or self._ended:
            finished = {**step.finished, **dict.fromkeys(stopped_by, "stop"), **self._ended}
            force_setattr(step, "finished", finished)
            self._ended = {}
        return step

    def _end(self, request_ids: list[str]) -> None:
        """End requests that vLLM would go on with."""
        self.core.abort(request_ids)
        for request_id in request_ids:
            self._tracer.forget(request_id)
            self._running.discard(request_id)
            self._answers.end(request_id)

    def _log_trace_errors(self) -> None:
        if self._tracer.num_errors > self._num_trace_errors:
            self._num_trace_errors = self._tracer.num_errors
            print(f"llmlab: error {self._num_trace_errors} while tracing: {self._tracer.last_error}", file=sys.stderr)

    def close(self) -> None:
        self._tracer.detach()
        self.core.close()
