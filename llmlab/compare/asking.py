"""compare(): from prompts and engines to a Comparison.

This file must not know how answers are taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from llmlab.compare.columns import columns_of
from llmlab.compare.comparison import Comparison
from llmlab.compare.prompt_sets import prompt_set
from llmlab.engines.handle import EngineHandle
from llmlab.errors import RequestError

_numbers = itertools.count(1)


def compare(
    prompts: object,
    engines: Iterable[EngineHandle | str] | EngineHandle | str | None = None,
    *,
    together: bool = False,
    at_once: int = 1,
    column: str = "prompt",
    limit: int | None = None,
    causes: bool = True,
    blind: bool = False,
    wait: bool = True,
    timeout: float | None = None,
    **options: Any,
) -> Comparison:
    """The same prompts on 2 to 16 columns, side by side.

    `prompts`: a text; a list; a DataFrame (its column `column`); a .jsonl file, whose broken lines are told by number;
    `limit`: only the first ones. `engines`: handles or their names; None: all that are loaded. Options are those of
    generate(); a list of values makes a column of each (temperature=[0, 0.7]). quant=["F16", "Q8_0"] and dtype=[...]
    load what is not loaded yet, and leave it loaded.

    The columns answer one after the other, prompt by prompt, so that their speeds compare; `together` asks all at once:
    then they share the machine. Each answers `at_once` prompts together. No column uses KV that an earlier request
    left (`salt` of your own changes that). `blind`: names are hidden, see Comparison.vote(). Where answers part, the
    `causes` are tested by asking both engines again. `wait=False` returns at once; show it, and it fills.

    >>> llmlab.compare("Why is the sky blue?", engines=[f16, q8], max_tokens=64).table()    # doctest: +SKIP

    Raises: RequestError for an empty set, a setting out of range or an engine that is not there; what load() raises.
    A column whose engine dies keeps what it had, and says so in `error`; the others go on.
    """
    if at_once < 1:
        raise RequestError(f"at_once is {at_once}; it must be 1 (each prompt alone) or more.")
    asked = prompt_set(prompts, column=column, limit=limit)
    columns = columns_of(engines, options)
    for index, each in enumerate(columns):
        each.options.setdefault("salt", f"compare-{next(_numbers)}-{index}")
    seed = options.get("seed")
    comparison = Comparison(
        columns,
        asked,
        together=together,
        at_once=at_once,
        causes=causes,
        blind=blind,
        seed=seed if isinstance(seed, int) else 0,
    ).start()
    return comparison.wait(timeout) if wait else comparison
