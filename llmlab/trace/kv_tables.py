"""Who holds which piece of the KV cache after a step: block tables, or runs of cells, as a pandas DataFrame.

This file must not know any engine. pandas is imported when a table is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmlab.trace.kv_state import BlockState, CellState, state_for
from llmlab.trace.records import BlockDelta, CellDelta, KvDelta

if TYPE_CHECKING:
    import pandas as pd

    from llmlab.trace.recording import Trace

BLOCK_COLUMNS = ["request_id", "logical_block", "block_id", "first_position", "num_tokens", "ref_count", "cached"]
CELL_COLUMNS = ["first_cell", "last_cell", "num_cells", "first_position", "last_position", "request_ids"]


def kv_table(trace: Trace, step: int | None = None) -> pd.DataFrame:
    """The KV cache at the end of a step; None: of the last step at which most of it was held.

    Blocks: a row for each entry of each block table. logical_block -> block_id, the positions in it, how many tables
    hold it, and whether it has a hash, so that another request may find it. Cells: a row for each run of consecutive
    cells with consecutive positions that the same requests hold.

    Raises: LookupError when the trace has no such step, or tells nothing of the KV cache.
    """
    import pandas as pd

    last = _fullest(trace) if step is None else step
    if last not in {s.step for s in trace.step_records}:
        numbers = [s.step for s in trace.step_records]
        raise LookupError(f"no step {last}; the trace has {numbers[0]} to {numbers[-1]}" if numbers else "no steps")
    state = _state_after(trace, last)
    if isinstance(state, BlockState):
        return pd.DataFrame(_block_rows(trace, state, last), columns=BLOCK_COLUMNS)
    return pd.DataFrame(_cell_rows(state), columns=CELL_COLUMNS)


def _fullest(trace: Trace) -> int | None:
    held = [(_num_held(s.kv), s.step) for s in trace.step_records if s.kv is not None]
    return max(held)[1] if held else None


def _num_held(kv: KvDelta) -> int:
    return kv.num_blocks - kv.num_free if isinstance(kv, BlockDelta) else kv.num_used


def _state_after(trace: Trace, last: int) -> BlockState | CellState:
    deltas = [trace.header.kv_at_start, *(s.kv for s in trace.step_records if s.step <= last)]
    told = [delta for delta in deltas if isinstance(delta, (BlockDelta, CellDelta))]
    if not told:
        raise LookupError(f"this trace of {trace.header.engine} tells nothing of the KV cache")
    state = state_for(told[0])
    for delta in told:
        state.apply(delta)  # type: ignore[arg-type]  # an engine has one kind of cache
    return state


def _block_rows(trace: Trace, state: BlockState, last: int) -> Iterator[tuple[object, ...]]:
    size = trace.header.block_size or 0
    num_computed = {
        row.request_id: row.num_computed_tokens + row.num_tokens
        for s in trace.step_records
        if s.step <= last
        for row in s.scheduled
    }
    for request_id, table in state.tables.items():
        num_before: Counter[int] = Counter()  # of each KV cache group: each has a block table of its own
        for block in table:
            group = state.groups.get(block, 0)
            logical, first = num_before[group], num_before[group] * size
            num_before[group] += 1
            num_tokens = max(0, min(size, num_computed.get(request_id, 0) - first))
            ref_count = state.ref_counts.get(block, 0)
            yield request_id, logical, block, first, num_tokens, ref_count, block in state.cached


def _cell_rows(state: CellState) -> Iterator[tuple[object, ...]]:
    run: list[int] = []
    for cell in [*sorted(state.position), None]:
        if run and (cell is None or not _continues(state, run[-1], cell)):
            holders = ", ".join(sorted(state.holders[run[0]], key=lambda name: (len(name), name)))
            yield run[0], run[-1], len(run), state.position[run[0]], state.position[run[-1]], holders
            run = []
        if cell is not None:
            run.append(cell)


def _continues(state: CellState, cell: int, following: int) -> bool:
    is_next = following == cell + 1 and state.position[following] == state.position[cell] + 1
    return is_next and state.holders[following] == state.holders[cell]
