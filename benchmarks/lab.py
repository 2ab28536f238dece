"""A JupyterLab with a page of it in a headless Chromium, and what is measured there: draws, frames, messages, CPU time.

This file must not know llmlab, but for the elements that its views are made of.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "browser"))

from conftest import CHROMIUM_FLAGS, find_chromium
from jupyter_lab import Notebook, Server

# Times of all frames of the page, and of all pictures that were drawn: each writes its step into its canvas.
WATCH = """() => {
  const bench = (window.bench = { frames: [], draws: [], steps: [] });
  const frame = (t) => { bench.frames.push(t); requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  const drawn = new MutationObserver((changes) => {
    bench.draws.push(performance.timeOrigin + performance.now());
    bench.steps.push(Number(changes.at(-1).target.dataset.step));
  });
  drawn.observe(document.body, { subtree: true, attributes: true, attributeFilter: ["data-step"] });
}"""
TAKE = """() => {
  const { frames, draws, steps } = window.bench;
  Object.assign(window.bench, { frames: [], draws: [], steps: [] });
  return { frames, draws, steps };
}"""
# Move the scrub bar to each step. How long it takes until the picture is drawn, and until the page can go on.
SEEK = """async (steps) => {
  const range = [...document.querySelectorAll(".llmlab-scrub input")].pop();
  const canvas = [...document.querySelectorAll("canvas[data-step]")].pop();
  const found = [];
  for (const step of steps) {
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20)));
    const started = performance.now();
    const drawn = new Promise((done) => {
      const seen = new MutationObserver(() => { seen.disconnect(); setTimeout(done); });
      seen.observe(canvas, { attributes: true, attributeFilter: ["data-step"] });
    });
    range.value = step;
    range.dispatchEvent(new Event("input"));
    await drawn;
    found.push(performance.now() - started);
  }
  return found;
}"""
# Zoom in, then drag to and fro, 8 px a frame. The times from each frame to the next.
PAN = """async (num) => {
  const canvas = [...document.querySelectorAll(".llmlab-timeline canvas")].sort((a, b) => b.height - a.height)[0];
  canvas.scrollIntoView();
  const { left, top, width } = canvas.getBoundingClientRect();
  const frame = () => new Promise(requestAnimationFrame);
  const send = (Kind, type, x, more) => canvas.dispatchEvent(new Kind(type, {
    bubbles: true, cancelable: true, pointerId: 1, buttons: 1, clientX: left + x, clientY: top + 150, ...more,
  }));
  for (let k = 0; k < 8; k++) {
    send(WheelEvent, "wheel", width / 2, { deltaY: -200, ctrlKey: true });
    await frame();
  }
  canvas.setPointerCapture = () => {}; // no real pointer is down
  send(PointerEvent, "pointerdown", width / 2);
  const times = [];
  let last = await frame();
  for (let k = 1; k <= num; k++) {
    send(PointerEvent, "pointermove", width / 2 + 8 * (20 - Math.abs((k % 40) - 20)));
    const now = await frame();
    times.push(now - last);
    last = now;
  }
  send(PointerEvent, "pointerup", width / 2);
  return times;
}"""


class Lab:
    """One server and one page of a browser, with one notebook open at a time."""

    def __init__(self, server: Server, page: Page) -> None:
        self.server, self.page = server, page

    def open(self, name: str, *cells: str) -> Notebook:
        """A new notebook with these code cells and a kernel of its own."""
        return self.open_file(self.server.write(name, *cells))

    def open_file(self, name: str) -> Notebook:
        self.server.end_kernels()
        notebook = Notebook(self.page, self.server, name)
        self.page.evaluate(WATCH)
        return notebook

    def wait(self, seconds: float) -> None:
        """The browser goes on meanwhile."""
        self.page.wait_for_timeout(1000 * seconds)

    def take(self) -> dict[str, list[float]]:
        """What came since the last call: `frames`, in ms; `draws`, in ms of Unix time, and the `steps` drawn."""
        taken: dict[str, list[float]] = self.page.evaluate(TAKE)
        return taken

    def first_draw_s(self, *, step: int | None = None) -> float:
        """Unix time of the first picture, or of the first of a step, since the last take(); waits until it is drawn."""
        while True:
            taken = self.take()
            for draw_ms, drawn in zip(taken["draws"], taken["steps"], strict=True):
                if step in (None, drawn):
                    return draw_ms / 1000
            self.wait(0.05)

    def seek(self, steps: Sequence[int]) -> list[float]:
        """Milliseconds to each step of the last view."""
        return list(self.page.evaluate(SEEK, list(steps)))

    def pan(self, num_frames: int) -> list[float]:
        """Milliseconds of each frame while the timeline is dragged."""
        return list(self.page.evaluate(PAN, num_frames))

    def cpu_s(self, kernel_pid: int) -> dict[str, float]:
        """CPU seconds so far of the kernel, the server and the browser."""
        browser = [p for p in psutil.Process().children(recursive=True) if "chrom" in p.name()]
        return {
            "kernel": _cpu_s([psutil.Process(kernel_pid)]),
            "server": _cpu_s([psutil.Process(self.server._process.pid)]),
            "browser": _cpu_s(browser),
        }


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(t.user + t.system for t in times))


@contextmanager
def lab(root: Path) -> Iterator[Lab]:
    """A JupyterLab in this folder; it ends with this process, also when that is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with sync_playwright() as playwright:
        path = find_chromium() or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        server = Server(root)
        try:
            yield Lab(server, browser.new_context(viewport={"width": 1400, "height": 1000}).new_page())
        finally:
            server.close()
            browser.close()


class Wire:
    """Bytes of the messages with news, and of those with keys, that come over the websockets of a page."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)
        self.news: list[int] = []
        self.keys: list[int] = []
        self._session.send("Network.enable")
        self._session.on("Network.webSocketFrameReceived", self._take)

    def clear(self) -> None:
        self.news.clear()
        self.keys.clear()

    def _take(self, event: dict[str, Any]) -> None:
        response = event["response"]
        content = response["payloadData"].encode()
        if response["opcode"] == 2:  # binary
            content = base64.b64decode(content)
        for mark, sizes in ((b'{"t":"s"', self.news), (b'{"t":"k"', self.keys)):
            if mark in content:
                sizes.append(len(content))


def printed(notebook: Notebook, cell: int) -> Any:
    """Run a cell that prints JSON, in a line of its own."""
    notebook.run_cell(cell)
    lines = notebook.output(cell).all_inner_texts()
    return json.loads(next(line for text in lines for line in text.splitlines() if line.startswith(("[", "{"))))
