"""What every request passes: the token, its limits; who sees which model; garbage is the client's fault."""

from __future__ import annotations

import datetime
import hmac
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from gateway_support import TOKENS, Backends, Door, bearer, error_of, wait_until
from wild import GOOD, Wild

ROUTES = [
    ("GET", "/v1/models"), ("GET", "/v1/models/chat"), ("POST", "/v1/completions"), ("POST", "/v1/chat/completions"),
    ("POST", "/v1/embeddings"), ("GET", "/backends"), ("GET", "/health"), ("GET", "/metrics"), ("GET", "/nowhere"),
    ("DELETE", "/v1/models"),
]  # fmt: skip


@pytest.fixture(scope="module")
def one_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """For requests that reach no backend."""
    with Backends() as backends:
        backends.start("main")
        with backends.door(tmp_path_factory.mktemp("door")) as door:
            yield door


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer wrong-token", "Basic {token}", "{token}", "Bearer {token}x", "Bearer a.b.c"],
)
def test_without_a_token_every_route_answers_401(one_door: Door, authorization: str | None):
    token, before = TOKENS["ANN_TOKEN"], one_door.entries
    headers = {} if authorization is None else {"Authorization": authorization.format(token=token)}
    with httpx.Client(base_url=one_door.url, headers=headers) as client:
        for method, path in ROUTES:
            response = client.request(method, path, content=b"{}")
            assert response.status_code == 401, path
            assert error_of(response)["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
            assert token not in response.text
    assert one_door.entries == before


def test_every_token_is_compared_by_the_function_that_takes_equally_long(door: Door, monkeypatch: pytest.MonkeyPatch):
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: bool(compared.append((a, b))))
    assert httpx.get(f"{door.url}/health", headers={"Authorization": "Bearer guess"}).status_code == 401
    assert compared == [(b"guess", token.encode()) for token in TOKENS.values()]


def test_a_client_sees_and_asks_only_the_models_of_his_key(backends: Backends, tmp_path: Path):
    backends.start("main")
    text = backends.config(ann=", models: [chat]").replace("keys:", "  other:\n    backends: {main: main-model}\nkeys:")
    with backends.door(tmp_path, text) as door:
        assert [model["id"] for model in door.http.get("/v1/models").json()["data"]] == ["chat"]
        assert door.http.get("/v1/models/chat").json()["owned_by"] == "llmlab-gateway"
        assert door.http.get("/v1/models/other").status_code == 404
        error = error_of(door.chat(model="other"))
        assert error["code"] == "model_not_found" and "This gateway has chat." in error["message"]
        of_ben = httpx.get(f"{door.url}/v1/models", headers=bearer("BEN_TOKEN")).json()["data"]
        assert [model["id"] for model in of_ben] == ["chat", "other"]
    assert backends["main"].asked == []


@pytest.mark.parametrize(
    ("content", "param", "says"),
    [
        (b"", None, "not JSON"),
        (b"[]", None, "not a JSON object"),
        (b'{"model": "chat"', None, "not JSON"),
        (b'\xff\xfe{"model"', None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),
        (b'{"model": "chat", "messages": ' + b"[" * 400 + b"]" * 400 + b"}", None, ""),
        (b"{}", "model", "The field model is missing"),
        (b'{"model": 3, "messages": []}', "model", "The field model is missing"),
        (b'{"model": "chat"}', "messages", "The field messages is missing"),
        (b'{"model": "chta", "messages": []}', "model", "This gateway has chat."),
        (b'{"model": "chat", "messages": [], "stream": "yes"}', "stream", "stream is true or false"),
        (
            b'{"model": "chat", "messages": [], "stream_options": {"include_usage": 1}}',
            "include_usage",
            "true or false",
        ),
    ],
)
def test_garbage_is_answered_with_what_is_wrong_about_it(one_door: Door, content: bytes, param: str | None, says: str):
    response = one_door.http.post("/v1/chat/completions", content=content)
    if not says:  # strange, and the backend's to judge
        assert response.status_code == 200
        return
    error = error_of(response)
    assert response.status_code == (404 if "gateway has" in says else 400)
    assert error["param"] == param
    assert says in error["message"]


def test_spoiled_requests_are_refused_or_served_and_the_gateway_goes_on(door: Door):
    asked = [(path, None if body is None else {**body, "model": "chat"}) for path, body in GOOD if "token" not in path]
    statuses = Wild(door.server.port, TOKENS["ANN_TOKEN"], 3, [*asked, ("/backends", None)]).statuses(300)
    assert {200, 400, 401, 404} <= statuses.keys() and statuses[200] > 50
    assert door.chat().status_code == 200
    assert wait_until(lambda: all(one.num_open == 0 for one in door.server.upstreams.values()))


def test_strange_texts_and_numbers_reach_the_backend_as_they_are(door: Door, backends: Backends):
    content = '{"model": "chat", "seed": 123456789012345678901234567890, "messages": "\\ud800", "x": [NaN, 1e400]}'
    assert door.http.post("/v1/chat/completions", content=content.encode()).status_code == 200
    _, _, body = backends["main"].asked[0]
    assert body["seed"] == 123456789012345678901234567890 and body["messages"] == "\ud800"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_with_413(backends: Backends, tmp_path: Path, chunked: bool):
    def body() -> Iterator[bytes]:
        yield from (b" " * 400 for _ in range(5))

    backends.start("main")
    with backends.door(tmp_path, max_body_bytes=1000) as door:
        response = door.http.post("/v1/completions", content=body() if chunked else b" " * 2000)
        assert response.status_code == 413
        assert door.chat().status_code == 200


def test_the_id_of_a_request_goes_through_to_the_backend_and_the_log(door: Door, backends: Backends):
    response = door.chat(headers={"X-Request-Id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["x-llmlab-backend"] == "main"
    assert backends["main"].asked[0][1]["x-request-id"] == "abc-1"
    assert door.last.request_id == "abc-1"


def test_with_a_certificate_it_speaks_https(backends: Backends, tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    backends.start("main")
    with backends.door(tmp_path, tls_cert=cert, tls_key=key) as door:
        assert door.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(cert))
        assert httpx.get(f"{door.url}/v1/models", headers=bearer("ANN_TOKEN"), verify=trusting).status_code == 200


def test_it_prints_without_tokens_and_keys(door: Door):
    shown = (
        f"{door.server!r} {door.server.card!r} {door.server.config!r} {vars(door.server)} {door.server._repr_html_()}"
    )
    assert "token-of" not in shown and "sk-secret" not in shown
    assert "main" in shown


# ---- signed tokens of an identity provider

ISSUER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FOREIGN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signed(issuer: str, *, key: Any = ISSUER_KEY, algorithm: str = "RS256", kid: str = "k1", **claims: Any) -> str:
    now = datetime.datetime.now(datetime.UTC)
    wanted = {"iss": issuer, "aud": "llmlab", "sub": "1234", "name": "carla", "exp": now + datetime.timedelta(hours=1)}
    given = {name: value for name, value in (wanted | claims).items() if value is not None}
    return jwt.encode(given, key, algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def provider(backends: Backends) -> tuple[str, dict[str, Any]]:
    """An issuer with OpenID's two documents; its keys may be changed."""
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(ISSUER_KEY.public_key()))
    keys: dict[str, Any] = {"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]}
    backend = backends.start("main")
    issuer = f"{backend.url}/realm"

    async def discovery(request: web.Request) -> web.Response:
        return web.json_response({"issuer": issuer, "jwks_uri": f"{backend.url}/jwks"})

    async def jwks(request: web.Request) -> web.Response:
        return web.json_response(keys)

    backend.more_routes = {"/realm/.well-known/openid-configuration": discovery, "/jwks": jwks}
    return issuer, keys


@pytest.fixture
def oidc_door(backends: Backends, provider: tuple[str, dict[str, Any]], tmp_path: Path) -> Iterator[Door]:
    oidc = f"oidc: {{issuer: '{provider[0]}', audience: llmlab, name_claim: name, requests_per_minute: 2}}\n"
    with backends.door(tmp_path, backends.config() + oidc) as door:
        yield door


def asked_with(door: Door, token: str) -> int:
    return door.chat(headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_signed_token_lets_its_user_in_under_his_name_and_quota(
    oidc_door: Door, provider: tuple[str, dict[str, Any]]
):
    issuer, _ = provider
    assert [asked_with(oidc_door, signed(issuer)) for _ in range(3)] == [200, 200, 429]
    assert asked_with(oidc_door, signed(issuer, name="dora")) == 200
    asked = [(entry.client, entry.status) for entry in oidc_door.entries]
    assert asked == [("carla", 200), ("carla", 200), ("carla", 429), ("dora", 200)]
    assert oidc_door.chat().status_code == 200  # plain tokens are let in as before


def test_a_user_who_is_called_like_a_key_is_not_its_client(
    backends: Backends, provider: tuple[str, dict[str, Any]], tmp_path: Path
):
    issuer, _ = provider
    rule = "rules: [{keys: [ann], use: spare}]"
    backends.start("spare")
    oidc = f"oidc: {{issuer: '{issuer}', audience: llmlab, name_claim: name}}\n"
    with backends.door(tmp_path, backends.config(model=rule) + oidc) as door:
        assert door.chat().headers["x-llmlab-backend"] == "spare"
        response = door.chat(headers={"Authorization": f"Bearer {signed(issuer, name='ann')}"})
        assert response.headers["x-llmlab-backend"] == "main"
        assert [entry.client for entry in door.entries] == ["ann", "ann@oidc"]


def test_what_a_user_spent_today_is_remembered_by_the_log(
    backends: Backends, provider: tuple[str, dict[str, Any]], tmp_path: Path
):
    issuer, _ = provider
    price = {"main": ", price: {prompt: 0, output: 1000000}"}  # 3 tokens: 3 EUR
    oidc = f"oidc: {{issuer: '{issuer}', audience: llmlab, name_claim: name, cost_per_day: 5}}\n"
    text = backends.config(of=price) + oidc
    with backends.door(tmp_path, text) as door:
        assert [asked_with(door, signed(issuer)) for _ in range(2)] == [200, 200]
    with backends.door(tmp_path, text) as door:
        assert asked_with(door, signed(issuer)) == 429
        assert asked_with(door, signed(issuer, name="dora")) == door.chat().status_code == 200


def test_a_token_that_is_forged_foreign_or_old_is_no_token(oidc_door: Door, provider: tuple[str, dict[str, Any]]):
    issuer, _ = provider
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    for token in (
        signed(issuer, key=FOREIGN_KEY),
        signed("https://elsewhere.example.org"),
        signed(issuer, aud="another"),
        signed(issuer, exp=yesterday),
        signed(issuer, exp=None),
        signed(issuer, name=None),
        signed(issuer, name=["carla"]),
        signed(issuer, kid="k2"),
        signed(issuer, key="a secret of nobody that is long enough", algorithm="HS256"),
        signed(issuer, key=None, algorithm="none"),
        signed(issuer)[:-4] + "AAAA",
    ):
        assert asked_with(oidc_door, token) == 401, token
    assert asked_with(oidc_door, signed(issuer)) == 200


def test_a_provider_that_is_not_there_does_not_keep_the_gateway_from_starting(backends: Backends, tmp_path: Path):
    backends.start("main")
    oidc = "oidc: {issuer: 'http://127.0.0.1:9/realm', audience: llmlab}\n"
    with backends.door(tmp_path, backends.config() + oidc) as door:
        assert asked_with(door, signed("http://127.0.0.1:9/realm")) == 401
        assert "The keys of http://127.0.0.1:9/realm: connection refused." in str(door.server.card)
        assert door.chat().status_code == 200


def test_figures_for_prometheus_say_who_answered(door: Door):
    door.chat()
    assert wait_until(lambda: bool(door.entries))
    text = door.http.get("/metrics").text
    assert 'llmlab_gateway_requests_total{backend="main",model="chat",status="200"} 1.0' in text
    assert 'llmlab_gateway_generation_tokens_total{backend="main",model="chat"} 3.0' in text
    assert 'llmlab_gateway_backend_up{backend="spare"} 1.0' in text
