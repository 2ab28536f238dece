"""A trace of a busy server with a large paged KV cache, made without a model: what the views are measured on.

256 requests run at once. Who ends is followed by the next in line; its blocks stay cached until the LRU order hands
them out again, so most of the cache is held or cached, as on a server that has worked for a while.
"""

from __future__ import annotations

import random
from collections import OrderedDict

from llmlab.trace import BlockDelta, Capabilities, Header, Request, ScheduledRequest, Step, Token, Trace

BLOCK_SIZE = 16
WORDS = [f" {word}" for word in "the of and a to in is you that it he was for on are as with his they be this".split()]


class Server:
    """Blocks with hashes and an LRU free list; every request decodes one token a step after one step of prefill."""

    def __init__(self, num_blocks: int, max_num_seqs: int, prompt_tokens: int, output_tokens: int) -> None:
        self.num_blocks, self.max_num_seqs = num_blocks, max_num_seqs
        self.prompt_tokens, self.output_tokens = prompt_tokens, output_tokens
        self.random = random.Random(0)
        self.free = OrderedDict.fromkeys(range(num_blocks))
        self.cached: set[int] = set()
        self.tables: dict[str, list[int]] = {}
        self.lengths: dict[str, tuple[int, int]] = {}  # request id -> tokens of its prompt, of its output in the end
        self.computed: dict[str, int] = {}
        self.num_made = 0

    def step(self, number: int, t_s: float) -> Step:
        freed, evicted, allocated, cached = {}, [], {}, []
        finished = {r: "length" for r, (prompt, output) in self.lengths.items() if self.computed[r] >= prompt + output}
        for name in finished:
            table = self.tables.pop(name)
            freed[name] = tuple(table)
            self.free.update(dict.fromkeys(reversed(table)))
            del self.lengths[name], self.computed[name]
        if len(self.lengths) < self.max_num_seqs:
            self._admit()
        rows = []
        for name, (prompt, _) in self.lengths.items():
            before = self.computed[name]
            num_tokens, phase = (1, "decode") if before else (prompt, "prefill")
            table, after = self.tables[name], before + num_tokens
            if num_new := -(-after // BLOCK_SIZE) - len(table):
                new = [self.free.popitem(last=False)[0] for _ in range(num_new)]
                evicted += [block for block in new if block in self.cached]
                table += new
                allocated[name] = tuple(new)
            cached += table[before // BLOCK_SIZE : after // BLOCK_SIZE]
            self.computed[name] = after
            rows.append(
                ScheduledRequest(
                    request_id=name, phase=phase, num_tokens=num_tokens, num_computed_tokens=before,
                    num_prompt_tokens=prompt, num_output_tokens=max(0, before - prompt + 1) if before else 0,
                )
            )  # fmt: skip
        self.cached.difference_update(evicted)
        self.cached.update(cached)
        kv = BlockDelta(
            allocated=allocated,
            freed=freed,
            cached=tuple(cached),
            evicted=tuple(evicted),
            ref_counts={block: 0 for table in freed.values() for block in table}
            | {block: 1 for table in allocated.values() for block in table},
            free_head=tuple(block for block, _ in zip(self.free, range(16), strict=False)),
            num_free=len(self.free),
            num_blocks=self.num_blocks,
        )
        return Step(
            step=number,
            t_s=t_s,
            schedule_s=0.001,
            forward_s=0.03,
            update_s=0.001,
            scheduled=tuple(rows),
            num_scheduled_tokens=sum(row.num_tokens for row in rows),
            num_running=len(rows),
            finished=finished,
            tokens=tuple(
                Token(request_id=r.request_id, token_id=5, text=f" {self.random.choice(WORDS)}") for r in rows
            ),
            kv=kv,
        )

    def snapshot(self) -> BlockDelta:
        return BlockDelta(
            allocated={name: tuple(table) for name, table in self.tables.items()},
            cached=tuple(sorted(self.cached)),
            ref_counts={block: 1 for table in self.tables.values() for block in table},
            num_free=len(self.free),
            num_blocks=self.num_blocks,
        )

    def _admit(self) -> None:
        """One request; prompts and outputs are of half to one and a half of the usual length."""
        name = f"r{self.num_made}"
        self.num_made += 1
        lengths = [int(usual * self.random.uniform(0.5, 1.5)) for usual in (self.prompt_tokens, self.output_tokens)]
        self.lengths[name], self.computed[name], self.tables[name] = (lengths[0], lengths[1]), 0, []


def large_trace(
    num_steps: int, *, num_blocks: int = 100_000, max_num_seqs: int = 256, prompt_tokens: int = 2000,
    output_tokens: int = 500, rate: float = 30.0, num_warm_up: int = 1500,
) -> Trace:  # fmt: skip
    """`num_steps` steps, `rate` a second, of a server that has taken `num_warm_up` steps before."""
    server = Server(num_blocks, max_num_seqs, prompt_tokens, output_tokens)
    prompts: dict[str, int] = {}
    for number in range(num_warm_up):
        server.step(number, 0.0)
        prompts.update({name: prompt for name, (prompt, _) in server.lengths.items()})
    alive = set(server.tables)
    start = server.snapshot() if num_warm_up else None
    prompts = {name: prompt for name, prompt in prompts.items() if name in alive}
    arrivals = dict.fromkeys(prompts, 0.0)
    steps = []
    for number in range(num_steps):
        steps.append(server.step(number, (number + 1) / rate))
        for name, (prompt, _) in server.lengths.items():
            prompts.setdefault(name, prompt)
            arrivals.setdefault(name, number / rate)
    requests = tuple(
        Request(request_id=name, arrival_s=arrivals[name], prompt_token_ids=(7,) * prompt, sampling={"max_tokens": 750})
        for name, prompt in prompts.items()
    )
    header = Header(
        engine="vllm", model="a busy server", source="simulated",
        capabilities=Capabilities(kv="blocks", block_table=True, prefix_caching=True), block_size=BLOCK_SIZE,
        num_blocks=num_blocks, token_budget=8192, max_num_seqs=max_num_seqs, kv_at_start=start,
    )  # fmt: skip
    return Trace(header, requests, tuple(steps))
