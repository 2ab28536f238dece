"""%llm parity: two engines held against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.error import UsageError
from IPython.display import display

import llmlab
from llmlab.language import tr
from llmlab.magics.line import Line, Named
from llmlab.magics.verbs.targets import loaded

if TYPE_CHECKING:
    from llmlab.engines.handle import EngineHandle


def parity(line: Line) -> object:
    """The manifest is the value."""
    args = line.args
    sides = [Named(f"llmlab.handles()[{handle.name!r}]", handle) for handle in _pair(args.a, args.b)]
    manifest = line.call("llmlab.parity", llmlab.parity, *sides, max_tokens=args.max_tokens)
    if args.out:
        line.assign(args.out, manifest)
    if not args.quiet:
        display(manifest)
    return line.shown(manifest)


def _pair(a: str | None, b: str | None) -> list[EngineHandle]:
    """The engines of these names; without names, the two that are loaded.

    Raises: UsageError with the names that there are.
    """
    if a is not None and b is not None:
        if a == b:
            raise UsageError(tr("parity holds two engines against each other, and {name!r} was given twice.", name=a))
        return [loaded(a), loaded(b)]
    alive = [handle for handle in llmlab.handles().values() if handle.alive]
    if a is None and len(alive) == 2:
        return alive
    names = ", ".join(handle.name for handle in alive) or tr("none")
    raise UsageError(
        tr(
            "parity needs the names of two loaded engines: `%llm parity A B`. Loaded: {names}. "
            "`%llm load smollm2-135m -e both` loads two with the same model.",
            names=names,
        )
    )
