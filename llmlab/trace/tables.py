"""A trace as pandas DataFrames: one row a step, a request, a token. Missing values are NA (numbers: NaN), never 0.

This file must not draw or judge anything. pandas is imported when a table is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from llmlab.trace import times
from llmlab.trace.records import BlockDelta, CellDelta, KvDelta, Step
from llmlab.trace.whose import is_other

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.trace.recording import Trace

# column -> dtype; Int64 may be NA
STEP_COLUMNS = {
    "step": "int64",
    "t_s": "float64",
    "schedule_s": "float64",
    "forward_s": "float64",
    "update_s": "float64",
    "batch_size": "int64",
    "num_scheduled_tokens": "int64",
    "num_prefill_tokens": "int64",
    "num_decode_tokens": "int64",
    "num_recompute_tokens": "int64",
    "num_draft_tokens": "int64",
    "token_budget": "Int64",
    "num_output_tokens": "int64",
    "num_running": "int64",
    "num_waiting": "int64",
    "num_preempted": "int64",
    "num_finished": "int64",
    "num_prefix_hit_tokens": "int64",
    "kv_used": "Int64",
    "kv_total": "Int64",
    "num_attended": "Int64",
    "num_blocks_cached": "Int64",
    "num_blocks_evicted": "Int64",
}
REQUEST_COLUMNS = {
    "request_id": "string",
    "arrival_s": "float64",
    "num_prompt_tokens": "int64",
    "num_output_tokens": "int64",
    "num_cached_tokens": "Int64",
    "num_preemptions": "int64",
    "num_recomputed_tokens": "int64",
    "queue_s": "float64",
    "ttft_s": "float64",
    "tpot_s": "float64",
    "e2e_s": "float64",
    "finish_reason": "string",
    "priority": "int64",
    "user": "string",
}
TOKEN_COLUMNS = {
    "request_id": "string",
    "index": "int64",
    "step": "int64",
    "t_s": "float64",
    "token_id": "int64",
    "text": "string",
    "logprob": "float64",
}


def steps(trace: Trace) -> pd.DataFrame:
    """One row a step.

    step, t_s: number and end of the step; schedule_s, forward_s, update_s: how long its parts took.
    batch_size: sequences in it. num_scheduled_tokens = num_prefill_tokens + num_decode_tokens + num_recompute_tokens,
    of which num_draft_tokens are drafts; at most token_budget. num_output_tokens: tokens that came out.
    num_running, num_waiting, num_preempted, num_finished: requests. num_prefix_hit_tokens: found in the prefix cache.
    kv_used, kv_total: blocks or cells. num_attended: cells the attention kernel read, holes included.
    num_blocks_cached, num_blocks_evicted: blocks that got a hash, and that lost it.
    """
    return _frame(STEP_COLUMNS, (_step_row(step) for step in trace.step_records))


def requests(trace: Trace) -> pd.DataFrame:
    """One row a request, in order of arrival.

    request_id, arrival_s: who, and when it was sent. num_prompt_tokens, num_output_tokens. num_cached_tokens: prefix
    cache hits, fixed at its first admission. num_preemptions; num_recomputed_tokens: what they cost. queue_s, ttft_s,
    tpot_s, e2e_s: see llmlab.metrics. finish_reason: NA while it runs. priority, user: as it was sent. is_other, in
    the trace of a server that others use too: it is another client's.
    """
    num_cached: dict[str, int] = {}
    num_preemptions: Counter[str] = Counter()
    num_recomputed: Counter[str] = Counter()
    for step in trace.step_records:
        num_preemptions.update(step.preempted)
        for row in step.scheduled:
            num_cached.setdefault(row.request_id, step.prefix_hits.get(row.request_id, 0))
            if row.phase == "recompute":
                num_recomputed[row.request_id] += row.num_tokens
    measured = times.request_times(trace)
    rows = (
        {
            "request_id": request.request_id,
            "arrival_s": request.arrival_s,
            "num_prompt_tokens": t.num_prompt_tokens,
            "num_output_tokens": t.num_output_tokens,
            "num_cached_tokens": num_cached.get(request.request_id),
            "num_preemptions": num_preemptions[request.request_id],
            "num_recomputed_tokens": num_recomputed[request.request_id],
            "queue_s": times.queue_s(t),
            "ttft_s": times.ttft_s(t),
            "tpot_s": times.tpot_s(t),
            "e2e_s": times.e2e_s(t),
            "finish_reason": t.finish_reason,
            "priority": request.priority,
            "user": request.user,
        }
        for request in trace.request_records
        if (t := measured.get(request.request_id))
    )
    frame = _frame(REQUEST_COLUMNS, rows)
    others = {request.request_id for request in trace.request_records if is_other(request)}
    if others:
        frame["is_other"] = frame["request_id"].isin(others)
    return frame


def tokens(trace: Trace) -> pd.DataFrame:
    """One row a token that came out, in order of time.

    request_id, index: which token of which answer, from 0. step, t_s: when. token_id, text: what became readable with
    it. logprob: natural log of its probability before temperature and filters, NaN when it was not asked for.
    """
    return _frame(TOKEN_COLUMNS, _token_rows(trace))


def _token_rows(trace: Trace) -> Iterable[Mapping[str, object]]:
    # A trace that is cut out of a longer one begins in the middle of an answer.
    index = {row.request_id: row.num_output_tokens for s in reversed(trace.step_records) for row in s.scheduled}
    for step in trace.step_records:
        for token in step.tokens:
            i = index.get(token.request_id, 0)
            index[token.request_id] = i + 1
            yield {
                "request_id": token.request_id,
                "index": i,
                "step": step.step,
                "t_s": step.t_s,
                "token_id": token.token_id,
                "text": token.text,
                "logprob": token.logprob,
            }


def _step_row(step: Step) -> dict[str, object]:
    num_tokens: Counter[str] = Counter()
    for row in step.scheduled:
        num_tokens[row.phase] += row.num_tokens
    kv_used, kv_total = _room(step.kv)
    return {
        "step": step.step,
        "t_s": step.t_s,
        "schedule_s": step.schedule_s,
        "forward_s": step.forward_s,
        "update_s": step.update_s,
        "batch_size": len(step.scheduled),
        "num_scheduled_tokens": step.num_scheduled_tokens,
        "num_prefill_tokens": num_tokens["prefill"],
        "num_decode_tokens": num_tokens["decode"],
        "num_recompute_tokens": num_tokens["recompute"],
        "num_draft_tokens": sum(row.num_draft_tokens for row in step.scheduled),
        "token_budget": step.token_budget,
        "num_output_tokens": len(step.tokens),
        "num_running": step.num_running,
        "num_waiting": step.num_waiting,
        "num_preempted": len(step.preempted),
        "num_finished": len(step.finished),
        "num_prefix_hit_tokens": sum(step.prefix_hits.values()),
        "kv_used": kv_used,
        "kv_total": kv_total,
        "num_attended": step.kv.num_attended if isinstance(step.kv, CellDelta) else None,
        "num_blocks_cached": len(step.kv.cached) if isinstance(step.kv, BlockDelta) else None,
        "num_blocks_evicted": len(step.kv.evicted) if isinstance(step.kv, BlockDelta) else None,
    }


def _room(kv: KvDelta | None) -> tuple[int | None, int | None]:
    if isinstance(kv, CellDelta):
        return kv.num_used, kv.num_cells
    return (kv.num_blocks - kv.num_free, kv.num_blocks) if isinstance(kv, BlockDelta) else (None, None)


def _frame(columns: Mapping[str, str], rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    import pandas as pd

    values: dict[str, list[object]] = {name: [] for name in columns}
    for row in rows:
        for name, column in values.items():
            column.append(row[name])
    return pd.DataFrame({name: pd.Series(values[name], dtype=dtype) for name, dtype in columns.items()})
