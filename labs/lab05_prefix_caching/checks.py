"""Lab 5, prefix caching: what is asked, how it is checked, and what each known mistake is told."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Protocol

from llmlab.errors import BrokenContract, NoFreeBlocks
from llmlab.labs.description import Check, CheckFailed, Figure, Lab, Names, Prediction, Question
from llmlab.labs.pictures_cache import Cache, cache_picture
from llmlab.labs.reflection import reflection_question
from llmlab.labs.serving import Job, Serving
from llmlab.metrics import prefix_hit_rate, steps_to_first_token
from llmlab.scheduling.block_pool import PagedPool
from llmlab.scheduling.block_pool_checks import CheckedPool
from llmlab.scheduling.policies import ChunkedPrefill

Tokens = tuple[int, ...]


class PoolClass(Protocol):
    def __call__(self, num_blocks: int, block_size: int) -> Any: ...


class Pair:
    """A student's pool and ours, given the same calls. Texts have names: a sequence `a` computes the text `A`."""

    def __init__(self, pool_class: PoolClass, num_blocks: int, block_size: int = 4) -> None:
        self.pool, self.ours = pool_class(num_blocks, block_size), PagedPool(num_blocks, block_size)
        self.num_blocks, self.block_size = num_blocks, block_size
        self.texts: dict[str, Tokens] = {}
        self.alive: list[str] = []
        self.unwritten: set[int] = set()
        self.call = ""

    def admit(self, seq_id: str, text: Tokens, num_tokens: int | None = None) -> None:
        """lookup, and allocate: the whole text, or so many tokens of one that nobody has computed."""
        self.texts.setdefault(seq_id.upper(), text)
        for pool in (self.pool, self.ours):
            found = [int(block) for block in pool.lookup(list(text))]
            num_new = len(text) - len(found) * self.block_size if num_tokens is None else num_tokens
            self.call = f"allocate({seq_id!r}, {num_new}, {found})"
            pool.allocate(seq_id, num_new, found)
        self.alive.append(seq_id)

    def append(self, seq_id: str, num_tokens: int) -> None:
        self.call = f"append({seq_id!r}, {num_tokens})"
        for pool in (self.pool, self.ours):
            pool.append(seq_id, num_tokens)

    def commit(self, seq_id: str, text: Tokens, num_computed_tokens: int) -> None:
        self.call = f"commit({seq_id!r}, ..., {num_computed_tokens})"
        for pool in (self.pool, self.ours):
            pool.commit(seq_id, list(text), num_computed_tokens)

    def free(self, seq_id: str) -> None:
        self.call = f"free({seq_id!r})"
        self.alive.remove(seq_id)
        for pool in (self.pool, self.ours):
            pool.free(seq_id)

    def serve(self, seq_id: str, text: Tokens) -> None:
        """A whole request, from lookup to free."""
        self.admit(seq_id, text)
        self.commit(seq_id, text, len(text))
        self.free(seq_id)

    def find(self, text: Tokens, salt: str = "") -> list[int]:
        return [int(block) for block in self.pool.lookup(list(text), salt)]

    def num_kept(self, text: Tokens) -> int:
        """Blocks of a text that a longer one would hit."""
        return len(self.find((*text, -1)))

    def fail(self, reason: str) -> NoReturn:
        picture = None
        with suppress(Exception):  # a pool that cannot be shown has no picture
            picture = cache_picture(self._side(self.pool), self._side(self.ours), self.call, reason)
        raise CheckFailed(reason, picture)

    def check(self, when: str) -> None:
        """The invariants of lab 3. `when`: how the sentence begins."""
        tables = {name: [int(block) for block in self.pool.block_table(name)] for name in self.alive}
        for name, table in tables.items():
            num_tokens, wanted = self.ours.num_tokens(name), len(self.ours.block_table(name))
            if len(table) != wanted or self.pool.num_tokens(name) != num_tokens:
                got = f"{len(table)} blocks and num_tokens {self.pool.num_tokens(name)}"
                self.fail(f"{when}: {name} has {got}, expected {wanted} blocks and {num_tokens}")
        for block in range(self.num_blocks):
            who, count = [name for name, table in tables.items() if block in table], self.pool.ref_count(block)
            if count != len(who):
                self.fail(f"{when}: block {block} has ref_count {count}, but {len(who)} block tables hold it ({who})")
        num_held = len({block for table in tables.values() for block in table})
        if (num_free := self.pool.num_free_blocks) != self.num_blocks - num_held:
            kind = "blocks leaked" if num_held + num_free < self.num_blocks else "a held block is free as well"
            self.fail(f"{when}: {num_held} held + {num_free} free is not {self.num_blocks}: {kind}")

    def _side(self, pool: Any) -> Cache:
        return Cache(
            {name: [int(block) for block in pool.block_table(name)] for name in self.alive},
            [int(pool.ref_count(block)) for block in range(self.num_blocks)],
            int(pool.num_free_blocks),
            {name: [int(block) for block in pool.lookup([*text, -1])] for name, text in self.texts.items()},
            sorted(self.unwritten) if pool is self.pool else [],
        )


def text_of(first: int, num_tokens: int) -> Tokens:
    return tuple(range(first, first + num_tokens))


# ---- Q2

LEAST_HASH_BYTES = 8


def hash_is_a_chain(names: Names, seed: int) -> None:
    block_hash = names["block_hash"]
    first, other = block_hash(None, [5, 6, 7, 8]), block_hash(None, [9, 6, 7, 8])
    for value in (first, other):
        if not isinstance(value, bytes):
            raise CheckFailed(f"block_hash gave {type(value).__name__}, expected bytes")
        if len(value) < LEAST_HASH_BYTES:
            raise CheckFailed(
                f"a hash of {len(value)} bytes: two texts of thousands have the same one, and a collision hands out "
                "somebody else's KV"
            )
    if first != block_hash(None, (5, 6, 7, 8)):
        raise CheckFailed("the same block has another hash the second time")
    differ(
        "a block's hash must depend on everything in front of it: the same 4 tokens after another beginning have "
        "other KV (attention and RoPE)",
        *(block_hash(parent, [1, 2, 3, 4]) for parent in (None, first, other)),
    )
    differ("two adapters share KV: put the salt into the hash", *(block_hash(None, [1], s) for s in ("", "a", "b")))
    differ("two adapters share KV after a common parent: the salt", *(block_hash(first, [1], s) for s in ("", "a")))
    differ(
        "(1, 2, 3) and (3, 2, 1) collide: the order counts", block_hash(None, [1, 2, 3]), block_hash(None, [3, 2, 1])
    )
    differ("two blocks that differ in one token collide", *(block_hash(first, [1, 2, 3, n]) for n in range(300)))
    differ("(1, 23) and (12, 3) collide: separate the token ids", *pairs_that_read_alike(block_hash))
    differ(
        "salt '1' with token 23 and salt '12' with token 3 collide: separate salt and token ids",
        *(block_hash(None, tokens, salt) for salt, tokens in (("", [123]), ("1", [23]), ("12", [3]), ("1,", [23]))),
    )


def pairs_that_read_alike(block_hash: Callable[..., bytes]) -> list[bytes]:
    return [block_hash(None, tokens) for tokens in ([1, 23], [12, 3], [123], [1, 2, 3], [256, 1], [1, 256], [0, 257])]


def differ(sentence: str, *hashes: bytes) -> None:
    if len(set(hashes)) < len(hashes):
        raise CheckFailed(sentence)


OTHER_PROCESS = "import pickle, sys; f = pickle.load(sys.stdin.buffer); print(f(b'parent', [1, 2, 3], 'salt').hex())"


def same_in_every_process(names: Names, seed: int) -> None:
    """Here, and in a Python that hashes texts in another way."""
    import cloudpickle

    block_hash = names["block_hash"]
    other_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    child = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS],
        input=cloudpickle.dumps(block_hash),
        env={**os.environ, "PYTHONHASHSEED": other_seed},
        capture_output=True,
        check=False,
    )
    here, there = block_hash(b"parent", [1, 2, 3], "salt").hex(), child.stdout.decode().strip()
    if child.returncode:
        raise CheckFailed(f"in another process block_hash fails: {child.stderr.decode().strip().splitlines()[-1]}")
    if here != there:
        raise CheckFailed(
            f"the hash changes from process to process ({here[:16]}, {there[:16]}): hash() of a text is seeded; use "
            "hashlib"
        )


# ---- Q3

HITS = "full blocks only, stop at the first miss, and leave at least one token to compute (its logits are needed)"


def lookup_finds_the_prefix(names: Names, seed: int) -> None:
    pool = Pair(names["PrefixBlockPool"], 8)
    text = text_of(10, 10)
    pool.admit("a", text)
    pool.commit("a", text, 10)
    table = list(pool.pool.block_table("a"))
    cases = (
        (text, 8), (text[:8], 4), (text[:9], 8), (text[:3], 0), ((99, *text[1:9]), 0),
        ((*text[:4], 99, *text[5:9]), 4), ((*text, 7, 7, 7), 8),
    )  # fmt: skip
    for asked, wanted in cases:
        pool.call = f"lookup({list(asked)})"
        found = pool.find(asked)
        if len(found) * 4 != wanted:
            pool.fail(f"lookup of {len(asked)} tokens hits {len(found) * 4}, expected {wanted}: {HITS}")
        if found != table[: wanted // 4]:
            pool.fail(f"lookup of {len(asked)} tokens gave the blocks {found}, expected {table[: wanted // 4]}")
        pool.check("after lookup")
    if found := pool.find(text, "another"):
        pool.fail(f"lookup of 10 tokens under another salt hits {len(found) * 4}: two adapters share KV")


def counts_follow(names: Names, seed: int) -> None:
    pool = Pair(names["PrefixBlockPool"], 8)
    text = text_of(10, 9)
    pool.admit("a", text)
    pool.check("after allocate")
    pool.commit("a", text, 9)
    pool.check("after commit")
    pool.admit("b", (*text[:8], 50, 51))
    pool.check("after a hit")
    pool.free("a")
    pool.check("after free of the first holder")
    pool.free("b")
    pool.check("after free of both")
    if pool.num_kept(text[:8]) != 2:
        pool.fail("free blocks keep their hash until they are reused: cached AND free")
    pool.admit("c", (*text[:8], 60))
    pool.check("after a hit on free blocks")
    pool.free("c")
    cached_blocks_cost_room(names["PrefixBlockPool"])


def cached_blocks_cost_room(pool_class: PoolClass) -> None:
    pool = Pair(pool_class, 4)
    text = text_of(10, 8)
    pool.serve("a", text)
    found = pool.find((*text, 0))
    before = pool.pool.num_free_blocks
    pool.call = f"allocate('b', 12, {found})"
    try:
        pool.pool.allocate("b", 12, found)
    except NoFreeBlocks:
        pass
    except (IndexError, KeyError, ValueError) as error:
        pool.fail(f"{pool.call} needs 5 of 4 free blocks: it raised {type(error).__name__}, not NoFreeBlocks")
    else:
        pool.fail(
            f"{pool.call} needs 5 of 4 free blocks, it must raise NoFreeBlocks: a hit block that was free costs room"
        )
    if pool.pool.num_free_blocks != before or pool.num_kept(text) != 2:
        pool.fail(f"{pool.call} was refused, yet the pool changed: count first, take afterwards")


# ---- Q4


def least_recently_freed_goes_first(names: Names, seed: int) -> None:
    only_full_blocks(names["PrefixBlockPool"])
    a, b = text_of(10, 8), text_of(50, 8)
    pool = with_two_served(names, a, b)
    pool.admit("x", text_of(200, 8))
    if (kept := (pool.num_kept(a), pool.num_kept(b))) != (2, 2):
        pool.fail(
            f"nothing had to be evicted yet: A hits {kept[0]} blocks, B {kept[1]}, expected 2 and 2: empty blocks are "
            "used before cached ones, and the one freed last is reused last"
        )
    pool.admit("y", text_of(300, 4))
    table = list(pool.pool.block_table("y"))
    if set(table) & set(pool.find((*a, -1))):
        pool.fail("a block of A was reused for y, yet its hash is still known: lookup would hand out y's KV as A's")
    if pool.num_kept(b) != 2:
        pool.fail(f"one block had to go: B keeps {pool.num_kept(b)} blocks, expected 2: A was freed before B")
    if pool.num_kept(a) != 1:
        pool.fail(
            f"one block had to go: A keeps {pool.num_kept(a)} blocks, expected 1: the end of the chain goes first, a "
            "prefix without its beginning is useless"
        )
    pool.check("after an eviction")
    a_hit_is_a_use(names, a, b)


def with_two_served(names: Names, a: Tokens, b: Tokens) -> Pair:
    """6 blocks: 2 of A, then 2 of B, all cached and free."""
    pool = Pair(names["PrefixBlockPool"], 6)
    pool.serve("a", a)
    pool.serve("b", b)
    return pool


def a_hit_is_a_use(names: Names, a: Tokens, b: Tokens) -> None:
    pool = with_two_served(names, a, b)
    pool.admit("c", (*a, 1))
    pool.free("c")
    one_of_b_goes(pool, a, b, "A was hit and freed again after B")
    pool = Pair(names["PrefixBlockPool"], 6)
    for seq_id, text in (("a", a), ("b", b)):
        pool.admit(seq_id, text)
        pool.commit(seq_id, text, len(text))
    pool.free("b")
    pool.free("a")
    one_of_b_goes(pool, a, b, "A was allocated before B and freed after it")
    pool = with_two_served(names, b, a)
    pool.find((*b, -1))
    one_of_b_goes(pool, a, b, "B was freed before A, then somebody looked B up")


def one_of_b_goes(pool: Pair, a: Tokens, b: Tokens, what: str) -> None:
    """3 of 6 blocks are taken, 2 of them are empty."""
    pool.admit("z", text_of(200, 12))
    if (kept := (pool.num_kept(a), pool.num_kept(b))) != (2, 1):
        pool.fail(
            f"{what}: A keeps {kept[0]} blocks, B {kept[1]}, expected 2 and 1: what was freed last is reused last, and "
            "lookup changes nothing"
        )
    pool.check("after an eviction")


def only_full_blocks(pool_class: PoolClass) -> None:
    pool = Pair(pool_class, 6)
    text = text_of(10, 9)
    pool.admit("a", text)
    pool.commit("a", text, 9)
    if (num_cached := num_cached_blocks(pool.pool)) not in (None, 2):
        pool.fail(
            f"{num_cached} blocks are hashed after 9 tokens in blocks of 4, expected 2: only full blocks have an "
            "identity"
        )


def num_cached_blocks(pool: Any) -> int | None:
    return getattr(pool, "num_cached_blocks", None)


NUM_REQUESTS, NUM_BLOCKS = 400, 8
# What CheckedPool says -> what is behind it.
CAUSES = (
    ("dictionary is empty", "count the hit blocks that were free as well, before anything is taken"),
    ("KeyError", "two blocks with one hash? The second one stays without"),
    ("stands twice", "a hit block was evicted for the same request; touch the hits before taking fresh blocks"),
    ("was never computed or is overwritten", "a hash goes when its block is reused"),
    ("after another beginning", "a block's hash must depend on everything in front of it"),
    ("blocks leaked", "a block is free when the last holder leaves, whatever is cached in it"),
)


def evicted_blocks_are_never_hit(names: Names, seed: int) -> None:
    """What every block was computed from is known, and compared with what a lookup promises."""
    rng = random.Random(f"lab05 {seed}")
    prefixes = [tuple(rng.choices(range(3), k=rng.randint(4, 12))) for _ in range(4)]
    alive: dict[str, Tokens] = {}
    try:
        pool = CheckedPool(names["PrefixBlockPool"](NUM_BLOCKS, 4))
        for i in range(NUM_REQUESTS):
            random_request(pool, alive, f"r{i}", prefixes, rng)
    except BrokenContract as error:
        cause = next((f": {cause}" for part, cause in CAUSES if part in str(error)), "")
        raise told(error, f"request {i}: {error}{cause}") from None


def told(error: BrokenContract, reason: str) -> BaseException:
    """What a check says of it; what is not written yet says so itself."""
    return error.__cause__ if isinstance(error.__cause__, NotImplementedError) else CheckFailed(reason)


def random_request(
    pool: CheckedPool, alive: dict[str, Tokens], name: str, prefixes: Sequence[Tokens], rng: random.Random
) -> None:
    """One more request; some go on, some end, some twins are computed at the same time."""
    while len(alive) > 2 or (alive and rng.random() < 0.4):
        pool.free(ended := rng.choice(list(alive)))
        del alive[ended]
    text = (*rng.choice(prefixes), *rng.choices(range(3), k=rng.randint(1, 6)))
    text = (*text, 0) if len(text) % 4 == 0 else text  # a whole prompt in full blocks is the matter of Q3
    cached = pool.lookup(list(text))
    twins = []
    with suppress(NoFreeBlocks):
        for twin in (name, f"{name}'")[: rng.choice((1, 1, 2))]:
            pool.allocate(twin, len(text) - 4 * len(cached), cached)
            alive[twin] = text
            twins.append(twin)
    for twin in twins:
        pool.commit(twin, list(text), len(text))
    if twins and rng.random() < 0.5:
        with suppress(NoFreeBlocks):
            pool.append(name, 1)


# ---- Q5

PROMPT = text_of(10, 13)


def nothing_unwritten_is_found(names: Names, seed: int) -> None:
    cuts = ((32, 0, 0), (8, 1, 2))  # token budget, step of the interrupt, blocks that are written then
    for cut in cuts:
        interrupted(names["PrefixBlockPool"], *cut)
    repaired = names["RepairedPool"]
    try:
        for cut in cuts:
            interrupted(repaired, *cut)
        what_is_computed_is_found(repaired)
    except CheckFailed as error:
        if names["PrefixBlockPool"] in repaired.__mro__ or not is_based_on_one(repaired):
            raise
        stale = "It stands on an older PrefixBlockPool: run the cells of EagerPool and RepairedPool again"
        raise CheckFailed(f"{error}. {stale}", error.picture) from None


def is_based_on_one(pool_class: type) -> bool:
    return any(base.__name__ == "PrefixBlockPool" for base in pool_class.__mro__)


def what_is_computed_is_found(pool_class: PoolClass) -> None:
    pool = Pair(pool_class, 8)
    pool.serve("a", PROMPT)
    if pool.num_kept(PROMPT[:12]) != 3:
        pool.fail(f"RepairedPool finds {pool.num_kept(PROMPT[:12])} blocks of a prompt that was computed, expected 3")


def interrupted(pool_class: Any, budget: int, interrupt_step: int, num_written: int) -> None:
    """The forward pass of a prompt is cut; then the same prompt comes again."""
    pair = Pair(pool_class, 8)
    pool = pair.pool
    serving = Serving([Job("a", PROMPT, 2)], pool, ChunkedPrefill(), token_budget=budget, max_num_seqs=2)
    serving.run(interrupt_step=interrupt_step)
    pair.texts["A"], pair.call = PROMPT, "an interrupt"
    # ours: what was computed, and is free now
    pair.ours.allocate("a", len(PROMPT))
    pair.ours.commit("a", list(PROMPT), num_written * 4)
    pair.ours.free("a")
    found = pair.find((*PROMPT, -1))
    if len(found) > num_written:
        pair.unwritten = set(found[num_written:])
        name = getattr(pool_class, "__name__", "your pool")
        whose = "" if name == "PrefixBlockPool" else f"{name}: "
        pair.fail(
            f"{whose}{len(found) - num_written} blocks are offered to the next request, but the forward pass that "
            "should have filled them was interrupted: a hash may appear only when the KV is there (commit)"
        )
    jobs = [Job("a", PROMPT, 2), Job("b", PROMPT, 3, arrival_step=interrupt_step + 1)]
    again, plain = (
        Serving(jobs, one, ChunkedPrefill(), token_budget=budget, max_num_seqs=2)
        for one in (pool_class(8, 4), PagedPool(8, 4, prefix_caching=False))
    )
    for one in (again, plain):
        one.run(interrupt_step=interrupt_step)
    if again.answers != plain.answers:
        pair.fail(f"after the interrupt the answer is {again.answers['b']}, without a cache {plain.answers['b']}")


def only_computed_tokens(names: Names, seed: int) -> None:
    rng = random.Random(f"lab05 computed {seed}")
    for _ in range(20):
        pool = Pair(names["PrefixBlockPool"], 12)
        text = tuple(rng.choices(range(900), k=rng.randint(8, 40)))
        num_computed = rng.randint(1, 8)
        pool.admit("a", text, num_computed)
        while True:
            pool.commit("a", text, num_computed)
            num_full, kept = num_computed // 4, pool.num_kept(text)
            if kept != num_full:
                pool.fail(
                    f"{num_computed} of {len(text)} tokens are computed: lookup finds {kept} blocks of 4, expected "
                    f"{num_full}"
                )
            if (num_cached := num_cached_blocks(pool.pool)) not in (None, num_full):
                pool.fail(f"{num_computed} tokens are computed: {num_cached} blocks are hashed, expected {num_full}")
            pool.check("after commit")
            if num_computed == len(text):
                break
            num_more = min(len(text) - num_computed, rng.randint(1, 9))
            pool.append("a", num_more)
            num_computed += num_more


# ---- Q6

NUM_USERS, NUM_SHARED = 8, 35


def eight_users(names: Names, seed: int) -> None:
    """One first, then seven at once; every call of the engine is checked."""
    rng = random.Random(f"lab05 users {seed}")
    system = tuple(rng.choices(range(900), k=NUM_SHARED))
    jobs = [
        Job(f"u{i}", (*system, i, *rng.choices(range(900), k=rng.randint(2, 12))), 12, 0 if i == 0 else 3)
        for i in range(NUM_USERS)
    ]
    room = {"token_budget": 64, "max_num_seqs": 8}
    plain = Serving(jobs, PagedPool(40, 16, prefix_caching=False), ChunkedPrefill(), **room)
    plain.run()
    try:
        mine = Serving(jobs, CheckedPool(names["PrefixBlockPool"](40, 16)), ChunkedPrefill(), **room)
        mine.run()
    except BrokenContract as error:
        raise told(error, str(error)) from None
    hits, wanted = num_hits(mine.trace), (NUM_USERS - 1) * (NUM_SHARED // 16 * 16)
    if hits != wanted:
        raise CheckFailed(
            f"8 users, {NUM_SHARED} shared tokens in blocks of 16: {hits} tokens are hit, expected {wanted}"
        )
    if mine.answers != plain.answers:
        wrong = [name for name in plain.answers if mine.answers[name] != plain.answers[name]]
        raise CheckFailed(
            f"{len(wrong)} of 8 answers differ from those without a cache, the first is that of {wrong[0]}"
        )


def num_hits(trace: Any) -> int:
    return sum(sum(step.prefix_hits.values()) for step in trace.step_records)


# ---- what runs in the notebook show


def prefill_tokens(trace: Any) -> int:
    return sum(row.num_tokens for step in trace.step_records for row in step.scheduled if row.phase == "prefill")


def mean_ttft_s(trace: Any) -> float:
    from llmlab.metrics import request_times, ttft_s

    found = [value for times in request_times(trace).values() if (value := ttft_s(times)) is not None]
    return sum(found) / len(found)


def saved(traces: Any) -> list[float]:
    """`traces`: without a cache, with one. How many times less work, how many times sooner."""
    without, cached = traces
    work = prefill_tokens(without) / prefill_tokens(cached)
    return [round(work, 1), round(mean_ttft_s(without) / mean_ttft_s(cached), 1)]


def work_and_wait(names: Names) -> str:
    if "q1" not in names:
        return "run the cell that fills `q1`, and check again."
    without, cached = names["q1"]
    for trace in (without, cached):
        if broken := trace.validate():
            raise CheckFailed(f"a run in `q1` breaks a rule: {broken[0]}")
    return (
        f"{prefill_tokens(without)} tokens of prefill without a cache, {prefill_tokens(cached)} with one; first token "
        f"after {mean_ttft_s(without):.2f} s and {mean_ttft_s(cached):.2f} s. llama.cpp shares single cells, so its "
        "hits are no multiples of a block size."
    )


def hits_of_each(trace: Any) -> int:
    """What the luckiest of the later requests found."""
    return max((hit for step in trace.step_records for hit in step.prefix_hits.values()), default=0)


def hits_in_a_real_run(names: Names) -> str:
    if "q3" not in names:
        return "run the cell that fills `q3`, and check again: what does a real run find in your pool?"
    trace = names["q3"]
    if broken := trace.validate():
        raise CheckFailed(f"the run in `q3` breaks a rule: {broken[0]}")
    steps = steps_to_first_token(trace)
    return (
        f"{len(steps)} later requests found {num_hits(trace)} tokens in your pool and computed {prefill_tokens(trace)}."
    )


def found_and_computed(trace: Any) -> list[int]:
    return [num_hits(trace), prefill_tokens(trace)]


def found_by_the_rest(runs: Any) -> list[int]:
    _, rest = runs
    return found_and_computed(rest.trace)


def of_each(figure: Callable[[Any], float]) -> Callable[[Any], list[float]]:
    return lambda traces: [figure(trace) for trace in traces]


def right_or_wrong(after: Any) -> str:
    return "right" if after.is_right else "wrong"


def answers_are_equal(names: Names) -> str:
    if "q6" not in names or "q6_plain" not in names:
        return "run the cell that fills `q6` and `q6_plain`, and check again."
    pairs = [pair for mine, ours in zip(names["q6"], names["q6_plain"], strict=True)
             for pair in zip(mine.results, ours.results, strict=True)]  # fmt: skip
    for run in names["q6"]:
        if broken := run.trace.validate():
            raise CheckFailed(f"a run in `q6` breaks a rule: {broken[0]}")
    if differing := [i for i, (mine, ours) in enumerate(pairs) if mine.token_ids != ours.token_ids]:
        raise CheckFailed(f"{len(differing)} of {len(pairs)} answers differ, the first is number {differing[0]}")
    hits = num_hits(names["q6"][1].trace)
    return f"all {len(pairs)} answers equal those of the engine without a cache; seven users found {hits} tokens."


POOL = ("PrefixBlockPool",)
LAB = Lab(
    title="Lab 5: prefix caching",
    minutes=85,
    engines=("llamacpp", "vllm", "torch"),
    forbidden=(
        "llmlab.scheduling.block_pool",
        "llmlab.scheduling.block_pool_checks",
        "llmlab.engines.simulated_room",
        "llmlab.labs.serving",
    ),
    questions=(
        Question(
            "Q1",
            "eight users, one system prompt",
            prediction=Prediction(
                "8 users, 300 tokens in common and 10 of their own: how many times less prefill work with a warm "
                "cache, and how many times sooner the first token?",
                "q1",
                saved,
                "only the 10 own tokens are computed; the time to the first token shrinks less than the work, because "
                "a step has costs that do not depend on its tokens.",
            ),
            observe=work_and_wait,
        ),
        Question(
            "Q2",
            "the identity of a block",
            ("block_hash",),
            (
                Check("a chain", 15, hash_is_a_chain),
                Check("the same in every process", 5, same_in_every_process, is_hidden=True),
            ),
            (
                "The same 16 tokens after another beginning: is their KV the same?",
                "Feed the parent's hash in, then the salt, then the token ids with something between them.",
                "hashlib.sha256((parent or b'first') + repr((salt, list(token_ids))).encode()).digest()",
            ),
        ),
        Question(
            "Q3",
            "lookup, allocate, commit, free",
            (*POOL, "block_hash"),
            (Check("lookup", 10, lookup_finds_the_prefix), Check("counts", 10, counts_follow)),
            (
                "Who computes the logits of the last token, if all of its prompt is hit?",
                "(len(token_ids) - 1) // block_size blocks at most: 8 tokens in blocks of 4 may hit 1 block, 9 may 2.",
                "In allocate, before a fresh block is taken: self.free_blocks.pop(block, None); "
                "self.ref_counts[block] += 1",
            ),
            Prediction(
                "blocks of 16, prompts with 35 tokens in common: how many tokens does each later request find?",
                "q3",
                hits_of_each,
                "only full blocks have an identity: 35 // 16 = 2 blocks of 16 tokens.",
            ),
            builds_on=("Q2",),
            observe=hits_in_a_real_run,
        ),
        Question(
            "Q4",
            "what is reused first",
            POOL,
            (
                Check("least recently freed first", 10, least_recently_freed_goes_first),
                Check("an evicted block is never hit", 10, evicted_blocks_are_never_hit, is_hidden=True),
            ),
            (
                "When is the content of a freed block really gone?",
                "An OrderedDict is in order: popitem(last=False) takes the first, free_blocks[block] = None puts one "
                "last, move_to_end(block, last=False) puts one first.",
                "Free the table from its end to its beginning; a block without a hash goes to the front.",
            ),
            Prediction(
                "6 blocks, A (2 full blocks) then B (2) served and freed, 3 blocks taken: how many of A and of B stay?",
                "q4",
                tuple,
                "two of the three were empty; the third is the end of A, which was freed before B.",
            ),
            builds_on=("Q2", "Q3"),
        ),
        Question(
            "Q5",
            "the poisoned cache",
            (*POOL, "RepairedPool"),
            (
                Check("nothing unwritten is found", 15, nothing_unwritten_is_found),
                Check("only computed tokens", 10, only_computed_tokens, is_hidden=True),
            ),
            (
                "When is the KV of a block written: before allocate, in it, or after it?",
                "Between allocate and commit runs the forward pass. Who is interrupted there never comes to commit.",
                "Publish in commit only: RepairedPool.allocate calls that of PrefixBlockPool, which publishes nothing.",
            ),
            Prediction(
                "a prompt is interrupted inside its forward pass and asked again: is the second answer right or wrong?",
                "q5",
                right_or_wrong,
                "its blocks were offered before anything was written into them: the second request read what somebody "
                "else had left there.",
            ),
            builds_on=("Q2", "Q3"),
        ),
        Question(
            "Q6",
            "plug it in",
            POOL,
            (Check("eight users", 15, eight_users, is_hidden=True),),
            builds_on=("Q2", "Q3", "Q4"),
            observe=answers_are_equal,
        ),
        reflection_question("Q7", "what a hit saves", "what a tenant could learn"),
    ),
    figures=(
        Figure("the tokens of prefill without a cache and with one", "q1", of_each(prefill_tokens)),
        Figure("the time to the first token without a cache and with one", "q1", of_each(mean_ttft_s), "s"),
        Figure("the tokens that vLLM found", "q1_vllm", of_each(num_hits)),
        Figure("the time to the first token in vLLM", "q1_vllm", of_each(mean_ttft_s), "s"),
        Figure("the share of prompt tokens found in the recorded run", "recorded", prefix_hit_rate, "share"),
        Figure("the tokens that later requests found in your pool and computed", "q3", found_and_computed),
        Figure("the tokens that seven users found in your pool and computed", "q6", found_by_the_rest),
    ),
)
