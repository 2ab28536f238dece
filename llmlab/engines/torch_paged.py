"""The torch engine: a paged engine that can be read in an evening. What does one step do? Read _step(), below.

Then read: torch_weights.py (what is loaded), torch_model.py (what is computed), torch_attention.py (how blocks are
read), torch_sampling.py (how a token is drawn); where a block is allocated is scheduling/block_pool.py, who runs is
scheduling/scheduler.py. Beside the way: torch_room.py, torch_drafts.py, torch_hooks.py, torch_parts.py; on a GPU
torch_kernel.py, torch_graphs.py.
"""

from __future__ import annotations

import time
from collections import defaultdict
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmlab.engines.base import Attention, EngineConfig, Floats, Sampler, SamplingParams, check_prompt, checked_options
from llmlab.engines.cost_model import work_of
from llmlab.engines.phases import Phases
from llmlab.engines.self_test import self_test
from llmlab.engines.step_work import StepWork
from llmlab.engines.stepping import SteppingEngine
from llmlab.engines.streaming import Answer
from llmlab.engines.student_parts import CheckedSampler, make_policy, make_pool
from llmlab.engines.torch_attention import Batch, Span, flash_attention, make_batch
from llmlab.engines.torch_drafts import NUM_DRAFT_TOKENS, Drafter
from llmlab.engines.torch_graphs import DecodeGraphs
from llmlab.engines.torch_hooks import Probe, inside, own_kv
from llmlab.engines.torch_model import BrokenOff, Decoder
from llmlab.engines.torch_parts import StudentAttention
from llmlab.engines.torch_room import OPTIONS, Room, Text
from llmlab.engines.torch_sampling import Generation, sample
from llmlab.engines.torch_weights import Adapter
from llmlab.errors import RequestError
from llmlab.models.config import from_hf
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.block_pool_checks import CheckedPool
from llmlab.scheduling.block_pool_watcher import BlockWatcher
from llmlab.scheduling.contracts import BlockPool, Policy
from llmlab.scheduling.plan import StepPlan
from llmlab.scheduling.policies import check_policy
from llmlab.scheduling.scheduler import Scheduler
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import Capabilities, FinishReason, Request, ScheduledRequest, Step, Token

__all__ = ["OPTIONS", "TorchEngine"]


class TorchEngine(SteppingEngine[Generation]):
    """Continuous batching, chunked prefill, prefix caching and preemption on a paged KV cache.

    `policy`, `sampler`, `attention`: objects that satisfy the contracts. `block_pool`: an object, or a class that takes
    (num_blocks, block_size).

    Raises: EngineError when an option cannot be used, ModelError when the model cannot.
    """

    name = "torch"

    def __init__(
        self,
        config: EngineConfig,
        *,
        policy: Policy | None = None,
        sampler: Sampler | None = None,
        block_pool: BlockPool | type[BlockPool] | None = None,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        options = checked_options(config.options, OPTIONS)
        check_policy(options)
        folder = Path(config.model_path)
        self.config = from_hf(folder)
        self.room = room = Room(config, self.config, options)
        self.model = Decoder(folder, self.config, device=room.device, dtype=room.dtype)
        on_gpu, use_timers = room.device.type == "cuda", bool(options.get("timers"))
        if on_gpu and use_timers:
            self.model.phases = Phases(on=True, wait=torch.cuda.synchronize)
        self._policy = make_policy(policy, options.get("policy", "chunked"))
        self._sampler = CheckedSampler(sampler) if sampler else None
        self._pool_wanted = block_pool if isinstance(block_pool, type) else deepcopy(block_pool)
        self._prefix_caching = bool(options.get("prefix_caching", True))
        self.pool, self.scheduler = self._empty_pool()
        self._watcher = BlockWatcher(self.pool)
        self.kv = self.model.new_kv(self.pool.num_blocks, self.pool.block_size)
        self._names: list[str] = []  # requests of the batch that runs
        if attention is not None:
            self.model.attention = StudentAttention(attention, lambda: self._names)
        elif on_gpu and options.get("flash_attn", True):
            self.model.attention = flash_attention(self.config, room.dtype, room.device)
        draft = options.get("draft")
        num_drafts = int(options.get("num_draft_tokens", NUM_DRAFT_TOKENS))
        self._drafter = Drafter(draft, num_drafts, self.config, self.model, self.kv) if draft else None
        self._graphs: DecodeGraphs | None = None
        if on_gpu and options.get("cuda_graphs", True) and attention is None and not use_timers:
            self._graphs = DecodeGraphs(self.model, self.kv, room.max_num_seqs, room.max_model_len)
        self._work = StepWork(self.config, self.model.weights.num_bytes, room.dtype.itemsize)
        self.probe: Probe | None = None
        self._adapters: dict[str, Adapter] = {}
        self._default_adapter = config.lora
        if config.lora:
            self._adapter(config.lora)
        self.text = Text(folder, self.config.vocab_size)
        self.chat_template = config.chat_template or self.text.chat_template
        self.bos_token, self.eos_token = self.text.bos_token, self.text.eos_token
        self.capabilities = Capabilities(
            kv="blocks", block_table=True, logprobs=True, prefix_caching=self.pool.prefix_caching, preemption=True,
            priority=True, lora="request", speculative=self._drafter is not None,
            pluggable=("policy", "sampler", "block_pool", "attention"),
        )  # fmt: skip
        self.header = self._header(
            config, room,
            engine_version=str(torch.__version__),  # a subclass of str, which no message can carry
            dtype=str(room.dtype).removeprefix("torch."), device=room.device_name,
            num_threads=torch.get_num_threads() if room.device.type == "cpu" else None,
            block_size=self.pool.block_size, num_blocks=self.pool.num_blocks,
            kv_cache_bytes=self.pool.num_blocks * self.kv.bytes_per_block,
        )  # fmt: skip

    # ---- one step

    @torch.inference_mode()
    def _step(self) -> Step:
        """Plan, forward pass, tokens, commit, free, record: in this order."""
        started = time.monotonic()
        plan = self.scheduler.schedule()  # who computes how many tokens, and the blocks for them
        wanted = self._drafter.room(plan, self.pool, self._generations, self.room) if self._drafter else {}
        scheduled = time.monotonic()
        drafts: dict[int, list[int]] = {}  # index of a share -> its draft tokens
        logits = None
        try:
            self.kv.copy(plan.copies)
            table = self.pool.block_table
            spans = [
                Span(seq.token_ids[first : first + number], first, table(seq.request_id))
                for seq, number, first, _ in plan.shares
            ]
            if self._drafter and spans:
                drafts = self._drafter.draft(spans, wanted, plan.copies)
            if spans:
                logits = self._forward(plan, spans, drafts)
        except BrokenOff:
            self.model.interrupted = False
            self.scheduler.give_back(plan)  # nothing is computed, nothing is committed
        rows = plan.records(drafts)  # on a GPU the pass goes on meanwhile
        extra = self._extra(rows, 0 if logits is None else len(logits))
        if self.model.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        forwarded = time.monotonic()
        tokens, ended = self._sample(plan, logits, drafts) if logits is not None else ([], {})
        self.scheduler.commit(plan)  # from now on, the KV of this step may be shared
        stopped_by = self._end(ended)  # blocks of who has ended are free
        kv = self._watcher.delta(self.scheduler.running, plan.copies)
        moments = started, scheduled, forwarded
        return self._record(plan, moments, rows=rows, tokens=tokens, stopped_by=stopped_by, kv=kv, extra=extra)

    def _forward(self, plan: StepPlan, spans: list[Span], drafts: dict[int, list[int]]) -> Tensor | None:
        """Logits of the rows that sample, in the order of the plan, drafts after their token; None when none does."""
        self._names = [share.seq.request_id for share in plan.shares]
        for i, token_ids in drafts.items():
            spans[i] = spans[i]._replace(token_ids=[*spans[i].token_ids, *token_ids])
        batch = make_batch(spans, self.kv.block_size, self.model.device)
        if self._adapters:
            batch.adapters = self._adapter_rows(plan, batch)
        hidden = self._hidden(batch)
        rows: list[int] = []
        for i, share in enumerate(plan.shares):
            if share.samples:
                end = batch.rows_of(i).stop
                rows += range(end - 1 - len(drafts.get(i, ())), end)
        if len(rows) < len(hidden):
            hidden = hidden[torch.tensor(rows, dtype=torch.long, device=hidden.device)]
        return self.model.logits(hidden) if rows else None

    def _hidden(self, batch: Batch) -> Tensor:
        if self.probe is not None:
            return self.probe.forward(self.model, batch, self.kv, self._names)
        if self._graphs is not None and self._graphs.fits(batch):
            return self._graphs.forward(batch)
        return self.model.forward(batch, self.kv)

    def _adapter_rows(self, plan: StepPlan, batch: Batch) -> list[tuple[Tensor, Adapter]]:
        """Which rows of the batch each LoRA adapter is for."""
        rows: dict[Adapter, list[int]] = defaultdict(list)
        for i, share in enumerate(plan.shares):
            adapter = self._generations[share.seq.request_id].adapter
            if adapter is not None:
                rows[adapter] += range(batch.rows_of(i).start, batch.rows_of(i).stop)
        return [(torch.tensor(r, device=self.model.device), adapter) for adapter, r in rows.items()]

    def _sample(
        self, plan: StepPlan, logits: Tensor, drafts: dict[int, list[int]]
    ) -> tuple[list[Token], dict[str, FinishReason]]:
        """The tokens of a step, and who has ended; drafts that were not agreed with leave no KV."""
        found = sample(plan.shares, logits, drafts, self._generations, self._sampler, self.text)
        for i in drafts:
            share, pool = plan.shares[i], self.pool
            num_valid = share.seq.num_tokens - share.num_computed_tokens - 1
            plan.shares[i] = share._replace(num_tokens=num_valid)
            assert isinstance(pool, PagedPool)
            pool.take_back(share.seq.request_id, share.num_computed_tokens + num_valid)
        return found

    def _extra(self, rows: tuple[ScheduledRequest, ...], num_sampled: int) -> dict[str, Any]:
        """The roofline point of a step, and where its forward pass spent its time."""
        if not rows:
            return {}
        phases = {name: round(seconds, 7) for name, seconds in self.model.phases.seconds.items()}
        return {**self._work.of(work_of(rows), num_sampled), **({"phases_s": phases} if phases else {})}

    # ---- requests

    def add_request(self, request: Request) -> None:
        params = SamplingParams.of(request.sampling)
        limit = self.room.max_model_len
        self.text.check(request.prompt_token_ids)
        check_prompt(request, params, limit, is_in_use=request.request_id in self._generations)
        if params.structure:
            raise RequestError(
                f"The torch engine follows no {params.structure}: it has no grammar to mask logits with. Use "
                "`-e llamacpp` or `-e vllm` for it."
            )
        path = params.lora or self._default_adapter
        adapter = self._adapter(path) if path else None
        seq = Sequence.of(request)
        seq.parent_id = request.parent_id
        if path:
            seq.salt = f"{request.salt}\0{path}"  # KV of two adapters is never shared
        self.scheduler.add(seq)
        answer = Answer(params, limit - len(request.prompt_token_ids))
        self._generations[request.request_id] = Generation(params, answer, adapter)

    def _adapter(self, path: str) -> Adapter:
        if path not in self._adapters:
            self._adapters[path] = Adapter(path, self.config, device=self.model.device, dtype=self.model.dtype)
        return self._adapters[path]

    def interrupt(self) -> None:
        """A block pool without take_back() cannot give room back: then the pass ends before the next command."""
        if self._generations and isinstance(self.pool, PagedPool):
            self.model.interrupted = True

    # ---- pool and parts

    def _empty_pool(self) -> tuple[PagedPool | CheckedPool, Scheduler]:
        room = self.room
        pool = make_pool(self._pool_wanted, room.num_blocks, room.block_size, prefix_caching=self._prefix_caching)
        scheduler = Scheduler(pool, self._policy, token_budget=room.token_budget, max_num_seqs=room.max_num_seqs)
        return pool, scheduler

    def _start_over(self) -> None:
        """A part broke its contract: what the pool holds is not to be trusted. All requests end, the pool is new."""
        number = self.scheduler.step_number
        self.pool, self.scheduler = self._empty_pool()
        self.scheduler.step_number = number + 1
        self._watcher.move_to(self.pool)
        for request_id in list(self._generations):
            self._forget(request_id, "error")

    # ---- text, and questions outside a step

    def tokenize(self, text: str) -> list[int]:
        return self.text.tokenize(text)

    def pieces(self, token_ids: list[int]) -> list[bytes]:
        self.text.check(token_ids)
        return [self.text.bytes_of[token_id] for token_id in token_ids]

    @torch.inference_mode()
    def logits(self, token_ids: list[int]) -> Floats:
        """Logits at every position of a text, [num_tokens, vocab_size], on KV of its own: requests may run.

        Raises: RequestError when the text is longer than max_model_len.
        """
        self._check_text(token_ids)
        kv, batch = own_kv(self.model, token_ids, self.kv.block_size)
        return self.model.logits(self.model.forward(batch, kv)).cpu().numpy()

    @torch.inference_mode()
    def inside(self, token_ids: list[int], layers: list[int] | None = None) -> dict[str, Any]:
        """Attention weights, hidden states and logit lens of a text: see torch_hooks.inside().

        Raises: RequestError when the text is longer than max_model_len.
        """
        self._check_text(token_ids)
        return inside(self.model, token_ids, None if layers is None else frozenset(layers), self.kv.block_size)

    def begin_probe(self, layers: list[int] | None = None) -> None:
        """Keep what the next steps compute: see torch_hooks.Probe."""
        self.probe = Probe(None if layers is None else frozenset(layers))

    def end_probe(self) -> list[dict[str, dict[str, Any]]]:
        probe, self.probe = self.probe, None
        return probe.steps if probe else []

    def _check_text(self, token_ids: list[int]) -> None:
        self.model.interrupted = False  # it was meant for a step that is over
        self._names = []  # this text is no request
        self.text.check(token_ids)
        if not 0 < len(token_ids) <= self.room.max_model_len:
            raise RequestError(f"A text must have 1 to {self.room.max_model_len} tokens, this has {len(token_ids)}.")

    def self_test(self) -> str | None:
        """A sentence when the arithmetic of this machine is broken, else None. A student's attention is not tested."""
        if isinstance(self.model.attention, StudentAttention):
            return None
        return self_test(self, is_altered=self._default_adapter is not None)

    def memory_bytes(self) -> dict[str, int]:
        """Weights and KV cache as they lie in memory, and the part of the cache that running requests hold."""
        per_block, num_blocks = self.kv.bytes_per_block, self.pool.num_blocks
        draft = {"draft": self._drafter.num_bytes} if self._drafter else {}
        return {
            "weights": self.model.weights.num_bytes,
            "kv_cache": num_blocks * per_block,
            "kv_used": (num_blocks - self.pool.num_free_blocks) * per_block,
            **draft,
        }

    def close(self) -> None:
        """Give everything back."""
        self._generations.clear()
        del self.model, self.kv, self._drafter, self._graphs
