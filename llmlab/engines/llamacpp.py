"""llama.cpp as an engine that batches continuously: one step is one llama_decode over all sequences that run.

llama-cpp-python's own `Llama` class and server take one request at a time; this uses the library below them. Who runs
when is llmlab/scheduling; the context, the cells and the sampling have files of their own beside this one.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar, NamedTuple

from llmlab.engines.base import EngineConfig, Floats, Sampler, SamplingParams, check_prompt, checked_options
from llmlab.engines.llamacpp_cells import CellWatcher, MirroredCells, raw_reader
from llmlab.engines.llamacpp_context import Context
from llmlab.engines.llamacpp_embedding import Embedder
from llmlab.engines.llamacpp_library import lib
from llmlab.engines.llamacpp_sampling import TokenSampler
from llmlab.engines.logprobs import logprobs
from llmlab.engines.self_test import self_test
from llmlab.engines.stepping import SteppingEngine
from llmlab.engines.streaming import Answer
from llmlab.engines.student_parts import CheckedSampler, make_policy
from llmlab.errors import EngineError, RequestError
from llmlab.scheduling.cell_pool import KEPT_TOKENS, CellPool
from llmlab.scheduling.contracts import Policy
from llmlab.scheduling.plan import StepPlan
from llmlab.scheduling.policies import check_policy
from llmlab.scheduling.scheduler import Scheduler
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import Capabilities, CellDelta, FinishReason, Request, Step, Token

OPTIONS = ("threads", "flash_attn", "extra_bufts", "gpu_layers", "prefix_caching", "kept_tokens", "policy", "raw_cells")


class _Generation(NamedTuple):
    """What this engine keeps of one request beside its Sequence."""

    params: SamplingParams
    sampler: TokenSampler
    answer: Answer


class LlamaCppEngine(SteppingEngine[_Generation]):
    """Continuous batching, prefix sharing and preemption on a unified llama.cpp KV cache.

    Raises: EngineError when the model or an option cannot be used.
    """

    name = "llamacpp"
    # parts that no class of a student can take the place of, and why
    refuses: ClassVar = {"block_pool": "llama.cpp keeps its KV cache in cells, not blocks: no block pool plugs in."}

    def __init__(self, config: EngineConfig, *, policy: Policy | None = None, sampler: Sampler | None = None) -> None:
        super().__init__()
        options = _checked(config.options)
        self.context = Context(config, options)
        self.model = self.context.model
        self.pool = CellPool(
            self.context.num_cells,
            self.context.num_seats,
            prefix_caching=options.get("prefix_caching", True),
            max_kept_cells=int(options.get("kept_tokens", KEPT_TOKENS)),
        )
        self.scheduler = Scheduler(
            self.pool,
            make_policy(policy, options.get("policy", "chunked")),
            token_budget=self.context.token_budget,
            max_num_seqs=self.context.max_num_seqs,
        )
        self._sampler = CheckedSampler(sampler) if sampler is not None else None
        self._embedder: Embedder | None = None  # made for the first text
        self._has_adapter = config.lora is not None
        self.chat_template = config.chat_template or self.model.chat_template
        self.bos_token, self.eos_token = self.model.bos_token, self.model.eos_token
        self._watch_cells(raw=options.get("raw_cells", True))
        context = self.context
        self.header = self._header(
            config, context,
            engine_version=lib.__version__, quant=config.quant, dtype=context.kv_type,
            device="GPU" if lib.llama_supports_gpu_offload() else "CPU", num_threads=context.num_threads,
            num_cells=context.num_cells, kv_cache_bytes=context.num_cells * context.kv_bytes_per_token,
        )  # fmt: skip

    def _watch_cells(self, *, raw: bool) -> None:
        """Let the raw reader prove itself on a first decode, then empty the cache."""
        first = max(lib.llama_vocab_bos(self.model.vocab), 0)
        self.context.batch.add_run([first, first], 0, 0, logits=True)
        self.context.decode()
        reader = raw_reader(self.context.pointer, self.context.num_cells, self.context.num_seats) if raw else None
        self.context.clear()
        self.capabilities = Capabilities(
            kv="cells",
            cell_source="raw" if reader else "predicted",
            logprobs=True,
            prefix_caching=self.pool.prefix_caching,
            preemption=True,
            priority=True,
            grammar=True,
            json_schema=True,
            lora="engine",
            pluggable=("policy", "sampler"),
        )
        self._placed: list[int] = []  # cells of the last batch, in its order, as the pool expects them
        self._seats_changed = False  # since the last step was recorded
        self._watcher = CellWatcher(reader or MirroredCells(self.pool))

    def self_test(self) -> str | None:
        """A sentence when the arithmetic of this machine is broken, else None. Leaves the cache empty."""
        return self_test(self, is_altered=self._has_adapter)

    # ---- text, and questions outside a step

    def tokenize(self, text: str) -> list[int]:
        return self.model.tokenize(text)

    def pieces(self, token_ids: list[int]) -> list[bytes]:
        self._check_ids(token_ids)
        return [self.model.piece(token_id, special=True) for token_id in token_ids]

    def logits(self, token_ids: list[int]) -> Floats:
        """Logits at every position of a text, [num_tokens, num_vocab]. Kept prefixes are forgotten.

        Raises: RequestError while requests run, or when the text is longer than max_model_len.
        """
        if self.has_unfinished_requests():
            raise RequestError("logits() needs an idle engine: wait for the running requests, or stop them.")
        self._check_ids(token_ids)
        if not 0 < len(token_ids) <= self.context.max_model_len:
            raise RequestError(f"logits() takes 1 to {self.context.max_model_len} tokens, got {len(token_ids)}.")
        self.pool.clear()
        self._seats_changed = True
        return self.context.logits_of(token_ids)

    def embed(self, token_ids: list[int]) -> Floats:
        """The vector of a text, [hidden_size], of length 1. Requests go on afterwards as if nothing had been.

        Raises: RequestError for a text that is empty or too long.
        """
        self._check_ids(token_ids)
        if self._embedder is None:
            self._embedder = Embedder(self.model, self.context.num_threads)
        return self._embedder.embed(token_ids)

    def memory_bytes(self) -> dict[str, int]:
        """Weights as llama.cpp reports them; the KV cache, and the part of it that running requests hold."""
        per_token = self.context.kv_bytes_per_token
        return {
            "weights": self.model.size_bytes,
            "kv_cache": self.context.num_cells * per_token,
            "kv_used": (self.context.num_cells - self.pool.num_free_blocks) * per_token,
        }

    def _check_ids(self, token_ids: list[int] | tuple[int, ...]) -> None:
        wrong = next((i for i in token_ids if not 0 <= i < self.model.num_vocab), None)
        if wrong is not None:
            raise RequestError(f"token id {wrong} is not in the vocabulary of {self.model.num_vocab} tokens.")

    # ---- requests

    def add_request(self, request: Request) -> None:
        params = SamplingParams.of(request.sampling)
        limit = self.context.max_model_len
        self._check_ids(request.prompt_token_ids)
        check_prompt(request, params, limit, is_in_use=request.request_id in self._generations)
        sampler = TokenSampler(self.context, params, self._sampler)
        self.scheduler.add(Sequence.of(request))
        answer = Answer(params, limit - len(request.prompt_token_ids))
        self._generations[request.request_id] = _Generation(params, sampler, answer)

    def interrupt(self) -> None:
        self.context.interrupt()

    # ---- one step

    def _step(self) -> Step:
        started = time.monotonic()
        plan = self.scheduler.schedule()
        rows = self._fill_batch(plan)
        shares = plan.records()
        scheduled = time.monotonic()
        if not self._forward(plan):
            self.scheduler.give_back(plan)
            shares = ()
        moments = started, scheduled, time.monotonic()
        tokens, ended = self._sample(plan, rows)
        stopped_by, kv = self._end(ended), self._cell_delta(plan)
        return self._record(plan, moments, rows=shares, tokens=tokens, stopped_by=stopped_by, kv=kv)

    def _fill_batch(self, plan: StepPlan) -> dict[str, int]:
        """The batch of a plan, on a cache that is where the pool is. request_id -> row of the logits it samples."""
        self._repeat_operations()
        self.context.batch.clear()
        rows = {}
        for share in plan.shares:
            request_id, first = share.seq.request_id, share.num_computed_tokens
            token_ids = share.seq.token_ids[first : first + share.num_tokens]
            row = self.context.batch.add_run(token_ids, first, self.pool.seat(request_id), logits=share.samples)
            if share.samples:
                rows[request_id] = row
        return rows

    def _forward(self, plan: StepPlan) -> bool:
        """True when the KV of the plan exists now; False when the pass was broken off."""
        if plan.shares and not self.context.decode():
            return False
        self._placed = self.pool.place((share.seq.request_id, share.num_tokens) for share in plan.shares)
        self.scheduler.commit(plan)
        return True

    def _sample(self, plan: StepPlan, rows: dict[str, int]) -> tuple[list[Token], dict[str, FinishReason]]:
        """The tokens of a step, and who has ended."""
        tokens: list[Token] = []
        ended: dict[str, FinishReason] = {}
        for share in plan.shares:
            request_id = share.seq.request_id
            if request_id not in rows:
                continue
            params, sampler, answer = self._generations[request_id]
            token_id = sampler.sample(rows[request_id])
            share.seq.token_ids.append(token_id)
            logprob, top = self._logprobs(params, rows[request_id], token_id)
            text, reason = answer.push(self.model.piece(token_id), is_end=self.model.is_end(token_id))
            tokens.append(Token(request_id=request_id, token_id=token_id, text=text, logprob=logprob, top=top))
            if reason:
                ended[request_id] = reason
        return tokens, ended

    def _logprobs(
        self, params: SamplingParams, row: int, token_id: int
    ) -> tuple[float | None, tuple[tuple[int, float, str], ...]]:
        if params.logprobs is None:
            return None, ()
        logprob, top = logprobs(self.context.logits(row), token_id, params.logprobs)
        return logprob, tuple((i, lp, self.model.token_text(i)) for i, lp in top)

    def _forget(self, request_id: str, reason: FinishReason) -> None:
        self._generations[request_id].sampler.close()
        super()._forget(request_id, reason)

    def _cell_delta(self, plan: StepPlan) -> CellDelta:
        self._repeat_operations()
        only_written, self._seats_changed = not self._seats_changed, False
        seats = self.pool.seats()
        seat_of = {request_id: seat for seat, request_id in seats.items()}
        computed: dict[str, range] = {}
        placed: dict[int, tuple[int, int]] = {}
        cells = iter(self._placed)
        for share in plan.shares:
            request_id, first = share.seq.request_id, share.num_computed_tokens
            computed[request_id] = range(first, first + share.num_tokens)
            seat = seat_of.get(request_id, -1)
            for position in computed[request_id]:
                placed[next(cells)] = position, seat
        return self._watcher.delta(seats, computed, placed if only_written else None)

    def _repeat_operations(self) -> None:
        """Bring the real cache to where the pool is."""
        operations = self.pool.take_operations()
        self.context.repeat(operations)
        self._seats_changed |= bool(operations)

    def close(self) -> None:
        for generation in self._generations.values():
            generation.sampler.close()
        self._generations.clear()
        if self._embedder is not None:
            self._embedder.close()
        self.context.close()


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Raises: EngineError for an option this engine does not have."""
    if "block_pool" in options:
        raise EngineError(f"{LlamaCppEngine.refuses['block_pool']} Use -e torch.")
    checked_options(options, OPTIONS)
    check_policy(options)
    return options
