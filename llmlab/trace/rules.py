"""The rules that every sound trace keeps, by name. validation.py and its helpers find where one is broken.

This file must not know how a rule is checked.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Rule = Literal[
    "order",
    "request",
    "end",
    "budget",
    "seats",
    "phase",
    "computed",
    "tokens",
    "preempted",
    "kv",
    "total",
    "ref_count",
    "kv_length",
    "prefix",
]

RULES: dict[Rule, str] = {
    "order": "step numbers rise and times do not go back",
    "request": "each request id has one request record, and nothing happens to an id without one",
    "end": "every request ends exactly once, and is not scheduled after that",
    "budget": "sum(num_tokens) = num_scheduled_tokens <= token_budget; each request is scheduled once a step",
    "seats": "at most max_num_seqs sequences run",
    "phase": "prefill computes the prompt, decode one token after an output, recompute what a preemption cost",
    "computed": "num_computed_tokens starts at the prefix hit and grows by what was scheduled, output tokens likewise",
    "tokens": "a token comes out when all tokens before it are computed, and only then",
    "preempted": "only a running request is preempted, and its blocks are free one step later",
    "kv": "the KV deltas do not contradict themselves: nobody frees what it does not hold or writes what is held",
    "total": "held + free = total, in blocks or in cells",
    "ref_count": "the ref_count of a block = the number of block tables that hold it",
    "kv_length": "a sequence holds KV for exactly its computed tokens; none after its end, where there are blocks",
    "prefix": "only KV of the same tokens, computed and still cached, is shared",
}


class Finding(NamedTuple):
    """A broken rule, and the sentence that says what breaks it, with both numbers."""

    rule: Rule
    text: str
