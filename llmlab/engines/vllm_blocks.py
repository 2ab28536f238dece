"""BlockWatcher: how vLLM's block tables, reference counts and hashes change, one BlockChanges a step.

With async scheduling step i + 1 is scheduled before the output of step i is known, so what is read at the end of step
i has the blocks of i + 1 in it. Each change belongs to the step that made it: the watcher knows the changes of the
steps in flight, and takes them back out of what it reads.
This file must not know tokens or records. It reads vLLM's scheduler and never writes it.
Source: vllm/v1/core/kv_cache_manager.py, block_pool.py, single_type_kv_cache_manager.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from llmlab.engines.vllm_changes import BlockChanges
from llmlab.engines.vllm_hashes import AllHashes, TrackedHashes
from llmlab.trace import BlockDelta

# Longest part of the free queue that a step tells.
FREE_HEAD = 16
# Above this size, reading every block in every step costs more than it shows.
MAX_FULL_BLOCKS = 512


class BlockWatcher:
    """Follows the blocks of one scheduler, from what they are now on. `level` is "delta" or "full".

    full: every block and every block table is read twice a step. delta: tables come from SchedulerOutput, and only
    blocks that changed hands or were filled are read; models with several KV cache groups have the tables of the
    scheduled requests read, since a sliding window frees blocks without a word.
    """

    def __init__(self, scheduler: Any, level: str) -> None:
        manager = scheduler.kv_cache_manager
        self._pool = manager.block_pool
        self._managers = manager.coordinator.single_type_managers
        self._null = self._pool.null_block.block_id
        self._is_full = level == "full"
        self._has_groups = not _is_plain(self._managers)
        self._all_hashes = AllHashes(self._pool)
        self._tracked_hashes = TrackedHashes(scheduler, self._pool, self._managers[0].block_size)
        self._ref_counts = [0] * len(self._pool.blocks)  # as they were told last
        self._in_flight: list[BlockChanges] = []  # scheduled, output not known yet; the oldest first
        # For each KV cache group, request id -> its block table with the null blocks in it, where tables are read.
        self._tables_of: list[dict[str, list[int]]] = [{} for _ in self._managers]
        self.tables: dict[str, list[int]] = {}  # request id -> blocks it holds now; null blocks are none
        self.num_blocks = self._pool.num_gpu_blocks - 1  # the null block is no block
        self._unsettled = BlockChanges()  # changes that belong to no step in flight
        self.resync()

    def resync(self) -> None:
        """Find out what changed unseen; the next step tells it."""
        self._read_tables(self._unsettled, None)
        if self._is_full:
            self._all_hashes.look(self._unsettled)
        else:
            self._tracked_hashes.look_everywhere(self._unsettled)
            for request_id, table in self.tables.items():
                self._tracked_hashes.appended(request_id, table, self._unsettled)

    def schedule(self, output: Any) -> BlockChanges:
        """What this call of schedule() did. The step is in flight until finish()."""
        changes = BlockChanges()
        self._in_flight.append(changes)
        self._tracked_hashes.next_step()
        if self._is_still(output):
            return changes
        for request_id in output.preempted_req_ids or ():
            changes.free(request_id, self._drop(request_id))
        if self._is_full:
            self._read_tables(changes, None)
        elif self._has_groups:
            self._read_tables(changes, output.num_scheduled_tokens)
        else:
            self._follow(output, changes)
        self._look_at_hashes(changes)
        return changes

    def _is_still(self, output: Any) -> bool:
        """No block changes hands and none becomes full: most steps of a decode are so."""
        return not (
            self._is_full
            or self._has_groups
            or self._tracked_hashes.may_fill
            or output.scheduled_new_reqs
            or output.preempted_req_ids
            or any(output.scheduled_cached_reqs.new_block_ids)
        )

    def end(self, request_id: str, changes: BlockChanges | None) -> None:
        """A request ended in the step of these changes, the oldest in flight: all its blocks leave there.

        None: in a step that is not in flight. settle() tells it, or the next step that ends.
        """
        held = self._drop(request_id)
        for later in reversed(self._in_flight):
            if later is changes:
                break
            held = later.forget(request_id, held)
        (self._unsettled if changes is None else changes).free(request_id, held)

    def look(self, changes: BlockChanges) -> None:
        """Note what update_from_output() did, but for the requests that ended."""
        self._look_at_hashes(changes)

    def finish(self, changes: BlockChanges) -> BlockChanges:
        """All changes of the step that has just ended, and of older ones, whose forward pass failed."""
        if self._unsettled:
            whole, self._unsettled = self._unsettled, BlockChanges()
        else:
            whole = self._in_flight.pop(0)
        while whole is not changes and self._in_flight:
            oldest = self._in_flight.pop(0)
            whole.then(oldest)
            if oldest is changes:
                break
        in_flight = self._held_in_flight()
        if whole or self._is_full:
            blocks = range(len(self._ref_counts)) if self._is_full else whole.touched()
            self._read_counts(whole, blocks, in_flight)
        whole.num_free = self._pool.get_num_free_blocks()
        for block, num_held in in_flight.items():
            now = self._pool.blocks[block].ref_cnt
            whole.num_free += (now == num_held) - (now == 0)
        return whole

    def settle(self, told: BlockDelta) -> BlockDelta:
        """The delta of the step that ended last, with the blocks that left since then."""
        unsettled, self._unsettled = self._unsettled, BlockChanges()
        if not unsettled.freed:
            return told
        touched = unsettled.touched()
        num_held = sum(1 for block in touched if self._ref_counts[block])
        changes = BlockChanges.of(told).then(unsettled)
        self._read_counts(changes, touched, self._held_in_flight())
        changes.num_free = told.num_free + num_held - sum(1 for block in touched if self._ref_counts[block])
        return changes.record(self.num_blocks)

    def snapshot(self) -> BlockDelta:
        """The blocks after the last step that ended, as changes of an empty cache."""
        tables = {request_id: list(blocks) for request_id, blocks in self.tables.items()}
        cached = (self._all_hashes if self._is_full else self._tracked_hashes).blocks
        for later in (*reversed(self._in_flight), self._unsettled):
            for request_id, blocks in later.allocated.items():
                tables[request_id] = [block for block in tables.get(request_id, ()) if block not in blocks]
            for request_id, blocks in later.freed.items():
                tables.setdefault(request_id, []).extend(blocks)
            cached = (cached - later.cached.keys()) | later.evicted.keys()
        whole = BlockChanges(allocated={r: blocks for r, blocks in tables.items() if blocks})
        whole.cached = dict.fromkeys(sorted(cached))
        whole.ref_counts = {block: count for block, count in enumerate(self._ref_counts) if count}
        whole.num_free = self.num_blocks - len(whole.ref_counts)
        if self._has_groups:
            for group, held in enumerate(self._tables_of):
                whole.group_of.update((block, group) for blocks in held.values() for block in blocks)
        return whole.record(self.num_blocks)

    def _read_counts(self, changes: BlockChanges, block_ids: Iterable[int], in_flight: dict[int, int]) -> None:
        """Reference counts that changed, and the free queue, as they are without the steps in flight."""
        blocks, last = self._pool.blocks, self._ref_counts
        for block in block_ids:
            count = blocks[block].ref_cnt - in_flight.get(block, 0)
            if count != last[block] and block != self._null:
                last[block] = changes.ref_counts[block] = count
        if self._is_full:
            changes.free_head = tuple([b for b in self._free_head() if in_flight.get(b, 0) >= 0])

    def _held_in_flight(self) -> dict[int, int]:
        """block -> how much higher its count is because of the steps in flight."""
        held: dict[int, int] = {}
        for changes in self._in_flight:
            for blocks in changes.allocated.values():
                for block in blocks:
                    held[block] = held.get(block, 0) + 1
            for blocks in changes.freed.values():
                for block in blocks:
                    held[block] = held.get(block, 0) - 1
        return held

    def _free_head(self) -> Iterable[int]:
        block = self._pool.free_block_queue.fake_free_list_head.next_free_block
        # The queue ends with a block that is none: its id is -1.
        for _ in range(FREE_HEAD):
            if block is None or block.block_id < 0:
                return
            yield block.block_id
            block = block.next_free_block

    # ---- block tables

    def _drop(self, request_id: str) -> list[int]:
        self._tracked_hashes.dropped(request_id)
        for tables in self._tables_of:
            tables.pop(request_id, None)
        return self.tables.pop(request_id, [])

    def _follow(self, output: Any, changes: BlockChanges) -> None:
        """What SchedulerOutput says: new requests with their whole table, others with the blocks that are new."""
        for new in output.scheduled_new_reqs:
            self._append(new.req_id, new.block_ids[0], changes)
        running = output.scheduled_cached_reqs
        if any(running.new_block_ids):
            for request_id, groups in zip(running.req_ids, running.new_block_ids, strict=True):
                if groups:
                    self._append(request_id, groups[0], changes)

    def _append(self, request_id: str, blocks: list[int], changes: BlockChanges) -> None:
        self.tables.setdefault(request_id, []).extend(blocks)
        self._tables_of[0].setdefault(request_id, []).extend(blocks)
        changes.append(request_id, blocks)
        self._tracked_hashes.appended(request_id, blocks, changes)

    def _read_tables(self, changes: BlockChanges, request_ids: Iterable[str] | None) -> None:
        """Compare the block tables with what we know of them; of all requests, or of these."""
        got: dict[str, list[int]] = {}
        for group, manager in enumerate(self._managers):
            tables = manager.req_to_blocks  # a defaultdict: only look
            for request_id in list(tables) if request_ids is None else request_ids:
                now = [block.block_id for block in tables.get(request_id, ())]
                new = self._compare(request_id, group, now, changes)
                got.setdefault(request_id, []).extend(new)
                if self._has_groups:
                    changes.group_of.update(dict.fromkeys(new, group))
        # Not before all groups were looked at: a block may move from one to another.
        for request_id, blocks in got.items():
            if blocks:
                changes.append(request_id, blocks)
                self.tables.setdefault(request_id, []).extend(blocks)

    def _compare(self, request_id: str, group: int, now: list[int], changes: BlockChanges) -> list[int]:
        """The blocks that are new in a block table; those that left it are freed."""
        before = self._tables_of[group].get(request_id, [])
        self._tables_of[group][request_id] = now
        if now[: len(before)] == before:
            return [block for block in now[len(before) :] if block != self._null]
        # A window moved on: null blocks stand where it was.
        pairs = [(old, new) for old, new in zip_longest(before, now, fillvalue=self._null) if old != new]
        left = [old for old, _ in pairs if old != self._null]
        changes.free(request_id, left)
        self.tables[request_id] = [block for block in self.tables[request_id] if block not in left]
        return [new for _, new in pairs if new != self._null]

    # ---- hashes

    def _look_at_hashes(self, changes: BlockChanges) -> None:
        if self._is_full:
            self._all_hashes.look(changes)
        elif self._has_groups:
            held = {block for table in self.tables.values() for block in table}
            self._tracked_hashes.look_at(held, changes)
        else:
            self._tracked_hashes.look(self.tables, changes)


def _is_plain(managers: Any) -> bool:
    """One block table a request, which only grows: full attention in every layer."""
    return len(managers) == 1 and type(managers[0]).__name__ == "FullAttentionManager"
