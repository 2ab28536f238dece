"""A class that runs, and HTTP clients of its people."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from serve_support import wait_until

from benchmarks.class_of_students import Student
from llmlab.classroom.names import LECTURER
from llmlab.classroom.room import Classroom
from llmlab.trace import Request, Step, lines


class Class:
    def __init__(self, room: Classroom) -> None:
        self.room, self.handle, self.url = room, room.handle, room.url
        self.tokens = {**tokens_in(room.register.folder), LECTURER: room.register.lecturer_token}
        self._clients: dict[str, httpx.Client] = {}

    def http(self, name: str) -> httpx.Client:
        """A client with the token of that person."""
        if name not in self._clients:
            headers = {"Authorization": f"Bearer {self.tokens[name]}"}
            self._clients[name] = httpx.Client(base_url=self.url, headers=headers, timeout=60, verify=False)
        return self._clients[name]

    def ask(self, name: str, prompt: str, **fields: Any) -> httpx.Response:
        headers = fields.pop("headers", {})
        return self.http(name).post("/v1/completions", json={"prompt": prompt, **fields}, headers=headers)

    def ask_meanwhile(self, name: str, prompt: str, **fields: Any) -> list[httpx.Response]:
        """Empty until the answer is there."""
        came: list[httpx.Response] = []
        threading.Thread(target=lambda: came.append(self.ask(name, prompt, **fields)), daemon=True).start()
        return came

    def me(self, name: str) -> dict[str, Any]:
        return dict(self.http(name).get("/class/me").json())

    def is_idle(self) -> bool:
        people = self.room.people
        return not (self.handle.num_open_requests or self.room.num_open or people.on_engine or people.waiting)

    def students(self, count: int) -> list[Student]:
        """So many of the class, each with a sign of his own as his secret."""
        names = self.room.register.names[:count]
        return [Student(name, self.tokens[name], chr(0x4E00 + i) * 6) for i, name in enumerate(names)]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self.room.stop()


MakeClass = Callable[..., Class]


class Watcher:
    """Somebody who watches the class, in a thread."""

    def __init__(self, one: Class, name: str) -> None:
        self.content = b""
        self._is_over = False
        self._thread = threading.Thread(target=self._read, args=(one, name), daemon=True)
        self._thread.start()
        assert wait_until(lambda: b"\n" in self.content)

    def _read(self, one: Class, name: str) -> None:
        headers = {"Authorization": f"Bearer {one.tokens[name]}"}
        with httpx.stream("GET", f"{one.url}/trace", headers=headers, timeout=30) as response:
            assert response.status_code == 200
            for part in response.iter_bytes():
                self.content += part
                if self._is_over:
                    return

    def stop(self) -> None:
        """When all that was on its way has come."""
        time.sleep(0.3)
        self._is_over = True
        self._thread.join(5)  # the server says something each second

    @property
    def records(self) -> list[Any]:
        return [lines.decode(line) for line in self.content[: self.content.rfind(b"\n")].split(b"\n") if line]

    @property
    def requests(self) -> list[Request]:
        return [record for record in self.records if isinstance(record, Request)]

    @property
    def steps(self) -> list[Step]:
        return [record for record in self.records if isinstance(record, Step)]


def tokens_in(folder: Path) -> dict[str, str]:
    if not (folder / "tokens.csv").exists():  # nobody is in the list: all are users of a Hub
        return {}
    with (folder / "tokens.csv").open(newline="") as file:
        return {row["name"]: row["token"] for row in csv.DictReader(file)}


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = json.loads(response.content)
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    return dict(body["error"])
