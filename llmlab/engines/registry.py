"""The engines that this notebook has loaded, by name, and which of them is current.

This file must not know how an engine is loaded.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

from llmlab.engines.handle import EngineHandle
from llmlab.engines.unloaded import Unloaded, rss_bytes
from llmlab.errors import EngineError, LlmlabError, unknown

_handles: dict[str, EngineHandle] = {}  # in order of loading
_current: str | None = None
EXIT_GRACE_S = 0.5


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One loaded engine, now."""

    name: str
    engine: str
    model: str
    quant: str | None
    pid: int
    alive: bool
    is_current: bool
    num_open_requests: int
    # Of its process, measured; None when that has ended.
    rss_bytes: int | None


def handles() -> dict[str, EngineHandle]:
    """The loaded engines by name, in order of loading; one that died stays until it is unloaded or loaded again."""
    for name in [name for name, handle in _handles.items() if handle.is_unloaded]:
        del _handles[name]
    return dict(_handles)


def current() -> EngineHandle | None:
    """The engine that answers when none is named: the last one used or loaded."""
    here = handles()
    if _current in here:
        return here[_current]
    return next(reversed(here.values()), None)


def named(name: str, error: type[LlmlabError] = EngineError) -> EngineHandle:
    """The engine of that name, which may have died. Raises: `error` when no engine has it."""
    here = handles()
    if name not in here:
        if not here:
            raise error(f"No engine {name!r}: none is loaded. Load one: `%llm load smollm2-135m --as {name}`.")
        raise error(unknown("engine name", name, here))
    return here[name]


def require_loaded(handle: EngineHandle, error: type[LlmlabError] = EngineError) -> EngineHandle:
    """The same handle. Raises: `error` when its engine has died or was unloaded."""
    if not handle.alive:
        raise error(f"{handle.name} is not loaded any more. Load it again, or leave it out.")
    return handle


def use(name: str) -> EngineHandle:
    """Make this engine the current one. Raises: EngineError when no engine has that name."""
    global _current
    handle = named(name)
    _current = name
    return handle


def ps() -> list[EngineStatus]:
    """The loaded engines and what they take."""
    here = current()
    return [
        EngineStatus(
            name=handle.name,
            engine=handle.engine,
            model=handle.model,
            quant=handle.quant,
            pid=handle.pid,
            alive=handle.alive,
            is_current=handle is here,
            num_open_requests=handle.num_open_requests,
            rss_bytes=rss_bytes(handle.pid) if handle.alive else None,
        )
        for handle in handles().values()
    ]


def unload(name: str | None = None, *, all: bool = False) -> list[Unloaded]:
    """End one engine (the current one, if none is named) or all; what each gave back.

    Raises: EngineError when no engine has that name, or none is loaded.
    """
    if all:
        return [handle.unload() for handle in handles().values()]
    handle = current() if name is None else named(name)
    if handle is None:
        raise EngineError("No engine is loaded.")
    return [handle.unload()]


def register(handle: EngineHandle) -> EngineHandle:
    """Enter a handle under its name and make it the current one."""
    global _current
    if not _handles:
        atexit.unregister(_unload_at_exit)
        atexit.register(_unload_at_exit, os.getpid())
    _handles[handle.name] = handle
    _current = handle.name
    return handle


def free_name(wanted: str | None, default: str) -> str:
    """A name for a new engine: the wanted one, else the default with a number when it is taken.

    The name of an engine that died is free again. Raises: EngineError when the wanted name is taken.
    """
    taken = handles()
    for name in (wanted or default, *(() if wanted else (f"{default}-{n}" for n in range(2, len(taken) + 3)))):
        if name not in taken:
            return name
        if not taken[name].alive:
            taken[name].unload()
            return name
    raise EngineError(
        f"The name {wanted!r} is taken by a loaded engine. Unload it (`%llm unload {wanted}`) or choose another (--as)."
    )


def _unload_at_exit(pid: int) -> None:
    if os.getpid() == pid:  # a fork of the notebook owns no engine
        for handle in handles().values():
            handle.close(EXIT_GRACE_S)
