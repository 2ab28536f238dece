"""CheckedPool: a block pool that somebody else wrote, with every invariant checked after every call.

Where one is broken, a sentence says which call broke it and on which sequence or block. It looks at the pool through
its contract alone and believes none of its counts. Slow on purpose: every call costs a look at all blocks.
This file must not know an engine or a model.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from llmlab.errors import LlmlabError, NoFreeBlocks, PartFailed
from llmlab.scheduling.block_pool import PoolChanges
from llmlab.scheduling.contracts import BlockCopy, BlockPool, PrefixCachingPool

METHODS = ("num_free_blocks", "allocate", "append", "fork", "free", "block_table", "num_tokens", "ref_count")

# What a block holds once its KV is computed: the salt, and every token up to its end.
Content = tuple[str, tuple[int, ...]]


class _Seen(NamedTuple):
    """All that the contract shows of a pool at one moment."""

    tables: dict[str, tuple[int, ...]]
    ref_counts: tuple[int, ...]
    num_free: int


class CheckedPool:
    """Passes every call on to `pool`. Raises PartFailed after the call that breaks an invariant, or in its place."""

    def __init__(self, pool: BlockPool) -> None:
        missing = [name for name in ("num_blocks", "block_size", *METHODS) if not hasattr(pool, name)]
        if missing:
            raise PartFailed(f"{type(pool).__name__} is no BlockPool: it lacks {', '.join(missing)}")
        self.pool, self.num_blocks, self.block_size = pool, pool.num_blocks, pool.block_size
        self._prefixes = pool if isinstance(pool, PrefixCachingPool) else None
        self._num_tokens: dict[str, int] = {}  # what each sequence must have room for
        self._contents: dict[int, Content] = {}  # of blocks whose KV is computed
        self._findable: set[int] = set()  # of these: the ones that lookup has shown to be cached
        self._seen = self._look("the constructor")
        self._changes = PoolChanges()

    @property
    def num_free_blocks(self) -> int:
        return self.pool.num_free_blocks

    @property
    def prefix_caching(self) -> bool:
        return self._prefixes is not None

    def block_table(self, seq_id: str) -> tuple[int, ...]:
        return tuple(self.pool.block_table(seq_id))

    def num_tokens(self, seq_id: str) -> int:
        return self.pool.num_tokens(seq_id)

    def ref_count(self, block_id: int) -> int:
        return self.pool.ref_count(block_id)

    def lookup(self, token_ids: Sequence[int], salt: str = "") -> list[int]:
        if self._prefixes is None:
            return []
        call = f"lookup() of {len(token_ids)} tokens"
        found = list(guarded(call, self._prefixes.lookup, token_ids, salt))
        size, longest = self.block_size, max(0, len(token_ids) - 1) // self.block_size
        if self._look(call) != self._seen:
            fail(call, "it changed the pool; lookup only looks")
        if len(found) > longest:
            text = f"it hits {len(found)} blocks of {size}, at most {longest} are allowed: one token must be left over"
            fail(call, text)
        for i, block in enumerate(found):
            self._check_hit(call, block, (salt, tuple(token_ids[: (i + 1) * size])))
        return found

    def allocate(self, seq_id: str, num_tokens: int, cached_blocks: Sequence[int] = ()) -> None:
        call = f"allocate({seq_id!r}, {num_tokens}{f', {list(cached_blocks)}' if cached_blocks else ''})"
        num_new = self._blocks_for(num_tokens)
        needed = num_new + sum(1 for block in cached_blocks if not self._seen.ref_counts[block])
        try:
            if self._prefixes is not None:
                guarded(call, self._prefixes.allocate, seq_id, num_tokens, cached_blocks)
            else:
                guarded(call, self.pool.allocate, seq_id, num_tokens)
        except NoFreeBlocks:
            self._check_refusal(call, needed)
            raise
        self._num_tokens[seq_id] = len(cached_blocks) * self.block_size + num_tokens
        before = self._after(call)
        table = self._seen.tables[seq_id]
        if table[: len(cached_blocks)] != tuple(cached_blocks):
            fail(call, f"the block table of {seq_id} is {list(table)}, it must begin with the cached blocks")
        self._check_new(call, seq_id, table[len(cached_blocks) :], before)

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        call = f"append({seq_id!r}, {num_tokens})"
        table, num_held = self._seen.tables[seq_id], self._num_tokens[seq_id]
        is_shared = num_held % self.block_size > 0 and self._seen.ref_counts[table[-1]] > 1
        needed = self._blocks_for(num_held + num_tokens) - len(table) + is_shared
        try:
            copies = list(guarded(call, self.pool.append, seq_id, num_tokens) or ())
        except NoFreeBlocks:
            self._check_refusal(call, needed)
            raise
        self._num_tokens[seq_id] = num_held + num_tokens
        before = self._after(call)
        now, num_kept = self._seen.tables[seq_id], len(table) - is_shared
        if now[:num_kept] != table[:num_kept]:
            fail(call, f"the block table of {seq_id} was {list(table)} and is {list(now)}: it may only grow")
        wanted = [BlockCopy(table[-1], now[num_kept])] if is_shared else []
        if copies != wanted:
            what = f"block {table[-1]} is shared and partly filled" if is_shared else "nothing is shared"
            fail(call, f"{what}: it must return {wanted}, it returned {copies}")
        self._check_new(call, seq_id, now[num_kept:], before)
        return copies

    def fork(self, parent_id: str, child_id: str) -> None:
        call = f"fork({parent_id!r}, {child_id!r})"
        guarded(call, self.pool.fork, parent_id, child_id)
        self._num_tokens[child_id] = self._num_tokens[parent_id]
        before = self._after(call)
        if self._seen.tables[child_id] != before.tables[parent_id]:
            text = f"the child has the block table {list(self._seen.tables[child_id])}"
            fail(call, f"{text}, the parent {list(before.tables[parent_id])}")

    def commit(self, seq_id: str, token_ids: Sequence[int], num_computed_tokens: int, salt: str = "") -> None:
        if self._prefixes is None:
            return
        call, size = f"commit({seq_id!r}, ..., {num_computed_tokens})", self.block_size
        guarded(call, self._prefixes.commit, seq_id, token_ids, num_computed_tokens, salt)
        self._after(call)
        table, fresh = self._seen.tables[seq_id], 0
        for i in range(num_computed_tokens // size):
            content = (salt, tuple(token_ids[: (i + 1) * size]))
            fresh += self._contents.get(table[i]) != content
            self._contents[table[i]] = content
        if fresh:  # what lookup finds now is cached; one token more stands for the one that is left over
            for block in self.lookup([*token_ids[: num_computed_tokens // size * size], 0], salt):
                self._note_findable(block, True)

    def free(self, seq_id: str) -> None:
        call = f"free({seq_id!r})"
        guarded(call, self.pool.free, seq_id)
        del self._num_tokens[seq_id]
        self._after(call)
        try:
            self.pool.block_table(seq_id)
        except KeyError:
            return
        fail(call, f"{seq_id} still has a block table")

    # ---- what an engine needs beside it

    def hash_of(self, block_id: int) -> bytes | None:
        """Of what the block holds: a block that gets another content within a step is told as evicted and cached."""
        return b"%d" % hash(self._contents.get(block_id)) if block_id in self._findable else None

    def next_free(self, num_blocks: int) -> tuple[int, ...]:
        """The contract does not tell."""
        return ()

    def take_changes(self) -> PoolChanges:
        changes, self._changes = self._changes, PoolChanges()
        return changes

    # ---- the invariants

    def _after(self, call: str) -> _Seen:
        """Look again, note what changed, and give back how it was before."""
        before, self._seen = self._seen, self._look(call)
        for seq_id in before.tables.keys() | self._seen.tables.keys():
            if before.tables.get(seq_id) != self._seen.tables.get(seq_id):
                self._changes.tables.add(seq_id)
        for block, (old, new) in enumerate(zip(before.ref_counts, self._seen.ref_counts, strict=True)):
            if old != new:
                self._changes.ref_counts.setdefault(block, old)
        return before

    def _look(self, call: str) -> _Seen:
        """The pool as its contract shows it. Raises: PartFailed where that contradicts itself."""
        pool, size = self.pool, self.block_size
        tables: dict[str, tuple[int, ...]] = {}
        holders: dict[int, list[str]] = {}
        for seq_id, num_tokens in self._num_tokens.items():
            try:
                table = tables[seq_id] = tuple(pool.block_table(seq_id))
            except KeyError:
                fail(call, f"{seq_id} has no block table")
            if pool.num_tokens(seq_id) != num_tokens:
                fail(call, f"num_tokens({seq_id!r}) is {pool.num_tokens(seq_id)}, expected {num_tokens}")
            if len(table) != self._blocks_for(num_tokens):
                num_wanted = self._blocks_for(num_tokens)
                fail(
                    call, f"{seq_id} holds {len(table)} blocks of {size} for {num_tokens} tokens, expected {num_wanted}"
                )
            for block in table:
                if not isinstance(block, int) or not 0 <= block < self.num_blocks:
                    fail(call, f"{seq_id} holds block {block!r}; block ids are 0 to {self.num_blocks - 1}")
                if seq_id in holders.setdefault(block, []):
                    fail(call, f"block {block} stands twice in the block table of {seq_id}")
                holders[block].append(seq_id)
        ref_counts = tuple(pool.ref_count(block) for block in range(self.num_blocks))
        for block, count in enumerate(ref_counts):
            if count != len(who := holders.get(block, [])):
                fail(call, f"block {block} has ref_count {count}, but {len(who)} block tables hold it ({who[:4]})")
        num_free = pool.num_free_blocks
        if num_free + len(holders) != self.num_blocks:
            kind = "blocks leaked" if num_free + len(holders) < self.num_blocks else "a held block is free as well"
            fail(call, f"{len(holders)} held + {num_free} free is not {self.num_blocks}: {kind}")
        return _Seen(tables, ref_counts, num_free)

    def _check_refusal(self, call: str, needed: int) -> None:
        changed = "it raised NoFreeBlocks after it had changed the pool; look for room first"
        try:
            now = self._look(call)
        except PartFailed as error:
            fail(call, f"{changed} ({str(error).removeprefix(f'{call}: ')})")
        if now != self._seen:
            fail(call, changed)
        if needed <= self._seen.num_free:
            fail(call, f"it raised NoFreeBlocks, but {needed} blocks are needed and {self._seen.num_free} are free")

    def _check_new(self, call: str, seq_id: str, new: Sequence[int], before: _Seen) -> None:
        """Blocks to be written belong to nobody else, and what was in them is gone."""
        for block in new:
            if before.ref_counts[block]:
                holder = next(name for name, table in before.tables.items() if block in table)
                fail(call, f"{seq_id} gets block {block} to write in, which {holder} holds")
            self._note_findable(block, False)
            self._contents.pop(block, None)

    def _check_hit(self, call: str, block: int, wanted: Content) -> None:
        content = self._contents.get(block)
        if content is None:
            fail(call, f"it hits block {block}, whose KV was never computed or is overwritten: a stale hash")
        if content[0] != wanted[0]:
            fail(call, f"it hits block {block}, which was filled under the salt {content[0]!r}, not {wanted[0]!r}")
        if content[1] != wanted[1]:
            fail(
                call, f"it hits block {block}, whose KV is that of other tokens, or of the same after another beginning"
            )

    def _note_findable(self, block: int, is_findable: bool) -> None:
        if is_findable != (block in self._findable):
            self._changes.hashes.setdefault(block, self.hash_of(block))
            (self._findable.add if is_findable else self._findable.discard)(block)

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)


def guarded(call: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The value of somebody else's function. Raises: PartFailed, with the place, for an error that it did not mean."""
    try:
        return function(*arguments)
    except LlmlabError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(sys.exc_info()[2])[1:]
        where = f", in line {frames[-1].lineno} of {frames[-1].name}(): {frames[-1].line}" if frames else ""
        raise PartFailed(f"{call}: {type(error).__name__}: {error}{where}") from error


def fail(call: str, text: str) -> NoReturn:
    """Raises: PartFailed, always."""
    raise PartFailed(f"{call}: {text}")
