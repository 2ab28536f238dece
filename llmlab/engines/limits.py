"""check_limits(): numbers that say how much of something there may be. This file must not know what they limit."""

from __future__ import annotations

from llmlab.errors import EngineError
from llmlab.language import tr


def check_limits(**limits: int | None) -> None:
    """Raises: EngineError for one that would let nothing through. None: there is no such limit, or the usual one.

    >>> check_limits(seqs=16, ctx=None)
    """
    for name, value in limits.items():
        if value is not None and value < 1:
            raise EngineError(tr("{name} is {value}; it is 1 or more, or left out.", name=name, value=value))
