"""Verifier: signed tokens of an identity provider (OpenID Connect), checked by PyJWT with the provider's public keys.

The keys are fetched beside the requests, never for one: a stranger's token makes the gateway ask nobody.
This file must not know routes or quotas.
"""

from __future__ import annotations

import asyncio
import time

import aiohttp
import jwt

from llmlab.gateway.config import Oidc
from llmlab.gateway.upstream import words

# Asymmetric ones only: with a shared secret, who can check a token can make one.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
REFRESH_S, SOONEST_S, RETRY_S, TIMEOUT_S = 600.0, 30.0, 5.0, 5.0
LEEWAY_S = 30  # clocks differ
_DISCOVERY = "/.well-known/openid-configuration"


class Verifier:
    """Who a signed token is of. `trouble`: why the provider's keys could not be had, None while all is well."""

    def __init__(self, spec: Oidc) -> None:
        self.spec = spec
        self.trouble: str | None = "not asked yet"
        self._keys: dict[str, jwt.PyJWK] = {}
        self._wanted = asyncio.Event()

    def user_of(self, token: bytes) -> str | None:
        """The user's name; None for a token that is forged, foreign, expired or none."""
        try:
            text = token.decode("ascii")
            key = self._keys.get(str(jwt.get_unverified_header(text).get("kid")))
            if key is None:
                self._wanted.set()  # the provider may have a new one
                return None
            claims = jwt.decode(
                text, key.key, algorithms=list(ALGORITHMS), audience=self.spec.audience, issuer=self.spec.issuer,
                leeway=LEEWAY_S, options={"require": ["exp", "iss", "aud", self.spec.name_claim]},
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, TypeError):  # TypeError: a key of another kind than the algorithm's
            return None
        name = claims.get(self.spec.name_claim)
        return name if isinstance(name, str) and name else None

    async def fetch(self, session: aiohttp.ClientSession) -> None:
        """The provider's keys as they are now; the old ones stay when it cannot be asked."""
        try:
            url = self.spec.jwks_url or str(
                (await _json(session, self.spec.issuer.rstrip("/") + _DISCOVERY))["jwks_uri"]
            )
            found = jwt.PyJWKSet.from_dict(await _json(session, url)).keys
            self._keys = {str(key.key_id): key for key in found}
            self.trouble = None
        except (aiohttp.ClientConnectorError, TimeoutError) as error:
            self.trouble = words(error, TIMEOUT_S)
        except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            self.trouble = f"{type(error).__name__}: {error}"[:200]

    async def keep(self, session: aiohttp.ClientSession) -> None:
        """Until it is cancelled: fetch them now and then, and soon when somebody has a token of a key not known."""
        while True:
            began_s = time.monotonic()
            await self.fetch(session)
            self._wanted.clear()
            try:
                await asyncio.wait_for(self._wanted.wait(), RETRY_S if self.trouble else REFRESH_S)
            except TimeoutError:
                continue
            await asyncio.sleep(max(0.0, began_s + SOONEST_S - time.monotonic()))


async def _json(session: aiohttp.ClientSession, url: str) -> dict[str, object]:
    async with session.get(url, timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as response:
        response.raise_for_status()
        found = await response.json(content_type=None)
    if not isinstance(found, dict):
        raise ValueError(f"{url} has no JSON object")
    return found
