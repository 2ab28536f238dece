"""Servers to connect to: ours with an engine without a model, and one that answers as it is told to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).resolve().parent.parent / part) for part in ("engines", "serve", "views")]

import serve_support
from scripted_server import ScriptedServer

import llmlab
from llmlab.engines import registry
from llmlab.remote import RemoteHandle


@pytest.fixture(autouse=True)
def unloaded() -> Iterator[None]:
    yield
    registry.unload(all=True)


@pytest.fixture
def fake() -> Iterator[serve_support.MakeServed]:
    made: list[serve_support.Served] = []

    def make(**options: object) -> serve_support.Served:
        made.append(serve_support.served(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def far(fake: serve_support.MakeServed, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RemoteHandle]:
    """far(step_s=0.01): the engine without a model, served and connected."""

    def make(**options: object) -> RemoteHandle:
        echo = fake(**options)
        monkeypatch.setenv("ECHO_KEY", echo.token)
        return llmlab.connect(echo.url, api_key_env="ECHO_KEY", name="far")

    return make


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server
