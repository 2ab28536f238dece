"""A class as a service of JupyterHub: real HubAuth against a Hub's API in small; test_real_hub.py has a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import httpx
import pytest
from class_support import MakeClass, error_of

from llmlab.classroom.hub import place_of_service
from llmlab.errors import EngineError
from tests.local_servers import LocalServer

pytest.importorskip("jupyterhub")
SCOPE = "access:services!service=llmlab-class"


class HubApi(BaseHTTPRequestHandler):
    """GET /hub/api/user, as JupyterHub answers it."""

    users: ClassVar[dict[str, dict[str, object]]] = {
        "adas-hub-token": {"name": "ada", "kind": "user", "scopes": [SCOPE]},
        "anns-hub-token": {"name": "ann", "kind": "user", "scopes": ["access:services"]},
        "admins-hub-token": {"name": "root", "kind": "user", "admin": True, "scopes": [SCOPE]},
        "outsiders-token": {"name": "eve", "kind": "user", "scopes": ["access:services!service=other"]},
        "a-services-token": {"name": "cron", "kind": "service", "scopes": [SCOPE]},
        "a-lecturers-name": {"name": "lecturer", "kind": "user", "scopes": [SCOPE]},
    }
    asked: ClassVar[list[str]] = []
    status = 200

    def do_GET(self) -> None:
        token = self.headers["Authorization"].removeprefix("token ")
        self.asked.append(token)
        user = self.users.get(token)
        body = json.dumps(user or {"status": 403}).encode()
        self.send_response(HubApi.status if HubApi.status != 200 else 200 if user else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HubApi]]:
    HubApi.asked.clear()
    HubApi.status = 200
    with LocalServer(HubApi) as server:
        for name, value in {
            "API_URL": f"{server.url}/hub/api", "API_TOKEN": "of-the-service", "SERVICE_NAME": "llmlab-class",
            "SERVICE_PREFIX": "/services/llmlab-class/", "SERVICE_URL": "http://127.0.0.1:10101",
        }.items():  # fmt: skip
            monkeypatch.setenv(f"JUPYTERHUB_{name}", value)
        yield HubApi


def test_a_student_is_a_user_of_the_hub_who_may_use_the_service(open_class: MakeClass, hub: type[HubApi]):
    one = open_class(hub=True, students=(), lecturers=["ann"])

    def get(token: str, path: str = "/class/me") -> httpx.Response:
        return httpx.get(one.url + path, headers={"Authorization": f"Bearer {token}"})

    assert get("adas-hub-token").json()["me"]["name"] == "ada"
    assert get("adas-hub-token").status_code == 200 and hub.asked == ["adas-hub-token"]  # it is asked once a minute
    for stranger in ("nobodys-token", "outsiders-token", "a-services-token", "a-lecturers-name"):
        assert get(stranger).status_code == 401, stranger
    assert get("adas-hub-token", "/class/students").status_code == 403
    for lecturer in ("anns-hub-token", "admins-hub-token", one.room.register.lecturer_token):
        rows = get(lecturer, "/class/students").json()["students"]
        assert [row["name"] for row in rows] == ["ada"]
    # through the proxy of the Hub the path has a prefix
    assert get("adas-hub-token", "/services/llmlab-class/v1/models").json()["data"][0]["id"] == "echo"


def test_a_hub_that_does_not_answer_is_told_and_the_own_tokens_hold(open_class: MakeClass, hub: type[HubApi]):
    one = open_class(hub=True, students=["ada"])
    hub.status = 500
    response = httpx.get(f"{one.url}/class/me", headers={"Authorization": "Bearer anns-hub-token"})
    assert response.status_code == 503 and "JupyterHub does not say" in error_of(response)["message"]
    assert one.me("ada")["me"]["name"] == "ada"


def test_where_the_service_listens_is_what_the_hub_was_told(hub: type[HubApi], monkeypatch: pytest.MonkeyPatch):
    assert place_of_service() == ("127.0.0.1", 10101)
    monkeypatch.setenv("JUPYTERHUB_SERVICE_URL", "")
    with pytest.raises(EngineError, match="give it a 'url'"):
        place_of_service()
