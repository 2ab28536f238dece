"""HubUsers: who has a JupyterHub's token may come in as that user. The tokens of the register hold beside it.

Two environments of a service meet here: what JupyterHub gives it (JUPYTERHUB_API_URL, JUPYTERHUB_API_TOKEN,
JUPYTERHUB_SERVICE_URL, ..._PREFIX), and the scope a token needs, access:services!service=NAME. This file must not know
engines or routes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from llmlab.classroom.names import LECTURER
from llmlab.classroom.register import Person, Register
from llmlab.errors import EngineError
from llmlab.language import tr
from llmlab.serve.failures import ApiError

# How long the Hub's word on a token holds: who lost it there is out here after so many seconds.
CACHE_S = 60


class HubUsers:
    """Who is in the register, and every user of the Hub whose token may use this service.

    `lecturers`: users of the Hub who see all, beside its admins. Raises: EngineError outside a Hub's service.
    """

    def __init__(self, register: Register, lecturers: Collection[str] = ()) -> None:
        if find_spec("jupyterhub") is None:
            raise EngineError(tr("jupyterhub is not installed. Type `pip install 'llmlab-kit[hub]'`."))
        missing = [name for name in ("JUPYTERHUB_API_URL", "JUPYTERHUB_API_TOKEN") if not os.environ.get(name)]
        if missing:
            raise EngineError(
                tr(
                    "--hub is for a service that JupyterHub starts: {names} is not set. deploy/jupyterhub/ has the "
                    "lines for jupyterhub_config.py.",
                    names=", ".join(missing),
                )
            )
        from jupyterhub.services.auth import HubAuth

        self._register, self._lecturers = register, frozenset(lecturers)
        url, token = os.environ["JUPYTERHUB_API_URL"], os.environ["JUPYTERHUB_API_TOKEN"]
        self._auth: Any = HubAuth(api_url=url, api_token=token, cache_max_age=CACHE_S)

    async def person(self, token: bytes) -> Person | None:
        """Raises: ApiError (503) when the Hub does not answer."""
        if (person := self._register.person(token)) is not None:
            return person
        try:
            user = await asyncio.to_thread(self._auth.user_for_token, token.decode("ascii"))
        except UnicodeDecodeError:
            return None
        except Exception as error:
            said = type(error).__name__
            raise ApiError(503, f"JupyterHub does not say whose token that is ({said}). Try again.") from None
        if not user or user.get("kind") != "user" or user["name"] == LECTURER:
            return None
        if not self._auth.check_scopes(self._auth.access_scopes, user):
            return None
        return Person(user["name"], is_lecturer=bool(user.get("admin")) or user["name"] in self._lecturers)


class Behind:
    """An application that also answers below a prefix, as JupyterHub's proxy asks for it: /services/NAME/v1/models."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._prefix and scope["path"].startswith(f"{self._prefix}/"):
            path = scope["path"].removeprefix(self._prefix)
            # not a new scope: who counts what was answered looks at this one
            scope["path"], scope["raw_path"] = path, path.encode()
        await self._app(scope, receive, send)


def place_of_service() -> tuple[str, int]:
    """Host and port where JupyterHub's proxy looks for this service. Raises: EngineError when it was told none."""
    url = urlsplit(os.environ.get("JUPYTERHUB_SERVICE_URL", ""))
    if not url.hostname or not url.port:
        raise EngineError(
            tr(
                "JupyterHub was not told where this service listens: give it a 'url' with a port in "
                "jupyterhub_config.py."
            )
        )
    return url.hostname, url.port


def prefix_of_service() -> str:
    return os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "")
