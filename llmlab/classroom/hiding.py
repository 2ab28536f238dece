"""What a student sees of the shared batch: his own requests whole, of everybody else's only how they move.

Of somebody else's request are kept: when it came, how long its prompt and its answer are, where its KV lies, how it
ended. Gone are text, token ids, its id, the user, the salt, what was asked of the sampler, log probabilities, stop
strings, and every field that this file does not know. Blocks are told by number, and a number says nothing of what is
in it; salts keep the prefix cache of each student apart (app.py), or a hit would say that somebody else's prompt begins
alike. This file must not know HTTP, and it must not let through what it does not name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from llmlab.trace import BlockDelta, CellDelta, Header, KvDelta, Request, ScheduledRequest, Step, Token
from llmlab.trace.whose import OTHER, TOLD, WHOSE

# Stands for every token id that is hidden: no vocabulary reaches so far (see Capabilities.token_ids).
HIDDEN_ID = 2**31
# No client can call its request so (Door): an alias is never taken for a name.
ALIAS = "*{}"
V = TypeVar("V")
NameOf = Callable[[str], str]


class Aliases:
    """What requests are called for those whose they are not: *0, *1, ... in the order in which they are first told."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def __call__(self, request_id: str) -> str:
        return self._of.setdefault(request_id, ALIAS.format(len(self._of)))


def hidden_request(request: Request, alias: str) -> Request:
    most = request.sampling.get("max_tokens")
    return Request(
        request_id=alias,
        arrival_s=request.arrival_s,
        prompt_token_ids=(HIDDEN_ID,) * len(request.prompt_token_ids),
        sampling={"max_tokens": most} if isinstance(most, int) else {},
        extra={WHOSE: OTHER},
    )


def hidden_token(token: Token, alias: str) -> Token:
    return Token(request_id=alias, token_id=HIDDEN_ID)


def hidden_step(step: Step, name: NameOf) -> Step:
    """The step under other names, without its tokens and its KV: see hidden_token() and renamed_kv()."""
    return Step(
        step=step.step,
        t_s=step.t_s,
        schedule_s=step.schedule_s,
        forward_s=step.forward_s,
        update_s=step.update_s,
        scheduled=tuple(_renamed_share(share, name) for share in step.scheduled),
        num_scheduled_tokens=step.num_scheduled_tokens,
        token_budget=step.token_budget,
        waiting=tuple(map(name, step.waiting)),
        num_waiting=step.num_waiting,
        num_running=step.num_running,
        preempted=tuple(map(name, step.preempted)),
        finished=_renamed(step.finished, name),
        prefix_hits=_renamed(step.prefix_hits, name),
        forked={name(child): name(parent) for child, parent in step.forked.items()},
    )


def renamed_kv(kv: KvDelta, name: NameOf) -> KvDelta:
    """Who holds which block or cell, under other names."""
    if isinstance(kv, CellDelta):
        return CellDelta(
            written=_renamed(kv.written, name),
            shared=_renamed(kv.shared, name),
            freed=_renamed(kv.freed, name),
            num_used=kv.num_used,
            num_cells=kv.num_cells,
            num_attended=kv.num_attended,
            head=kv.head,
        )
    return BlockDelta(
        allocated=_renamed(kv.allocated, name),
        freed=_renamed(kv.freed, name),
        cached=kv.cached,
        evicted=kv.evicted,
        ref_counts=kv.ref_counts,
        copied=kv.copied,
        free_head=kv.free_head,
        groups=_renamed(kv.groups, name),
        num_free=kv.num_free,
        num_blocks=kv.num_blocks,
    )


def hidden_header(header: Header, name: NameOf) -> Header:
    """The engine is the same for all; who holds its KV is not."""
    kv = header.kv_at_start
    return Header(
        engine=header.engine,
        engine_version=header.engine_version,
        model=header.model,
        fingerprint=header.fingerprint,
        quant=header.quant,
        dtype=header.dtype,
        device=header.device,
        num_threads=header.num_threads,
        source=header.source,
        capabilities=header.capabilities,
        block_size=header.block_size,
        num_blocks=header.num_blocks,
        num_cells=header.num_cells,
        kv_cache_bytes=header.kv_cache_bytes,
        max_model_len=header.max_model_len,
        max_num_seqs=header.max_num_seqs,
        token_budget=header.token_budget,
        started_at=header.started_at,
        kv_at_start=renamed_kv(kv, name) if kv is not None else None,
        extra={WHOSE: TOLD},
    )


def _renamed_share(share: ScheduledRequest, name: NameOf) -> ScheduledRequest:
    return ScheduledRequest(
        request_id=name(share.request_id),
        phase=share.phase,
        num_tokens=share.num_tokens,
        num_computed_tokens=share.num_computed_tokens,
        num_prompt_tokens=share.num_prompt_tokens,
        num_output_tokens=share.num_output_tokens,
        num_draft_tokens=share.num_draft_tokens,
    )


def _renamed(values: Mapping[str, V], name: NameOf) -> dict[str, V]:
    return {name(request_id): value for request_id, value in values.items()}


def seen_step(step: Step, own: frozenset[str], name: NameOf) -> Step:
    """The step for who owns these requests. `name`: an alias for all others, themselves for his."""
    return replace(
        hidden_step(step, name),
        stopped_by={request_id: text for request_id, text in step.stopped_by.items() if request_id in own},
        tokens=tuple(
            replace(token, extra={}) if token.request_id in own else hidden_token(token, name(token.request_id))
            for token in step.tokens
        ),
        kv=renamed_kv(step.kv, name) if step.kv is not None else None,
    )
