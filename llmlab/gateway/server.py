"""Gateway: an endpoint of this process with the backends of a configuration behind it.

This file must not know routes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from llmlab.cards import Card
from llmlab.gateway.app import Gate
from llmlab.gateway.clients import WITHOUT_TOKEN, Clients
from llmlab.gateway.config import Config
from llmlab.gateway.forwarding import Forwarder
from llmlab.gateway.log import Log
from llmlab.gateway.metrics import GatewayMetrics
from llmlab.gateway.oidc import Verifier
from llmlab.gateway.quotas import DAY_S, Account
from llmlab.gateway.reading import read_config
from llmlab.gateway.secrets import Secrets, read_secrets
from llmlab.gateway.upstream import Upstream
from llmlab.language import tr
from llmlab.serve.door import Door
from llmlab.serve.endpoint import POLL_S, Endpoint
from llmlab.serve.listening import closed_on_failure, listen, tls_files
from llmlab.serve.server import MAX_BODY_BYTES


class Gateway(Endpoint):
    """A running gateway. Made by llmlab.gateway(); ends by stop()."""

    def __init__(
        self, config: Config, secrets: Secrets, listener: socket.socket, *, host: str, tls: dict[str, Any], log: Log,
        max_body_bytes: int,
    ) -> None:  # fmt: skip
        self.config, self.log_path = config, log.path
        self.upstreams = {
            name: Upstream(name, backend, secrets.of_backends[name]) for name, backend in config.backends.items()
        }
        self._verifier = None if config.oidc is None else Verifier(config.oidc)
        accounts = {name: Account(name, key) for name, key in config.keys.items()}
        clients = Clients(secrets.of_clients, accounts, self._verifier)
        if any(quota.cost_per_day is not None for quota in (*config.keys.values(), config.oidc) if quota is not None):
            _remember(log, clients)
        metrics = GatewayMetrics(self.upstreams)
        self._forwarder = Forwarder(config, self.upstreams)
        self._door = Door(
            Gate(config, self._forwarder, log, metrics).app(self._beside),
            keys=clients,
            max_body_bytes=max_body_bytes,
            metrics=metrics,
            without_token=WITHOUT_TOKEN,
        )
        super().__init__(self._door, listener, host=host, tls=tls, name="llmlab gateway", lifespan=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    # ---- what a user does

    @property
    def failures(self) -> list[str]:
        """Tracebacks of requests that this gateway failed on: there should be none."""
        return list(self._door.failures)

    def stop(self) -> None:
        """End it: what runs for its clients ends with an error that says so. A second call does nothing."""
        self._let_in_nobody()
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._forwarder.stop)
        self._go_down()

    def wait(self) -> None:
        """Until it has ended. Ctrl-C raises KeyboardInterrupt, and the gateway runs on."""
        while not self._ended.wait(POLL_S):
            pass

    @property
    def card(self) -> Card:
        """Where it is, and how its backends are now."""
        rows = tuple(
            (name, backend.spec.url, backend.standing.why_down or tr("up"), backend.num_open)
            for name, backend in self.upstreams.items()
        )
        notes = [
            tr("Models: {names}", names=", ".join(self.config.models)),
            tr("Log: {path}", path=self.log_path),
            *self._warnings(),
        ]
        if (verifier := self._verifier) is not None and verifier.trouble is not None:
            notes.append(tr("The keys of {issuer}: {why}.", issuer=verifier.spec.issuer, why=verifier.trouble))
        title = tr("The gateway is at {url}", url=f"{self.url_outside}/v1")
        return Card(title, (tr("backend"), "URL", "", tr("open")), rows, tuple(notes))

    def __repr__(self) -> str:
        return f"Gateway({self.url}/v1{'' if self.running else ', stopped'})"

    def _repr_html_(self) -> str:
        return self.card._repr_html_()

    def _warnings(self) -> list[str]:
        if not self.is_open_and_plain:
            return []
        return [
            tr("Other machines reach it, and tokens travel unencrypted: give it a certificate (--tls-cert, --tls-key).")
        ]

    # ---- threads

    def start(self) -> Gateway:
        """Raises: EngineError when it does not come up."""
        self._come_up(tr("The gateway at {url} did not start.", url=self.url))
        return self

    @asynccontextmanager
    async def _beside(self, app: Starlette) -> AsyncIterator[None]:
        """What runs beside the requests: a look at every backend now and then, and at the identity provider."""
        self._loop = asyncio.get_running_loop()
        await self._forwarder.open()
        session, period_s = self._forwarder.session, self.config.poll_s
        work: list[Coroutine[Any, Any, None]] = [u.keep_looking(session, period_s) for u in self.upstreams.values()]
        if self._verifier is not None:
            await self._verifier.fetch(session)
            work.append(self._verifier.keep(session))
        tasks = [asyncio.create_task(one) for one in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._forwarder.close()


def gateway(
    config: str | Path | Config,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> Gateway:
    """One OpenAI-compatible door over the backends of a configuration; returns at once.

    `config`: a file, or what read_config() makes of one. The log of a file stands beside it. `environment`: where keys
    and tokens are; that of this process when none is given.

    >>> door = llmlab.gateway("config.yaml"); door.url    # doctest: +SKIP

    Raises: ConfigError with the line at fault; EngineError when a variable is not set or the port is taken.
    """
    folder = Path() if isinstance(config, Config) else Path(config).parent
    if not isinstance(config, Config):
        config = read_config(config)
    secrets = read_secrets(config, os.environ if environment is None else environment)
    log, tls = Log(folder / config.log), tls_files(tls_cert, tls_key)
    log.check()
    listener = listen(host, port)
    with closed_on_failure(listener):
        return Gateway(config, secrets, listener, host=host, tls=tls, log=log, max_body_bytes=max_body_bytes).start()


def _remember(log: Log, clients: Clients) -> None:
    """What clients have spent already: a new start is no new day."""
    now_s = time.time()
    for entry in log.entries():
        if now_s - entry.at_s < DAY_S and (account := clients.named(entry.client)) is not None:
            account.spend(entry.cost, now_s - entry.at_s)
