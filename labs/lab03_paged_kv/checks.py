"""Lab 3, paged KV: what is asked, how it is checked, and what each known mistake is told."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, Protocol

from llmlab.errors import NoFreeBlocks
from llmlab.labs.description import Check, CheckFailed, Figure, Lab, Names, Prediction, Question
from llmlab.labs.pictures import Blocks, blocks_picture
from llmlab.labs.reflection import reflection_question
from llmlab.language import tr
from llmlab.metrics import num_preemptions
from llmlab.scheduling.block_pool_checks import CheckedPool
from llmlab.scheduling.contracts import BlockCopy, BlockPool


class PoolClass(Protocol):
    def __call__(self, num_blocks: int, block_size: int) -> BlockPool: ...


def blocks_for(num_tokens: int, block_size: int) -> int:
    return -(-num_tokens // block_size)


def tokens_text(count: int) -> str:
    return tr("1 token") if count == 1 else tr("{count} tokens", count=count)


def blocks_text(count: int) -> str:
    return tr("1 block") if count == 1 else tr("{count} blocks", count=count)


class Followed:
    """A student's pool with the state that it should have, in the ids that the student's pool took."""

    def __init__(self, pool_class: PoolClass, num_blocks: int, block_size: int) -> None:
        self.pool = pool_class(num_blocks, block_size)
        self.num_blocks, self.block_size = num_blocks, block_size
        self.tables: dict[str, list[int]] = {}
        self.lengths: dict[str, int] = {}
        self.call = ""

    def allocate(self, seq_id: str, num_tokens: int) -> None:
        self.call = f"allocate({seq_id!r}, {num_tokens})"
        self.pool.allocate(seq_id, num_tokens)
        self._grow(seq_id, [], num_tokens)

    def append(self, seq_id: str, num_tokens: int = 1) -> list[BlockCopy]:
        """What the pool returned."""
        self.call = f"append({seq_id!r}, {num_tokens})"
        copies = self.pool.append(seq_id, num_tokens)
        table, num_held = self.tables[seq_id], self.lengths[seq_id]
        is_shared = num_held % self.block_size > 0 and self._count(table[-1]) > 1
        self._grow(seq_id, table[:-1] if is_shared else table, num_held + num_tokens)
        return copies

    def fork(self, parent_id: str, child_id: str) -> None:
        self.call = f"fork({parent_id!r}, {child_id!r})"
        self.pool.fork(parent_id, child_id)
        self.tables[child_id], self.lengths[child_id] = list(self.tables[parent_id]), self.lengths[parent_id]

    def free(self, seq_id: str) -> None:
        self.call = f"free({seq_id!r})"
        self.pool.free(seq_id)
        del self.tables[seq_id], self.lengths[seq_id]

    def adopt(self) -> None:
        """Take the tables as they are: what went wrong before is the matter of another check."""
        self.tables = {name: list(self.pool.block_table(name)) for name in self.tables}

    def yours(self) -> Blocks:
        tables = {name: [int(block) for block in self.pool.block_table(name)] for name in self.tables}
        counts = [int(self.pool.ref_count(block)) for block in range(self.num_blocks)]
        return Blocks(tables, counts, int(self.pool.num_free_blocks))

    def expected(self) -> Blocks:
        held = {block for table in self.tables.values() for block in table}
        counts = [self._count(block) for block in range(self.num_blocks)]
        return Blocks({name: list(table) for name, table in self.tables.items()}, counts, self.num_blocks - len(held))

    def fail(self, reason: str) -> None:
        raise CheckFailed(reason, blocks_picture(self.yours(), self.expected(), self.call, reason))

    def check(self, when: str) -> None:
        """Lengths, then counts, then free blocks. `when`: how the sentence begins."""
        yours, expected = self.yours(), self.expected()
        for name, table in yours.tables.items():
            num_wanted, num_tokens = len(expected.tables[name]), self.lengths[name]
            if len(table) != num_wanted:
                self.fail(
                    tr(
                        "{tokens} in blocks of {size}: {held}, expected {wanted}",
                        tokens=tokens_text(num_tokens),
                        size=self.block_size,
                        held=blocks_text(len(table)),
                        wanted=num_wanted,
                    )
                )
            if self.pool.num_tokens(name) != num_tokens:
                got = self.pool.num_tokens(name)
                self.fail(
                    tr("{when}: num_tokens({name!r}) is {got}, expected {wanted}", when=when, name=name, got=got,
                       wanted=num_tokens)
                )  # fmt: skip
        for block, count in enumerate(yours.counts):
            if count != len(who := yours.owners(block)):
                self.fail(
                    tr(
                        "{when}: block {block} has ref_count {count}, but {holders} block tables hold it ({who})",
                        when=when,
                        block=block,
                        count=count,
                        holders=len(who),
                        who=who,
                    )
                )
        if yours.num_free != expected.num_free:
            kind = tr("blocks leaked") if yours.num_free < expected.num_free else tr("a held block is free as well")
            free = tr("{when}: {free} blocks are free, expected {wanted}", when=when, free=yours.num_free,
                      wanted=expected.num_free)  # fmt: skip
            self.fail(f"{free}: {kind}")
        if yours.tables != expected.tables:
            self.fail(
                tr("{when}: the block tables are {yours}, expected {wanted}", when=when, yours=yours.tables,
                   wanted=expected.tables)
            )  # fmt: skip

    def _count(self, block: int) -> int:
        return sum(block in table for table in self.tables.values())

    def _grow(self, seq_id: str, kept: Sequence[int], num_tokens: int) -> None:
        """Up to the blocks needed: those that the student's pool took where they were free, else any free ones."""
        others = {block for name, table in self.tables.items() if name != seq_id for block in table}
        taken = list(self.pool.block_table(seq_id))[len(kept) :]
        free = [b for b in dict.fromkeys([*taken, *range(self.num_blocks)]) if b not in others and b not in kept]
        num_new = blocks_for(num_tokens, self.block_size) - len(kept)
        self.tables[seq_id], self.lengths[seq_id] = [*kept, *free[:num_new]], num_tokens


# ---- Q2


def rounds_up(names: Names, seed: int) -> None:
    for num_tokens in (1, 4, 5, 8, 11):
        pool = Followed(names["BlockPool"], 8, 4)
        pool.allocate("a", num_tokens)
        pool.check(tr("after allocate"))


def refusal_changes_nothing(names: Names, seed: int) -> None:
    pool = Followed(names["BlockPool"], 4, 4)
    pool.allocate("a", 12)
    pool.adopt()
    before = pool.yours()
    pool.call = "allocate('b', 8)"
    try:
        pool.pool.allocate("b", 8)
    except NoFreeBlocks:
        pass
    except (IndexError, ValueError, KeyError) as error:
        kind = type(error).__name__
        pool.fail(tr("allocate('b', 8) needs 2 blocks and has 1: it raised {kind}, not NoFreeBlocks", kind=kind))
    else:
        pool.fail(tr("allocate('b', 8) needs 2 blocks and 1 is free: it must raise NoFreeBlocks"))
    if pool.yours() != before or knows(pool.pool, "b"):
        pool.fail(tr("allocate('b', 8) was refused, yet the pool changed: count first, take afterwards"))


def knows(pool: BlockPool, seq_id: str) -> bool:
    try:
        pool.block_table(seq_id)
    except KeyError:
        return False
    return True


# ---- Q3


def append_takes_what_is_missing(names: Names, seed: int) -> None:
    pool = Followed(names["BlockPool"], 8, 4)
    pool.allocate("s", 3)
    pool.adopt()
    for num_tokens in (1, 1, 7, 4):
        copies = pool.append("s", num_tokens)
        pool.check(tr("after append"))
        if copies != []:
            pool.fail(tr("nothing is shared: append must return [], it returned {copies!r}", copies=copies))


def free_gives_back(names: Names, seed: int) -> None:
    pool = Followed(names["BlockPool"], 8, 4)
    pool.allocate("s", 6)
    pool.allocate("t", 5)
    pool.adopt()
    pool.free("s")
    yours, expected = pool.yours(), pool.expected()
    if yours.num_free != expected.num_free or yours.counts != expected.counts:
        pool.fail(
            tr(
                "after free('s') {free} blocks are free, expected {wanted}",
                free=yours.num_free,
                wanted=expected.num_free,
            )
        )
    if knows(pool.pool, "s"):
        pool.fail(tr("after free('s') it still has a block table"))
    try:
        pool.pool.free("s")
    except KeyError:
        return
    pool.call = "free('s') again"
    pool.fail(tr("free('s') twice must raise KeyError: a silent double free corrupts another sequence"))


# ---- Q4


def fork_shares(names: Names, seed: int) -> None:
    pool = Followed(names["BlockPool"], 8, 4)
    pool.allocate("p", 6)
    pool.fork("p", "c")
    pool.check(tr("after fork"))
    pool.free("p")
    pool.check(tr("after free of the parent"))
    pool.free("c")
    pool.check(tr("after free of both"))


def copy_on_write(names: Names, seed: int) -> None:
    pool = Followed(names["BlockPool"], 8, 4)
    pool.allocate("p", 7)
    pool.check(tr("after allocate"))
    pool.fork("p", "c")
    before = list(pool.tables["p"])
    copies = pool.append("c", 1)
    yours = pool.yours().tables
    if yours["p"] != before:
        pool.fail(tr("append to the child changed the parent's block table"))
    if yours["c"] and yours["c"][-1] == before[-1]:
        pool.fail(
            tr(
                "the child writes token 7 into block {block}, which the parent still reads: copy on write",
                block=before[-1],
            )
        )
    wanted = BlockCopy(before[-1], pool.tables["c"][-1])
    if copies != [wanted]:
        pool.fail(
            tr(
                "copies are {copies!r}, expected one BlockCopy({src}, {dst}): the engine must copy the KV",
                copies=copies,
                src=wanted.src,
                dst=wanted.dst,
            )
        )
    pool.check(tr("after copy on write"))
    if copies := pool.append("p", 1):
        pool.fail(
            tr("nobody else reads the parent's last block now: copy nothing, it returned {copies!r}", copies=copies)
        )
    pool.check(tr("after the parent wrote, too"))
    _full_blocks_stay(pool)


def _full_blocks_stay(pool: Followed) -> None:
    pool.allocate("q", 5)
    pool.append("q", 3)
    pool.fork("q", "d")
    before = list(pool.tables["q"])
    copies = pool.append("d", 1)
    if copies != [] or pool.yours().tables["d"][:2] != before:
        pool.fail(tr("a shared block that is full is never written again: take a new block, copy nothing"))
    pool.check(tr("after a child grew beyond a full block"))


# ---- Q5

NUM_HISTORIES, NUM_CALLS = 60, 40
FEW, MANY, NUM_TIMED, MOST_TIMES = 200, 60_000, 300, 12


def random_histories(names: Names, seed: int) -> None:
    """The whole state is compared after each call and around each refusal."""
    rng = random.Random(seed)
    for _ in range(NUM_HISTORIES):
        pool = CheckedPool(names["BlockPool"](rng.randint(3, 13), rng.choice((1, 2, 4, 16))))
        alive: list[str] = []
        for step in range(NUM_CALLS):
            random_call(pool, alive, f"s{step}", rng)
        for seq_id in alive:
            pool.free(seq_id)


def random_call(pool: CheckedPool, alive: list[str], new_id: str, rng: random.Random) -> None:
    kind = rng.choices(("allocate", "append", "fork", "free"), (30, 40, 15, 15))[0] if alive else "allocate"
    try:
        if kind == "allocate":
            pool.allocate(new_id, rng.randint(1, 3 * pool.block_size))
            alive.append(new_id)
        elif kind == "append":
            pool.append(rng.choice(alive), rng.choice((1, 1, 1, rng.randint(1, 2 * pool.block_size))))
        elif kind == "fork":
            pool.fork(rng.choice(alive), new_id)
            alive.append(new_id)
        else:
            pool.free(alive.pop(rng.randrange(len(alive))))
    except NoFreeBlocks:
        pass


def time_does_not_grow(names: Names, seed: int) -> None:
    """A large pool is filled a tenth at a time: one that searches all blocks is found out while that is still quick."""
    few, many = (names["BlockPool"](num_blocks, 4) for num_blocks in (FEW, MANY))
    few.allocate("base", FEW * 9 // 10 * 4)
    few_s = best_time_s(few)
    many.allocate("base", 4)
    for _ in range(9):
        many.append("base", MANY // 10 * 4)
        many_s = best_time_s(many)
        if many_s > MOST_TIMES * few_s:
            raise CheckFailed(
                tr(
                    "{calls} calls take {times:.0f}x longer in a pool of {many:,} blocks than in one of {few}: keep a "
                    "free list, do not search all blocks",
                    calls=NUM_TIMED,
                    times=many_s / few_s,
                    many=MANY,
                    few=FEW,
                )
            )


def best_time_s(pool: BlockPool) -> float:
    """Of three."""
    times = []
    for _ in range(3):
        start_s = time.perf_counter()
        for i in range(NUM_TIMED // 3):
            pool.allocate(f"s{i}", 3)
            pool.append(f"s{i}", 2)
            pool.free(f"s{i}")
        times.append(time.perf_counter() - start_s)
    return min(times)


# ---- Q6

LENS = (30, 400, 128, 129, 17, 90, 256, 300, 64, 33, 16, 48)
# kv_tokens, max_model_len, lens -> sequences
CONTIGUOUS = (((1024, 512, LENS), 2), ((2000, 512, LENS), 3), ((8192, 512, LENS), 12), ((500, 512, LENS), 0))
# kv_tokens, block_size, lens -> sequences
PAGED = (
    ((112, 16, (40, 40, 40)), 2),
    ((64, 16, (1, 1, 1, 1, 1)), 4),
    ((1024, 128, LENS), 4),
    ((512, 16, (100, 480, 8)), 1),
    ((512, 16, (128, 128, 128, 128, 16)), 4),
    ((100, 64, (30, 30)), 1),
    ((8192, 16, LENS), 12),
)


def capacities(names: Names, seed: int) -> None:
    contiguous, paged = names["contiguous_capacity"], names["paged_capacity"]
    for arguments, wanted in CONTIGUOUS:
        _compare("contiguous_capacity", arguments, contiguous(*arguments), wanted, CONTIGUOUS_MISTAKES)
    for arguments, wanted in PAGED:
        _compare("paged_capacity", arguments, paged(*arguments), wanted, PAGED_MISTAKES)


def _compare(name: str, arguments: tuple[Any, ...], got: object, wanted: int, mistakes: dict[str, Any]) -> None:
    if got == wanted:
        return
    call = f"{name}({arguments[0]}, {arguments[1]}, {list(arguments[2])})"
    known = next((text for text, mistake in mistakes.items() if mistake(*arguments) == got), "")
    told = tr("{call} is {got!r}, expected {wanted}", call=call, got=got, wanted=wanted)
    raise CheckFailed(f"{told}: {known}" if known else told)


def _up_to_the_first(room: float, sizes: Sequence[float]) -> int:
    for i, size in enumerate(sizes):
        room -= size
        if room < 0:
            return i
    return len(sizes)


def _all_that_fit(room: int, sizes: Sequence[int]) -> int:
    count = 0
    for size in sizes:
        if size <= room:
            room, count = room - size, count + 1
    return count


# sentence -> what this mistake answers
CONTIGUOUS_MISTAKES = {
    tr("there are no more sequences than that"): lambda kv, most, lens: kv // most,
    tr("each reserves max_model_len, however short it is"): lambda kv, most, lens: _up_to_the_first(kv, lens),
    tr("what is left over is too small for another one"): lambda kv, most, lens: -(-kv // most),
}
PAGED_MISTAKES = {
    tr("count blocks, not tokens: a block belongs to one sequence"): lambda kv, size, lens: _up_to_the_first(kv, lens),
    tr("a partly filled last block is a block too: round up"): lambda kv, size, lens: _up_to_the_first(
        kv // size, [n // size for n in lens]
    ),
    tr("a sequence that exactly fills its last block needs no other"): lambda kv, size, lens: _up_to_the_first(
        kv // size, [n // size + 1 for n in lens]
    ),
    tr("in order of arrival: stop at the first that does not fit"): lambda kv, size, lens: _all_that_fit(
        kv // size, [-(-n // size) for n in lens]
    ),
}


# ---- what runs in the notebook show


# Of a block, as the notebook compares them.
SIZES = (1, 4, 16, 32, 128, 512)


def held_at_the_end(run: Any) -> int:
    return sum(len(blocks) for step in run.trace.step_records for blocks in step.kv.allocated.values())


def unused(lens: Any) -> list[float]:
    """Share of the slots of each block size of the lab."""
    return [1 - sum(lens) / (size * held) for size, held in zip(SIZES, entries(lens), strict=True)]


def entries(lens: Any) -> list[int]:
    """In block tables, with each block size of the lab."""
    return [sum(blocks_for(length, size) for length in lens) for size in SIZES]


def cells_shown(run: Any) -> list[tuple[int, int]]:
    """In use, and those that attention ran over, in the steps that the notebook shows."""
    return [(step.kv.num_used, step.kv.num_attended) for step in run.trace.step_records[::8]]


def all_came_back(names: Names) -> str:
    if "q3" not in names:
        return tr("run the cell that fills `q3`, and check again: do all blocks of a real run come back?")
    steps = names["q3"].trace.step_records
    taken = sum(len(blocks) for step in steps for blocks in step.kv.allocated.values())
    back = sum(len(blocks) for step in steps for blocks in step.kv.freed.values())
    if taken != back:
        raise CheckFailed(tr("the run in `q3` took {taken} blocks and gave {back} back", taken=taken, back=back))
    count = len(names["q3"].results)
    return tr("{count} requests took {taken} blocks from your pool and gave {back} back.", count=count, taken=taken,
              back=back)  # fmt: skip


def answers_are_equal(names: Names) -> str:
    if "q5" not in names or "q5_ours" not in names:
        return tr("run the cell that fills `q5` and `q5_ours`, and check again.")
    mine, ours = names["q5"], names["q5_ours"]
    if broken := mine.trace.validate():
        raise CheckFailed(tr("the run in `q5` breaks a rule: {rule}", rule=broken[0]))
    differing = [
        i for i, (a, b) in enumerate(zip(mine.results, ours.results, strict=True)) if a.token_ids != b.token_ids
    ]
    if differing:
        raise CheckFailed(
            tr(
                "{count} of {total} answers differ, the first is number {first}",
                count=len(differing),
                total=len(mine.results),
                first=differing[0],
            )
        )
    return tr(
        "all {total} answers equal those of the engine's own pool, and no rule of a trace is broken.",
        total=len(mine.results),
    )


POOL = ("BlockPool",)
LAB = Lab(
    title="Lab 3: paged KV",
    minutes=90,
    engines=("torch", "llamacpp"),
    forbidden=(
        "llmlab.scheduling.block_pool",
        "llmlab.scheduling.block_pool_checks",
        "llmlab.scheduling.contiguous_pool",
        "llmlab.engines.simulated_room",
    ),
    questions=(
        Question(
            "Q1",
            "look at a run",
            prediction=Prediction(
                "37 prompt tokens, 40 new ones, blocks of 16: how many blocks at the end?",
                "q1",
                held_at_the_end,
                "the KV of the last token is never needed: 37 + 40 - 1 = 76 tokens in blocks of 16.",
            ),
        ),
        Question(
            "Q2",
            "allocate",
            POOL,
            (Check("rounds up", 10, rounds_up), Check("a refusal changes nothing", 10, refusal_changes_nothing)),
            (
                "How many blocks do 4 tokens need in blocks of 4? And 5?",
                "-(-n // block_size) rounds up: -(-5 // 4) is 2, -(-4 // 4) is 1.",
                "Before the first block is taken: if needed > len(self.free_list): raise NoFreeBlocks(...)",
            ),
        ),
        Question(
            "Q3",
            "append and free",
            POOL,
            (Check("append", 10, append_takes_what_is_missing), Check("free", 10, free_gives_back)),
            (
                "When is the last block full? What does append take then, and what before?",
                "Blocks needed afterwards minus blocks in the table: 4 tokens in blocks of 4, one more token: 2 - 1.",
                "num_new = -(-(num_held + num_tokens) // block_size) - len(table)",
            ),
            builds_on=("Q2",),
            observe=all_came_back,
        ),
        Question(
            "Q4",
            "fork and copy on write",
            POOL,
            (Check("fork", 10, fork_shares), Check("copy on write", 15, copy_on_write)),
            (
                "Who else reads the block that append writes to? ref_count knows.",
                "Only a block that is shared AND partly filled is copied: 7 tokens in blocks of 4, two owners.",
                "Take a block, lower the count of the old one, replace the last entry of the table, return "
                "[BlockCopy(old, new)].",
            ),
            Prediction(
                "one prompt of 30 tokens, blocks of 16, four sequences: blocks held after the forks, and after one "
                "token each?",
                "q4",
                tuple,
                "the full block stays shared; of the other the first three to write take a copy, the last keeps it.",
            ),
            builds_on=("Q2", "Q3"),
        ),
        Question(
            "Q5",
            "plug it in",
            POOL,
            (
                Check("random histories", 20, random_histories, is_hidden=True),
                Check("time does not grow with the pool", 5, time_does_not_grow, is_hidden=True),
            ),
            builds_on=("Q2", "Q3", "Q4"),
            observe=answers_are_equal,
        ),
        Question(
            "Q6",
            "what paging is for",
            ("contiguous_capacity", "paged_capacity"),
            (Check("capacities", 10, capacities),),
            (
                "A sequence of 30 tokens that reserves 512: how much does the pool give away?",
                "4,096 tokens are 256 blocks of 16. A sequence of 30 tokens takes 2 of them.",
                "Go through lens, subtract -(-length // block_size) from the free blocks, stop where it gets negative.",
            ),
            Prediction(
                "4,096 tokens of KV, sequences of 30 to 400, max_model_len 512: how many fit contiguously, in blocks "
                "of 16, in blocks of 128?",
                "q6",
                tuple,
                "contiguous memory is given away by the longest possible length, blocks by what is used, rounded up.",
            ),
        ),
        reflection_question("Q7", "what paging gains", "what cells waste"),
    ),
    figures=(
        Figure("the blocks that eight requests took from your pool", "q3", held_at_the_end),
        Figure("how often a request lost its blocks in Q5", "q5", lambda run: num_preemptions(run.trace)),
        Figure("the unused share of blocks of each size", "lens", unused, "share"),
        Figure("the entries in block tables", "lens", entries),
        Figure("the cells in use, and those that attention ran over", "cells", cells_shown),
    ),
)
