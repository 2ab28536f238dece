"""Secrets: the keys of backends and the tokens of clients, from the environment and from nowhere else.

This file must not know HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from llmlab.engines import access
from llmlab.errors import EngineError
from llmlab.gateway.config import Config
from llmlab.language import tr
from llmlab.remote.keys import Key


@dataclass(frozen=True, slots=True)
class Secrets:
    """Their texts are seen by nobody who prints this."""

    # name of a backend -> its key; an empty one where it wants none
    of_backends: Mapping[str, Key]
    # name of a client -> his token
    of_clients: Mapping[str, Key]


def missing_variables(config: Config, environment: Mapping[str, str]) -> dict[str, str]:
    """Variable -> whose secret it should hold."""
    wanted = {b.api_key_env: f"backends.{name}" for name, b in config.backends.items() if b.api_key_env is not None}
    wanted |= {key.token_env: f"keys.{name}" for name, key in config.keys.items()}
    return {variable: of for variable, of in wanted.items() if not access.of_environment(variable, environment)}


def keys_of_backends(config: Config, environment: Mapping[str, str]) -> dict[str, Key]:
    """By the name of the backend. Empty ones where a backend wants none, or its variable is not set."""
    return {
        name: Key(access.of_environment(backend.api_key_env or "", environment))
        for name, backend in config.backends.items()
    }


def read_secrets(config: Config, environment: Mapping[str, str]) -> Secrets:
    """Raises: EngineError for a variable that is not set, and for a token that would not do."""
    if missing := missing_variables(config, environment):
        names = ", ".join(f"{access.named(variable)} ({of})" for variable, of in missing.items())
        raise EngineError(tr("The environment lacks {names}. Set it before the gateway starts.", names=names))
    of_backends = keys_of_backends(config, environment)
    for name, key in of_backends.items():
        if key and not access.is_key(key.secret):
            raise EngineError(
                tr("The key of {name} has a space in it, or a sign that no key has: set {variable} anew.", name=name,
                   variable=access.named(config.backends[name].api_key_env or ""))
            )  # fmt: skip
    of_clients = {name: Key(access.of_environment(key.token_env, environment)) for name, key in config.keys.items()}
    for name, token in of_clients.items():
        if not access.TOKEN.fullmatch(token.secret):
            raise EngineError(
                tr("The token of {name} is not 8 or more plain characters without spaces: set {variable} anew.",
                   name=name, variable=access.named(config.keys[name].token_env))
            )  # fmt: skip
    twice = [secret for secret, count in Counter(token.secret for token in of_clients.values()).items() if count > 1]
    if twice:
        names = ", ".join(name for name, token in of_clients.items() if token.secret in twice)
        raise EngineError(tr("{names} have the same token. Give each his own.", names=names))
    return Secrets(of_backends, of_clients)
