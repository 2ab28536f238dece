"""An IPython kernel in its own process, driven by messages as a front end does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

TIMEOUT_S = 60
# an engine without a model, and the folder it is in
FAKE = "fake_engine:FakeEngine"
ENGINES = str(Path(__file__).resolve().parent.parent / "engines")


@dataclass
class Outputs:
    """What one execution sent."""

    # displays in order, each in its last version, and the execute_result with the id None
    displays: list[tuple[str | None, dict[str, str]]] = field(default_factory=list)
    result: dict[str, str] | None = None
    stdout: str = ""
    stderr: str = ""
    error: list[str] | None = None
    num_updates: int = 0

    @property
    def pages(self) -> list[str]:
        return [bundle.get("text/html", "") for _, bundle in self.displays]

    def take(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "stream":
            setattr(self, content["name"], getattr(self, content["name"]) + content["text"])
        elif kind == "display_data":
            self.displays.append((content["transient"].get("display_id"), content["data"]))
        elif kind == "update_display_data":
            self.num_updates += 1
            shown = content["transient"]["display_id"]
            self.displays = [(i, content["data"] if i == shown else data) for i, data in self.displays]
        elif kind == "execute_result":
            self.result = content["data"]
        elif kind == "error":
            self.error = content["traceback"]


class Kernel:
    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def run(
        self,
        code: str,
        *,
        cell_id: str | None = None,
        allow_stdin: bool = True,
        meanwhile: Callable[[Outputs], bool] | None = None,
    ) -> Outputs:
        """Execute a cell. `meanwhile` sees the outputs after each message; True from it interrupts."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        message = self.client.session.msg("execute_request", {**content, "allow_stdin": allow_stdin})
        if cell_id:
            message["metadata"]["cellId"] = cell_id
        self.client.shell_channel.send(message)
        outputs, deadline = Outputs(), time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            reply = self.client.get_iopub_msg(timeout=TIMEOUT_S)
            if reply["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            if reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
                self.client.get_shell_msg(timeout=TIMEOUT_S)
                return outputs
            outputs.take(reply["msg_type"], reply["content"])
            if meanwhile is not None and meanwhile(outputs):
                meanwhile = None
                self.manager.interrupt_kernel()
        raise TimeoutError(f"the kernel did not finish {code!r} in {TIMEOUT_S} s")

    def complete(self, code: str) -> tuple[list[str], float]:
        """What Tab offers at the end of `code`, and how long it took in seconds."""
        started = time.monotonic()
        reply = self.client.complete(code, reply=True, timeout=TIMEOUT_S)
        return reply["content"]["matches"], time.monotonic() - started

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
