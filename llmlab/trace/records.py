"""The records of a trace: what one engine did, step by step. Written by engines, read by metrics, views and labs.

This file must not know any engine, clock or file. Records are msgspec Structs, not dataclasses: a GPU step has 500
of them and its tracer may cost 70 microseconds. Field names are vLLM's where vLLM has one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

SCHEMA = "llmlab.trace/1"

Phase = Literal["prefill", "decode", "recompute"]
FinishReason = Literal["stop", "length", "abort", "interrupted", "error"]
Source = Literal["measured", "reported", "simulated"]

# Bounds are checked when a record is read, not when an engine makes one.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # exact in JavaScript too
Room = Annotated[
    int, msgspec.Meta(ge=0, le=2**24)
]  # blocks or cells of a cache: whoever draws or checks one allocates it
Priority = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Base of all records. `extra` keeps the fields that a newer writer knew and this reader does not.

    In a file they stand beside the other fields of their record, under their own names.
    """

    extra: dict[str, Any] = {}


class Capabilities(Record, frozen=True, kw_only=True):
    """What an engine can truly show and do. Travels in the header; views and magics ask it before they draw."""

    kv: Literal["blocks", "cells", "none"] = "none"
    # Where cell indices come from: "raw" = read from the engine's memory, "predicted" = our pool, checked against
    # the public state of the engine, which has the order of the cells but not their index.
    cell_source: Literal["raw", "predicted"] | None = None
    block_table: bool = False
    logprobs: bool = False
    prompt_logprobs: bool = False
    prefix_caching: bool = False
    preemption: bool = False
    priority: bool = False
    grammar: bool = False
    json_schema: bool = False
    lora: Literal["none", "engine", "request"] = "none"
    speculative: bool = False
    # False: it is seen from outside; a step is what arrived at once, and nobody knows who was scheduled.
    steps: bool = True
    # False: numbers from 2**31 on stand for pieces of text, and say only which ones are equal.
    token_ids: bool = True
    # A sequence takes room for tokens to come (contiguous allocation).
    reserves: bool = False
    # Parts that a class written in a notebook may replace: "policy", "sampler", "block_pool", "attention".
    pluggable: tuple[str, ...] = ()


class CellDelta(Record, frozen=True, kw_only=True, tag_field="kind", tag="cells"):
    """Changes of llama.cpp's KV cells from the end of one step to the end of the next.

    A cell holds the KV of one token, for one or more requests. Applied in this order: freed, shared, written; a cell
    that one request frees and another shares in the same delta keeps its KV. What was written and freed within one
    step is not told. A request id stays the holder of its cells after it finished, as long as they are kept for
    prefix sharing.
    """

    # request_id -> runs (first_cell, first_position, length), all int, of cells written in this step
    written: dict[str, tuple[tuple[Count, Count, Count], ...]] = {}
    # request_id -> runs (first_cell, length) of cells that this request holds from now on beside their holders
    shared: dict[str, tuple[tuple[Count, Count], ...]] = {}
    # request_id -> runs (first_cell, length) of cells it holds no longer
    freed: dict[str, tuple[tuple[Count, Count], ...]] = {}
    num_used: Room
    num_cells: Room
    # Cells the attention kernel reads: the last used cell rounded up, holes included.
    num_attended: Count
    # Where the search for free cells starts next.
    head: Count | None = None

    @property
    def receivers(self) -> set[str]:
        """Requests that get KV in this delta."""
        return {*self.written, *self.shared}


class BlockDelta(Record, frozen=True, kw_only=True, tag_field="kind", tag="blocks"):
    """Changes of a paged KV cache from the end of one step to the end of the next.

    Applied in this order: freed, evicted, allocated, cached. Block ids are physical; the null block of vLLM is not
    counted. What was allocated and freed within one step is not told.
    """

    # request_id -> blocks appended to its block table
    allocated: dict[str, tuple[Count, ...]] = {}
    # request_id -> blocks that left its block table
    freed: dict[str, tuple[Count, ...]] = {}
    # blocks that got a hash (can be hit from now on) and blocks that lost theirs
    cached: tuple[Count, ...] = ()
    evicted: tuple[Count, ...] = ()
    # block_id -> reference count after the step, for each block whose count changed
    ref_counts: dict[Count, Count] = {}
    # block_id -> the block whose KV was copied into it before the forward pass, since others held that one too
    copied: dict[Count, Count] = {}
    # The next blocks to be handed out, in order: a block with a hash among them is evicted then. At most 16 are told.
    free_head: tuple[Count, ...] = ()
    # request_id -> the KV cache group of each block in `allocated`, for models whose layers keep KV in different ways
    # (sliding windows, Mamba): a request has one block table for each group, and a window lets go of old blocks.
    groups: dict[str, tuple[Count, ...]] = {}
    num_free: Room
    num_blocks: Room

    @property
    def receivers(self) -> set[str]:
        """Requests that get KV in this delta."""
        return set(self.allocated)


KvDelta = BlockDelta | CellDelta


class Header(Record, frozen=True, kw_only=True):
    """Line 1 of a trace: which engine ran which model, with what room."""

    # A factory, because a plain default would be left out of the file by omit_defaults.
    schema: str = msgspec.field(default_factory=lambda: SCHEMA)
    engine: str
    engine_version: str = ""
    model: str = ""
    fingerprint: str | None = None
    quant: str | None = None
    dtype: str | None = None
    device: str | None = None
    num_threads: Count | None = None
    source: Source = "measured"
    capabilities: Capabilities = Capabilities()
    block_size: Room | None = None
    num_blocks: Room | None = None
    num_cells: Room | None = None
    kv_cache_bytes: Count | None = None
    max_model_len: Count | None = None
    max_num_seqs: Count | None = None
    token_budget: Count | None = None
    # Unix time of t_s = 0.
    started_at: float | None = None
    # A trace cut out of a longer one: the KV cache before its first step, as a change of an empty cache.
    kv_at_start: KvDelta | None = None


class Request(Record, frozen=True, kw_only=True):
    """What a client sent. `arrival_s` is when it was sent, in seconds since t_s = 0."""

    request_id: str
    arrival_s: float
    prompt_token_ids: tuple[Count, ...]
    prompt_text: str | None = None
    sampling: dict[str, Any] = {}
    priority: Priority = 0
    user: str = ""
    salt: str = ""
    # The request with the same prompt of which this is another answer (n > 1): an engine may share its blocks.
    parent_id: str = ""


class ScheduledRequest(Record, frozen=True, kw_only=True):
    """The share of one request in one step. `num_computed_tokens` and `num_output_tokens` count before the step.

    Phase: "decode" when all but one of its tokens are computed and one of them is an output; else "recompute" once it
    was preempted; else "prefill". num_tokens includes the draft tokens.
    """

    request_id: str
    phase: Phase
    num_tokens: Count
    num_computed_tokens: Count
    num_prompt_tokens: Count
    num_output_tokens: Count
    num_draft_tokens: Count = 0


class Token(Record, frozen=True, kw_only=True):
    """One token that came out. `text` is what became readable with it: "" while a character is incomplete."""

    request_id: str
    token_id: Count
    text: str = ""
    # Natural log of the probability before temperature and filters; None when it was not asked for.
    logprob: float | None = None
    # The most likely tokens there: (token_id, logprob, text), best first.
    top: tuple[tuple[Count, float, str], ...] = ()


class Step(Record, frozen=True, kw_only=True):
    """One scheduling decision and its forward pass. `t_s` is its end: from then on its tokens exist."""

    step: Count
    t_s: float
    schedule_s: float | None = None
    forward_s: float | None = None
    update_s: float | None = None
    scheduled: tuple[ScheduledRequest, ...] = ()
    num_scheduled_tokens: Count = 0
    token_budget: Count | None = None
    # The first 64 that wait, in order; num_waiting counts all.
    waiting: tuple[str, ...] = ()
    num_waiting: Count = 0
    num_running: Count = 0
    preempted: tuple[str, ...] = ()
    finished: dict[str, FinishReason] = {}
    # request_id -> the stop string that ended it
    stopped_by: dict[str, str] = {}
    # request_id -> tokens found in the prefix cache at (re)admission
    prefix_hits: dict[str, Count] = {}
    # request_id -> its parent_id, for who shares all blocks of its parent from the end of this step on, and runs
    forked: dict[str, str] = {}
    tokens: tuple[Token, ...] = ()
    kv: KvDelta | None = None


class Incident(Record, frozen=True, kw_only=True):
    """What ended the record of requests other than a step: the host died, or the trace was cut out of a longer one."""

    incident: Literal["died", "cut"]
    t_s: float
    requests: tuple[str, ...] = ()
    text: str = ""
