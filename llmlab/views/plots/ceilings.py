"""What this machine's CPU can do at best, measured in about a second: operations and bytes per second.

numpy is imported when it is measured. This file must not know models or charts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from llmlab.engines.threads import default_threads

_MATRIX = 1536
_TRIES = 5
# Three arrays of this size, more than the caches of most CPUs hold; in pieces that stay in a core's own cache.
_ARRAY_BYTES = 96 * 2**20
_PIECE = 16 * 2**10


@cache
def peak_flops() -> float:
    """float32 operations per second of a matrix product (numpy's BLAS, with the threads it takes): the best of five.

    Source: 2 n^3 operations for a product of two n x n matrices.
    """
    import numpy as np

    a = np.ones((_MATRIX, _MATRIX), np.float32)
    b, product = a.copy(), np.empty_like(a)
    np.matmul(a, b, out=product)
    return 2 * _MATRIX**3 / _best_s(lambda: np.matmul(a, b, out=product))


@cache
def peak_bytes_per_s() -> float:
    """Bytes per second between memory and CPU: the triad a = b + s x c, with a thread for each core, the best of five.

    Source: McCalpin, STREAM benchmark, https://www.cs.virginia.edu/stream/ref.html: triad moves three numbers for each.
    """
    import numpy as np

    length = _ARRAY_BYTES // 8
    a, b, c = (np.full(length, value) for value in (0.0, 1.0, 2.0))
    num_threads = default_threads()

    def triad(first: int) -> None:
        for start in range(first, min(first + share, length), _PIECE):
            piece = slice(start, min(start + _PIECE, first + share, length))
            np.multiply(c[piece], 3.0, out=a[piece])
            np.add(a[piece], b[piece], out=a[piece])  # a is still in the cache

    share = -(-length // num_threads)
    with ThreadPoolExecutor(num_threads) as threads:
        return 3 * _ARRAY_BYTES / _best_s(lambda: list(threads.map(triad, range(0, length, share))))


def _best_s(work: Callable[[], object]) -> float:
    times_s = []
    for _ in range(_TRIES):
        begin_s = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - begin_s)
    return min(times_s)
