"""RemoteHandle: the handle of an engine that runs elsewhere. It asks as any other does; it cannot be driven or opened.

This file must not know servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from llmlab.engines.base import EngineConfig
from llmlab.engines.connection import Connection
from llmlab.engines.handle import EngineHandle
from llmlab.engines.messages import Ready
from llmlab.errors import EngineError
from llmlab.language import tr

PIECES_S = 10.0  # a picture waits for them


class RemoteHandle(EngineHandle):
    """A connected server. Made by llmlab.connect(); unload() forgets it here, and leaves it as it is."""

    is_remote = True

    def __init__(self, name: str, config: EngineConfig, connection: Connection, ready: Ready) -> None:
        super().__init__(name, config, connection, ready)
        self.url = config.model_path

    def memory(self) -> dict[str, int]:
        """Nothing: what the engine takes is not seen from here."""
        return {}

    def pieces(self, token_ids: Iterable[int]) -> list[bytes]:
        """The bytes of each token, where the server tells them. Raises: EngineError; also after PIECES_S."""
        return list(self._connection.call("pieces", PIECES_S, token_ids=[int(i) for i in token_ids]))

    def pause(self) -> NoReturn:
        self._refuse("pause()")

    def step(self, n: int = 1, timeout: float = 60.0) -> NoReturn:
        self._refuse("step()")

    def begin_step(self, n: int = 1) -> NoReturn:
        self._refuse("begin_step()")

    def resume(self) -> NoReturn:
        self._refuse("resume()")

    def slow(self, seconds: float) -> NoReturn:
        self._refuse("slow()")

    def _refuse(self, what: str) -> NoReturn:
        raise EngineError(
            tr(
                "{name} runs at {url}, and others may use it: {what} needs an engine of your own. Load one: "
                "`%llm load smollm2-135m`.",
                name=self.name,
                url=self.url,
                what=what,
            )
        )

    def __repr__(self) -> str:
        if not self.alive:
            return f"{type(self).__name__}({self.name!r}: {self.url}, not connected any more)"
        kind, header = type(self).__name__, self.header
        return f"{kind}({self.name!r}: {header.model} on {header.engine} {header.engine_version} at {self.url})"

    def __reduce__(self) -> Any:
        raise TypeError("A connection cannot be pickled. Connect again where it is needed: llmlab.connect(URL).")
