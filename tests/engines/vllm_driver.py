"""vLLM's real scheduler and block manager without a model: drawn tokens stand for what a forward pass would give.

A workload of hundreds of steps takes a second. `max_in_flight` is how many steps are scheduled before the output of the
first one comes: 1 is EngineCore.step(), 2 is EngineCore.step_with_batch_queue() with async scheduling.
"""

from __future__ import annotations

import json
import os
import random
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")

BLOCK_SIZE = 4
VOCAB = 64
TINY_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "num_hidden_layers": 1,
    "vocab_size": 256,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_model(folder: Path) -> Path:
    """A folder that vLLM takes for a model; its weights are dummies."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY_LLAMA))
    return folder


class Driver:
    """One scheduler and the requests it serves."""

    def __init__(
        self,
        model: Path,
        *,
        num_blocks: int = 12,
        max_num_seqs: int = 6,
        token_budget: int = 24,
        max_in_flight: int = 1,
        num_drafts: int = 0,
        groups: Sequence[str] = ("full",),
        policy: str = "fcfs",
        prefix_caching: bool = True,
        seed: int = 0,
    ) -> None:
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        self.random = random.Random(seed)
        self.num_drafts, self.max_in_flight = num_drafts, max_in_flight
        is_async = max_in_flight > 1
        self.scheduler: Any = _scheduler(
            model, num_blocks, max_num_seqs, token_budget, is_async, num_drafts, groups, policy, prefix_caching
        )
        if is_async and num_drafts:  # with a draft model, which we need not load: the drafts are drawn too
            self.scheduler.num_spec_tokens = num_drafts
            self.scheduler._spec_token_placeholders = [-1] * num_drafts
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(BLOCK_SIZE, sha256)
        self._queue: deque[tuple[Any, Any]] = deque()

    def add(self, name: str, prompt: Sequence[int], max_tokens: int, **sampling: Any) -> None:
        from vllm import SamplingParams
        from vllm.v1.request import Request

        priority = sampling.pop("priority", 0)
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, **sampling)
        request = Request(name, list(prompt), params, None, priority=priority, block_hasher=self._hasher)
        self.scheduler.add_request(request)

    def abort(self, names: Iterable[str]) -> None:
        from vllm.v1.request import RequestStatus

        self.scheduler.finish_requests(list(names), RequestStatus.FINISHED_ABORTED)

    @property
    def is_idle(self) -> bool:
        return not self._queue and not self.scheduler.has_requests()

    def turn(self) -> bool:
        """One turn of EngineCore's loop. True when update_from_output() was called."""
        if self.scheduler.has_requests():
            output = self.scheduler.schedule()
            self._queue.append((output, None))
            if len(self._queue) < self.max_in_flight and (
                output.total_num_scheduled_tokens > 0 or self.scheduler.has_requests()
            ):
                return False
        if not self._queue:
            return False
        output, _ = self._queue.popleft()
        self.scheduler.update_from_output(output, self._forward(output))
        if self.num_drafts and self.max_in_flight == 1:
            self._draft(output)
        return True

    def lose_step(self) -> None:
        """A forward pass fails: its output never comes."""
        self.scheduler.schedule()

    def _forward(self, output: Any) -> Any:
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        sampled = []
        for name in names:
            request = self.scheduler.requests.get(name)
            drafts = len(output.scheduled_spec_decode_tokens.get(name, ()))
            is_whole = request is None or self._is_whole(output, name, request, drafts)
            num_new = 1 + (self.random.randint(0, drafts) if drafts else 0) if is_whole else 0
            sampled.append([self.random.randrange(3, VOCAB) for _ in range(num_new)])
        index = {name: i for i, name in enumerate(names)}
        return ModelRunnerOutput(
            req_ids=names,
            req_id_to_index=index,
            sampled_token_ids=sampled,
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )

    def _is_whole(self, output: Any, name: str, request: Any, num_drafts: int) -> bool:
        """All tokens of this request are computed when the step has ended: as a model runner knows it."""
        cached = output.scheduled_cached_reqs
        computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        computed.update((new.req_id, new.num_computed_tokens) for new in output.scheduled_new_reqs)
        num_done = computed[name] + output.num_scheduled_tokens[name] - num_drafts
        return bool(num_done >= request.num_tokens)  # in async scheduling all tokens of the steps before are known

    def _draft(self, output: Any) -> None:
        from vllm.v1.outputs import DraftTokenIds

        names = [n for n in output.num_scheduled_tokens if n in self.scheduler.requests]
        drafts = [[self.random.randrange(3, VOCAB) for _ in range(self.num_drafts)] for _ in names]
        self.scheduler.update_draft_token_ids(DraftTokenIds(names, drafts))


def _scheduler(
    model: Path,
    num_blocks: int,
    max_num_seqs: int,
    token_budget: int,
    is_async: bool,
    num_drafts: int,
    groups: Sequence[str],
    policy: str,
    prefix_caching: bool,
) -> Any:
    import torch
    from vllm.config import CacheConfig, ModelConfig, ParallelConfig, SchedulerConfig, SpeculativeConfig, VllmConfig
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, SlidingWindowSpec
    from vllm.v1.structured_output import StructuredOutputManager

    ngram = SpeculativeConfig(method="ngram", num_speculative_tokens=max(1, num_drafts))
    config = VllmConfig(
        model_config=ModelConfig(str(model), skip_tokenizer_init=True, dtype="float32", max_model_len=128),
        cache_config=CacheConfig(block_size=BLOCK_SIZE, enable_prefix_caching=prefix_caching),
        parallel_config=ParallelConfig(),
        scheduler_config=SchedulerConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=token_budget,
            max_model_len=128,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
            policy=policy,
            async_scheduling=is_async,
        ),
        speculative_config=ngram if num_drafts and not is_async else None,
    )
    config.cache_config.num_gpu_blocks = num_blocks + 1
    common = dict(block_size=BLOCK_SIZE, num_kv_heads=1, head_size=32, dtype=torch.float32)
    specs = {
        "full": lambda: FullAttentionSpec(**common),
        "window": lambda: SlidingWindowSpec(**common, sliding_window=8),
    }
    kv = KVCacheConfig(
        num_blocks=num_blocks + 1,
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec([f"layer{i}"], specs[name]()) for i, name in enumerate(groups)],
    )
    return (AsyncScheduler if is_async else Scheduler)(
        vllm_config=config,
        kv_cache_config=kv,
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK_SIZE,
        log_stats=False,
    )
