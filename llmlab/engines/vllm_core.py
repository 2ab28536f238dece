"""The core of a vLLM engine in this process: what it is made of, requests in, outputs out. vLLM's private side is here.

We talk to the in-process client of the core and leave out vLLM's output processor: texts are made by our own code, as
for every engine. vLLM is imported only when a Core is made, after set_environment(). This file must not know traces.
Source: vllm/v1/engine/llm_engine.py, core_client.py InprocClient, core.py (0.26 to 0.32).
"""

from __future__ import annotations

import gc
import inspect
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmlab.engines.base import EngineConfig
from llmlab.engines.vllm_arguments import checked_arguments, set_environment
from llmlab.errors import EngineDied, EngineError, LlmlabError, RequestError
from llmlab.models.weights import stored_tensors


class Core:
    """Raises: EngineError when vLLM cannot use the model, an option or this machine."""

    def __init__(self, config: EngineConfig) -> None:
        set_environment(config.options)
        self._engine = _vllm_engine(config)
        self.config: Any = self._engine.vllm_config
        self._client: Any = self._engine.engine_core
        self._core = self._client.engine_core
        self.scheduler: Any = self._core.scheduler
        self._processor: Any = self._engine.input_processor
        self.tokenizer: Any = self._processor.tokenizer
        self.num_vocab: int = self.config.model_config.get_vocab_size()
        self.max_model_len: int = self.config.model_config.max_model_len
        self.block_size: int = self.config.cache_config.block_size
        self._is_broken = False
        # Versions differ in what process_inputs() wants to be told.
        takes_tasks = "supported_tasks" in inspect.signature(self._processor.process_inputs).parameters
        self._tasks = {"supported_tasks": self._client.get_supported_tasks()} if takes_tasks else {}

    # ---- what it is

    @property
    def num_blocks(self) -> int:
        """Blocks that requests can hold: vLLM keeps block 0 for itself."""
        return int(self.config.cache_config.num_gpu_blocks) - 1

    @property
    def num_free_blocks(self) -> int:
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    @property
    def num_workers(self) -> int:
        """Processes that compute, each with its GPU: tensor times pipeline parallel."""
        return int(self.config.parallel_config.world_size)

    @property
    def kv_cache_bytes(self) -> int:
        """Of all workers together: as many times what vLLM has allocated on the first."""
        return sum(int(t.size) for t in self.scheduler.kv_cache_config.kv_cache_tensors) * self.num_workers

    @property
    def weights_bytes(self) -> int | None:
        """The numbers in the model's files, in the dtype they are kept in; None when there are no such files.

        Not counted from the modules: on a CPU vLLM packs the matrices into memory of its own.
        """
        model = self.config.model_config
        try:
            stored = stored_tensors(Path(model.model))
        except LlmlabError:
            return None
        return sum(math.prod(tensor.shape) for tensor in stored.values()) * int(model.dtype.itemsize)

    @property
    def is_by_priority(self) -> bool:
        return str(getattr(self.config.scheduler_config, "policy", "fcfs")) == "priority"

    @property
    def max_lora_rank(self) -> int | None:
        """None when the engine takes no adapters."""
        lora = self.config.lora_config
        return None if lora is None else int(lora.max_lora_rank)

    def add_lora(self, lora_request: Any) -> None:
        self._client.add_lora(lora_request)

    # ---- requests and steps

    def request(
        self,
        request_id: str,
        token_ids: list[int],
        sampling: Any,
        *,
        lora: Any = None,
        priority: int = 0,
        salt: str = "",
    ) -> Any:
        """vLLM's request under our own id, checked by vLLM, and not yet given to it.

        Raises: RequestError with vLLM's reason when it refuses the request.
        """
        prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": token_ids}
        if salt:
            prompt["cache_salt"] = salt
        try:
            return self._processor.process_inputs(
                request_id, prompt, sampling, lora_request=lora, priority=priority, **self._tasks
            )
        except _refusals() as error:
            raise RequestError(f"vLLM refuses the request: {reason(error)}") from error

    def add(self, request: Any) -> None:
        self._client.add_request(request)

    def abort(self, request_ids: list[str]) -> None:
        """Their blocks are free at once. Unknown ids are ignored."""
        self._client.abort_requests(request_ids)

    def get_output(self) -> Any:
        """One turn of vLLM's loop: schedule, and what has been computed. With async scheduling, of the turn before.

        Raises: EngineDied when a worker has died, else whatever the forward pass raises. The next call then starts with
        an emptied engine: blocks get their hash before they are written, so that a prefix of a broken pass would be
        shared as if it were whole.
        """
        if self._is_broken:
            self._recover()
        try:
            return self._client.get_output()
        except Exception as error:
            self._is_broken = True
            if getattr(self._core.model_executor, "is_failed", False):  # what it waited for was cancelled
                raise EngineDied("A worker process of vLLM has ended.") from error
            raise

    @property
    def is_in_flight(self) -> bool:
        """A step was scheduled whose output has not come (async scheduling, pipelines)."""
        return bool(self._core.batch_queue)

    @property
    def has_requests(self) -> bool:
        """A call of get_output() would do something: requests, or the news that some have ended."""
        return bool(self.scheduler.has_requests())

    def forget_prefixes(self) -> bool:
        """Every kept prefix is dropped; False when running requests hold blocks."""
        return self._client.reset_prefix_cache() is not False

    def _recover(self) -> None:
        self.abort(list(self.scheduler.requests))
        while self.is_in_flight:
            with suppress(Exception):
                self._core.batch_queue.pop()[0].result()
        if not self.forget_prefixes():
            num_held = self.num_blocks - self.num_free_blocks
            raise EngineError(f"vLLM still holds {num_held} blocks of requests that were aborted after a failed step.")
        self._is_broken = False

    def close(self) -> None:
        self._client.shutdown()
        for name in list(vars(self)):
            delattr(self, name)
        gc.collect()


def reason(error: Exception) -> str:
    """What vLLM complains about, without the frame that pydantic puts around it."""
    details = getattr(error, "errors", None)
    if callable(details):
        with suppress(Exception):
            return "; ".join(str(each["msg"]).removeprefix("Value error, ") for each in details())
    return " ".join(str(error).split()) or type(error).__name__


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises when it does not like what it was given; its own errors are no ValueErrors in every version."""
    from vllm import exceptions

    own = getattr(exceptions, "VLLMError", ValueError)
    return (ValueError, TypeError, NotImplementedError, own)


def _vllm_engine(config: EngineConfig) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    arguments = checked_arguments(config)
    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments))
    except _refusals() as error:
        raise EngineError(f"vLLM cannot load {config.model}: {reason(error)}") from error
