"""Runs: consecutive numbers as (first, length), which is how cells and blocks are written down and said.

This file must not know what the numbers are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator


def runs(indices: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Consecutive numbers as (first, length).

    >>> runs([4, 5, 6, 9])
    ((4, 3), (9, 1))
    """
    out: list[list[int]] = []
    for i in indices:
        if out and out[-1][0] + out[-1][1] == i:
            out[-1][1] += 1
        else:
            out.append([i, 1])
    return tuple((first, length) for first, length in out)


def placed_runs(cells: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """(cell, position) pairs as (first_cell, first_position, length).

    >>> list(placed_runs([(4, 0), (5, 1), (6, 9)]))
    [(4, 0, 2), (6, 9, 1)]
    """
    start = 0
    for i in range(1, len(cells) + 1):
        if i == len(cells) or cells[i] != (cells[i - 1][0] + 1, cells[i - 1][1] + 1):
            yield (*cells[start], i - start)
            start = i


def in_words(kind: str, numbers: Collection[int]) -> str:
    """Blocks or cells for a sentence.

    >>> in_words("cell", [7]), in_words("block", [4, 9, 5, 6])
    ('cell 7', 'blocks 4-6, 9')
    """
    parts = [str(first) if n == 1 else f"{first}-{first + n - 1}" for first, n in runs(sorted(numbers))]
    more = f" and {len(parts) - 4} more" if len(parts) > 4 else ""
    return f"{kind}{'s' if len(numbers) != 1 else ''} {', '.join(parts[:4])}{more}"
