"""What a server did wrong, in the words that every kind of server has in common. `said` is without keys.

This file must not know any kind of server.
"""

from __future__ import annotations

from llmlab.errors import EngineDied, EngineError, RequestError
from llmlab.remote.keys import Key

MAX_SENTENCE = 500


def broken_off(url: str, key: Key, num_pieces: int, why: str | None) -> EngineDied:
    """After `num_pieces`; `why`: what the client library says, None when the stream just ended."""
    why = "the stream ended before the answer did" if why is None else why
    return EngineDied(
        key.hide(
            f"The server at {url} broke the answer off after {num_pieces} tokens ({why}). What had come is in "
            "`.results` of this error. Ask again when the server is there."
        )
    )


def late(url: str, timeout_s: float) -> EngineDied:
    return EngineDied(f"The server at {url} did not answer within {timeout_s:g} s.")


def refused(url: str, said: str) -> RequestError:
    return RequestError(f"The server at {url} refuses this: {said}")


def failed(url: str, said: str) -> EngineError:
    return EngineError(f"The server at {url} failed: {said}")


def one_line(told: object) -> str:
    """What a server or a library says, cut to one line."""
    return str(told).split("\n")[0][:MAX_SENTENCE]
