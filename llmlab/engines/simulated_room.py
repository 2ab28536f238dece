"""What a simulated engine has room for, and how its KV cache is kept: blocks, cells, or one run for each sequence.

This file must not know time or requests.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llmlab.engines.student_parts import CheckedPolicy
from llmlab.errors import EngineError, unknown
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.block_pool_watcher import BlockWatcher
from llmlab.scheduling.cell_pool import KEPT_TOKENS, CellPool, num_attended, seats_for
from llmlab.scheduling.contiguous_pool import ContiguousPool
from llmlab.scheduling.contracts import Policy
from llmlab.scheduling.policies import POLICIES
from llmlab.scheduling.prefixes import common_prefix
from llmlab.scheduling.scheduler import StepPlan
from llmlab.trace import Capabilities, CellDelta, Header, KvDelta
from llmlab.trace.runs import placed_runs, runs

KV_KINDS = ("blocks", "cells", "contiguous")
SimulatedPool = PagedPool | CellPool | ContiguousPool


class EarlyPool(PagedPool):
    """Hashes appear when the room is taken: who comes later in the same step shares what is about to be computed.

    Source: vllm/v1/core/kv_cache_manager.py allocate_slots, which calls cache_blocks before the forward pass.
    """

    _asked: tuple[Sequence[int], str] = (), ""

    def lookup(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        self._asked = token_ids, salt
        return super().lookup(token_ids, salt)

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        """For the sequence of the last lookup, as the scheduler has it."""
        super().allocate(seq_id, num_tokens, cached_blocks)
        token_ids, salt = self._asked
        self.commit(seq_id, token_ids, len(cached_blocks) * self.block_size + num_tokens, salt)


@dataclass(frozen=True, slots=True)
class Room:
    """Limits, pool and policy of one simulated worker.

    Raises: EngineError for what cannot be.
    """

    kv_tokens: int
    kv: Literal["blocks", "cells", "contiguous"] = "blocks"
    block_size: int = 16
    token_budget: int = 256
    max_num_seqs: int = 16
    max_model_len: int = 2048
    policy: str | Policy | type[Policy] = "chunked"
    prefix_caching: bool = True
    # A prefix can be found in the step that computes it, as in vLLM; else from the next step on.
    early_hashes: bool = False
    kv_token_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.kv not in KV_KINDS:
            raise EngineError(unknown("kind of KV cache", str(self.kv), KV_KINDS))
        if isinstance(self.policy, str) and self.policy not in POLICIES:
            raise EngineError(unknown("policy", self.policy, POLICIES))
        for name in ("kv_tokens", "block_size", "token_budget", "max_num_seqs", "max_model_len"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise EngineError(f"{name} is {value!r}; it must be a whole number, 1 or more.")
        if self.kv_tokens < self.block_size:
            raise EngineError(f"kv_tokens is {self.kv_tokens}, less than one block of {self.block_size} tokens.")

    @property
    def num_blocks(self) -> int:
        return self.kv_tokens // self.block_size

    def make_policy(self) -> Policy:
        """One for each worker, since it may count; somebody else's under checks."""
        if isinstance(self.policy, str):
            return POLICIES[self.policy]()
        policy = self.policy() if isinstance(self.policy, type) else deepcopy(self.policy)
        return policy if type(policy) in POLICIES.values() else CheckedPolicy(policy)

    def make_pool(self) -> SimulatedPool:
        if self.kv == "cells":
            kept, num_seats = min(KEPT_TOKENS, self.kv_tokens), seats_for(self.max_num_seqs)
            return CellPool(self.kv_tokens, num_seats, prefix_caching=self.prefix_caching, max_kept_cells=kept)
        if self.kv == "contiguous":
            reserved = min(self.max_model_len, self.num_blocks * self.block_size)
            return ContiguousPool(self.num_blocks, self.block_size, reserved)
        kind = EarlyPool if self.early_hashes else PagedPool
        return kind(self.num_blocks, self.block_size, prefix_caching=self.prefix_caching)

    @property
    def capabilities(self) -> Capabilities:
        is_cells = self.kv == "cells"
        return Capabilities(
            kv="cells" if is_cells else "blocks",
            cell_source="predicted" if is_cells else None,
            block_table=not is_cells,
            prefix_caching=self.prefix_caching and self.kv != "contiguous",
            preemption=True,
            priority=True,
            reserves=self.kv == "contiguous",
            pluggable=("policy",),
        )

    def header(self, num_workers: int = 1, **about: Any) -> Header:
        """The header of a trace of this room; the blocks of several workers are numbered one after the other."""
        has_blocks = self.kv != "cells"
        num_blocks = num_workers * self.num_blocks
        size = self.block_size if has_blocks else 1
        num_tokens = num_blocks * size if has_blocks else self.kv_tokens
        return Header(
            engine="simulated",
            source="simulated",
            capabilities=self.capabilities,
            block_size=self.block_size if has_blocks else None,
            num_blocks=num_blocks if has_blocks else None,
            num_cells=None if has_blocks else self.kv_tokens,
            kv_cache_bytes=num_tokens * self.kv_token_bytes if self.kv_token_bytes else None,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            token_budget=self.token_budget,
            **about,
        )


class Watcher(Protocol):
    """Follows a pool from step to step."""

    def delta(self, alive: Collection[str], placed: StepPlan | None) -> KvDelta: ...


class WatchedBlocks:
    """Blocks, as BlockWatcher tells them."""

    def __init__(self, pool: PagedPool | ContiguousPool) -> None:
        self._watcher = BlockWatcher(pool)

    def delta(self, alive: Collection[str], placed: StepPlan | None) -> KvDelta:
        return self._watcher.delta(alive)


class WatchedCells:
    """Cells, as the pool places them."""

    def __init__(self, pool: CellPool) -> None:
        self._pool = pool
        self._cells: dict[str, list[int]] = {}  # request -> its cells in order of position, as of the last delta
        self._end = 0  # behind the last used cell
        self._num_used = 0

    def delta(self, alive: Collection[str], placed: StepPlan | None) -> CellDelta:
        """The change since the last call; `placed`: the plan that was computed in between."""
        pool, fresh_from = self._pool, {}
        if placed is not None:
            fresh_from = {share.seq.request_id: share.num_computed_tokens for share in placed.shares}
        has_changed_hands = bool(pool.take_operations())
        written: dict[str, tuple[tuple[int, int, int], ...]] = {}
        shared: dict[str, tuple[tuple[int, int], ...]] = {}
        freed: dict[str, tuple[tuple[int, int], ...]] = {}
        seats, by_seat = pool.seats(), pool.cells_by_seat()
        now = {request_id: by_seat[seat] for seat, request_id in seats.items()}
        if has_changed_hands:
            for name in sorted(self._cells.keys() | now.keys()):
                old, new = self._cells.get(name, []), now.get(name, [])
                start = fresh_from.get(name, len(new))
                num_same = common_prefix(old, new, min(len(old), len(new), start))
                if lost := sorted(old[num_same:]):
                    freed[name] = runs(lost)
                if gained := sorted(new[num_same:start]):
                    shared[name] = runs(gained)
                self._cells[name] = new[:start]
            self._cells = {name: self._cells[name] for name in now}
        for name, start in fresh_from.items():
            if name not in now:
                continue
            cells = now[name]
            written[name] = tuple(placed_runs(list(zip(cells[start:], range(start, len(cells)), strict=True))))
            mine = self._cells.setdefault(name, [])
            mine.extend(cells[len(mine) :])
            self._end = max(self._end, max(cells[start:], default=-1) + 1)
            self._num_used += len(cells) - start
        if has_changed_hands:
            used = {cell for cells in self._cells.values() for cell in cells}
            self._num_used, self._end = len(used), max(used, default=-1) + 1
        return CellDelta(
            written=written,
            shared=shared,
            freed=freed,
            num_used=self._num_used,
            num_cells=pool.num_blocks,
            num_attended=self.num_attended(),
            head=pool.head,
        )

    def num_attended(self, placed: Collection[int] = ()) -> int:
        """Cells that attention reads, those included in which a batch was just placed."""
        end = max(self._end, max(placed, default=-1) + 1)
        return num_attended(end, self._pool.num_blocks)
