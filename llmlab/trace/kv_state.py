"""The KV cache at one moment, rebuilt from the deltas of a trace. Views draw it, validate() checks it.

This file must not know any engine.
"""

from __future__ import annotations

from llmlab.trace.block_state import BlockState
from llmlab.trace.cell_state import CellState
from llmlab.trace.records import CellDelta, KvDelta
from llmlab.trace.runs import runs

__all__ = ["BlockState", "CellState", "runs", "state_for"]


def state_for(delta: KvDelta) -> CellState | BlockState:
    """An empty state of the kind that this delta changes."""
    return CellState() if isinstance(delta, CellDelta) else BlockState()
