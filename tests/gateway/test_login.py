"""A browser comes to the gateway through Apache, which logs people in: deploy/oidc/apache.conf, but for its names."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gateway_support import TOKENS, Backends, Door, bearer, error_of, wait_until
from oidc_provider import SECRET, OidcProvider

from tests.local_servers import free_port

SITE = Path(__file__).resolve().parents[2] / "deploy" / "oidc" / "apache.conf"
MODULES = Path("/usr/lib/apache2/modules")
NEEDED = "auth_openidc authn_core authz_core authz_user headers mpm_event proxy proxy_http socache_shmcb ssl".split()
LACKING = [name for name in NEEDED if not (MODULES / f"mod_{name}.so").exists()]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(LACKING), reason="needs Apache (apt-get install apache2 libapache2-mod-auth-openidc)"),
]


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with OidcProvider() as one:
        yield one


@pytest.fixture
def door(backends: Backends, provider: OidcProvider, tmp_path: Path) -> Iterator[Door]:
    backends.start("main", gap_s=0.2)
    oidc = f"oidc: {{issuer: '{provider.issuer}', audience: llmlab, name_claim: preferred_username}}\n"
    with backends.door(tmp_path, backends.config() + oidc) as one:
        yield one


@pytest.fixture
def front(door: Door, provider: OidcProvider, tmp_path: Path) -> Iterator[str]:
    """The address of an Apache with this one site."""
    port = free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    site = SITE.read_text()
    for written, here in (
        ("https://login.example.org/realms/university", provider.issuer), ("/etc/llmlab/", f"{tmp_path}/"),
        ("*:443", f"127.0.0.1:{port}"), ("https://llm.example.org", f"https://127.0.0.1:{port}"),
        ("llm.example.org", "127.0.0.1"), ("http://127.0.0.1:8080/", f"{door.url}/"),
    ):  # fmt: skip
        assert written in site
        site = site.replace(written, here)
    lines = [f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in NEEDED]
    lines += [f"ServerRoot {tmp_path}", f"PidFile {tmp_path}/pid", f"ErrorLog {tmp_path}/error.log", "StartServers 1"]
    lines += [
        f"Listen 127.0.0.1:{port}",
        "ServerName 127.0.0.1",
        f"DefaultRuntimeDir {tmp_path}",
        "User www-data",
        site,
    ]
    config = tmp_path / "apache2.conf"
    config.write_text("\n".join(lines))
    environment = {**os.environ, "OIDC_CLIENT_SECRET": SECRET, "OIDC_PASSPHRASE": "of-this-test"}
    command = ["/usr/sbin/apache2", "-f", str(config), "-D", "FOREGROUND"]
    checked = subprocess.run([*command[:3], "-t"], env=environment, capture_output=True, text=True)
    assert checked.returncode == 0 and "Syntax OK" in checked.stderr, checked.stderr
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: _is_there(port)), (tmp_path / "error.log").read_text()
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _is_there(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_who_logs_in_is_known_to_the_gateway_and_who_has_a_token_need_not(front: str, door: Door):
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
    with httpx.Client(base_url=front, verify=False, follow_redirects=True, timeout=20) as browser:
        there = browser.get("/v1/models")
        assert there.status_code == 200 and [model["id"] for model in there.json()["data"]] == ["chat"]
        assert [response.status_code for response in there.history] == [302, 302, 302]
        assert browser.post("/v1/chat/completions", json=body).status_code == 200
        with browser.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
            assert len(list(response.iter_raw())) > 2  # as it comes, not at its end
        assert [entry.client for entry in door.entries] == ["carla", "carla"]
    with httpx.Client(base_url=front, verify=False, timeout=20) as program:
        assert program.get("/v1/models").status_code == 302
        asked = program.post("/v1/chat/completions", json=body, headers=bearer("ANN_TOKEN"))
        assert (asked.status_code, door.last.client) == (200, "ann")
        forged = {"Authorization": f"Bearer {TOKENS['ANN_TOKEN']}x", "OIDC_id_token": "a.b.c"}
        refused = program.get("/v1/models", headers=forged)
        assert refused.status_code == 401 and error_of(refused)["code"] == "invalid_api_key"
