"""deploy/jupyterhub/jupyterhub_config.py on a real JupyterHub, with two students who start their servers.

Needs configurable-http-proxy (npm) on the PATH beside jupyterhub.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from serve_support import wait_until

from tests.local_servers import free_port, is_there

pytest.importorskip("jupyterhub")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(shutil.which("configurable-http-proxy") is None, reason="needs configurable-http-proxy"),
]
CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "jupyterhub" / "jupyterhub_config.py"
API_TOKEN = "of-the-test-0123456789"
AROUND = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.Spawner.args = ["--allow-root"]
c.JupyterHub.services.append({{"name": "tester", "api_token": "{token}"}})
c.JupyterHub.load_roles.append({{"name": "tester", "services": ["tester"], "scopes": ["admin:users", "servers"]}})
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The URL of a JupyterHub with the class as its service."""
    port, class_port = free_port(), free_port()
    text = CONFIG.read_text().replace('"llmlab-class", 10101', f'"llmlab-class", {class_port}')
    text = text.replace("/srv/llmlab/class", str(tmp_path / "class"))
    assert str(class_port) in text and str(tmp_path) in text
    around = AROUND.format(port=port, hub_port=free_port(), api_port=free_port(), token=API_TOKEN)
    (tmp_path / "jupyterhub_config.py").write_text(text + around)
    command = [sys.executable, "-m", "jupyterhub", "-f", "jupyterhub_config.py"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env={**os.environ, "PATH": path})
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_until(lambda: is_there(f"{url}/hub/api/"), 120), (tmp_path / "log").read_text()[-3000:]
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def environment_of_server(name: str) -> dict[str, str] | None:
    """Of the notebook server of a user, when it runs."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if environment.get("JUPYTERHUB_USER") == name and "LLMLAB_CLASS_KEY" in environment:
            return environment
    return None


def test_each_student_has_url_and_key_and_both_work_directly_and_through_the_proxy(hub: str):
    api = httpx.Client(base_url=f"{hub}/hub/api", headers={"Authorization": f"token {API_TOKEN}"}, timeout=60)
    found: dict[str, dict[str, str]] = {}
    for name in ("ada", "bob"):
        assert api.post(f"/users/{name}").status_code == 201
        assert api.post(f"/users/{name}/server").status_code in (201, 202)
    deadline_s = time.monotonic() + 120
    while len(found) < 2 and time.monotonic() < deadline_s:
        found |= {name: told for name in ("ada", "bob") if (told := environment_of_server(name)) is not None}
        time.sleep(0.5)
    url = found["ada"]["LLMLAB_CLASS_URL"]
    keys = {name: {"Authorization": f"Bearer {told['LLMLAB_CLASS_KEY']}"} for name, told in found.items()}
    assert wait_until(lambda: is_there(f"{url}/health", keys["ada"]), 120)
    for name, headers in keys.items():
        assert httpx.get(f"{url}/class/me", headers=headers).json()["me"]["name"] == name
    through_proxy = f"{hub}/services/llmlab-class"
    asked = {"prompt": "1, 2, 3,", "max_tokens": 4, "temperature": 0}
    with httpx.stream("GET", f"{through_proxy}/trace", headers=keys["bob"], timeout=30) as stream:
        answer = httpx.post(f"{through_proxy}/v1/completions", headers=keys["ada"], json=asked, timeout=60)
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 4
        lines = stream.iter_lines()
        told = next(line for line in lines if '"whose":"other"' in line)
        assert "ada" not in told and "prompt_text" not in told
    assert httpx.get(f"{url}/class/me", headers={"Authorization": "Bearer nobodys"}).status_code == 401
    assert httpx.get(f"{url}/class/students", headers=keys["ada"]).status_code == 403
    for name in ("ada", "bob"):
        api.delete(f"/users/{name}/server")
