"""A progress bar on stderr for work that takes longer than a second, and only where a person watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, total: int, unit: str = "weights") -> Iterator[Callable[[int], object]]:
    """Yields a function that is told how much was done since its last call."""
    from tqdm import tqdm

    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    with tqdm(desc=label, total=total, unit=f" {unit}", unit_scale=True, delay=1.0, disable=not watched) as bar:
        yield bar.update
