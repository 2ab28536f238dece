"""An identity provider in which everybody is logged in already, as carla: OpenID Connect's code flow, and no page."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.local_servers import LocalServer

CLIENT, SECRET = "llmlab", "secret-of-the-client"


class OidcProvider(LocalServer):
    """`issuer` has discovery, keys, authorization and token endpoint. `lasts_s`: how long an ID token holds."""

    def __init__(self, *, lasts_s: float = 3600) -> None:
        self._key, self.lasts_s = rsa.generate_private_key(public_exponent=65537, key_size=2048), lasts_s
        self._asked: dict[str, dict[str, str]] = {}  # code -> what was asked for
        super().__init__(_handler_of(self))
        self.issuer = f"{self.url}/realms/university"

    def answer(self, path: str, given: dict[str, str], authorization: str) -> tuple[int, Any]:
        """Status and JSON; a redirection is told by its address."""
        match path.removeprefix(urlsplit(self.issuer).path):
            case "/.well-known/openid-configuration":
                return 200, {
                    "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/auth",
                    "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys",
                    "response_types_supported": ["code"], "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                    "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                }  # fmt: skip
            case "/keys":
                public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
                return 200, {"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]}
            case "/auth":
                code = f"code-{len(self._asked)}"
                self._asked[code] = given
                return 302, f"{given['redirect_uri']}?{urlencode({'code': code, 'state': given['state']})}"
            case "/token":
                return self._token(given, authorization)
        return 404, {"error": "nothing here"}

    def _token(self, given: dict[str, str], authorization: str) -> tuple[int, Any]:
        asked = self._asked.pop(given.get("code", ""), None)
        known = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if asked is None or authorization != f"Basic {known}" or asked["client_id"] != CLIENT:
            return 401, {"error": "invalid_client"}
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        if asked["code_challenge"] != base64.urlsafe_b64encode(digest).decode().rstrip("="):
            return 400, {"error": "invalid_grant"}
        now_s = int(time.time())
        claims = {
            "iss": self.issuer, "aud": CLIENT, "sub": "1234", "preferred_username": "carla", "iat": now_s,
            "exp": now_s + int(self.lasts_s), "nonce": asked["nonce"],
        }  # fmt: skip
        token = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "k1"})
        return 200, {"access_token": "of-no-use", "token_type": "Bearer", "expires_in": 3600, "id_token": token}


def _handler_of(provider: OidcProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _answer(self, fields: str) -> None:
            given = {name: values[0] for name, values in parse_qs(fields).items()}
            status, told = provider.answer(urlsplit(self.path).path, given, self.headers.get("Authorization", ""))
            content = b"" if status == 302 else json.dumps(told).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json", "Content-Length": str(len(content)),
                **({"Location": told} if status == 302 else {}),
            }.items():  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
