"""A gateway over small servers with OpenAI's API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "serve"))

from gateway_support import Backends, Door


@pytest.fixture
def backends() -> Iterator[Backends]:
    """backends.start("main", **behaviour): a server; backends.door(text): a gateway over all of them."""
    with Backends() as some:
        yield some


@pytest.fixture
def door(backends: Backends, tmp_path: Path) -> Iterator[Door]:
    """Two backends, main and spare, in this order, and two clients: ann and ben."""
    backends.start("main")
    backends.start("spare")
    with backends.door(tmp_path) as one:
        yield one
