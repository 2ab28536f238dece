"""The numbers beside a picture of the KV cache: what is held, shared, cached and wasted after each step.

Running counters: no step looks at all blocks or cells; the slow way to the same numbers is in
tests/views/test_figures.py. What is not known is None, never 0. This file must not know widgets, pages or engines.
"""

from __future__ import annotations

from llmlab.trace import Header
from llmlab.views.figures_base import KvFigures
from llmlab.views.figures_blocks import BlockFigures
from llmlab.views.figures_cells import CellFigures

__all__ = ["BlockFigures", "KvFigures", "figures_for"]


def figures_for(header: Header) -> KvFigures:
    """Counters for the kind of cache that this engine shows."""
    kinds = {"blocks": BlockFigures, "cells": CellFigures, "none": KvFigures}
    return kinds[header.capabilities.kv](header)
