"""A live view whose page has gone: nothing is sent to it any more, and it catches up when a page comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jupyter_lab import Notebook, Server
from playwright.sync_api import BrowserContext, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

Open = Callable[..., Notebook]
ENGINES = str(Path(__file__).resolve().parents[1] / "engines")
PATIENCE_S = 4.0
# A long run of an engine without a model. Five times a second its kernel writes how it is: that is read without a page.
START = f"""import json, sys, threading, time
from pathlib import Path
import llmlab
from llmlab.views import presence
from llmlab.views.widget import View
sys.path.append({ENGINES!r})
options = {{"step_s": 0.05, "num_cells": 8192}}
eng = llmlab.load("letters", engine="fake_engine:FakeEngine", options=options, ctx=4000)
presence.PATIENCE_S = {PATIENCE_S}
num_sent, num_heard, send, heard = 0, 0, View.send, presence.Presence.heard
def counted(view, *message):
    global num_sent
    num_sent += 1
    send(view, *message)
def noted(it):
    global num_heard
    num_heard += 1
    heard(it)
View.send, presence.Presence.heard = counted, noted
def write():
    while True:
        time.sleep(0.2)
        now = {{"sent": num_sent, "heard": num_heard, "steps": len(run.trace.step_records)}}
        Path("new.json").write_text(json.dumps(now))
        Path("new.json").replace("told.json")
run = eng.batch(["one", "one and two"], max_tokens=3000)
threading.Thread(target=write, daemon=True).start()"""
WAITING = "display(llmlab.watch(run))\nresults = run.wait()"
# Which steps a page has of the run: the number of the first, how many, and whether each follows the one before.
STEPS = """() => {
  const { from, story } = [...(globalThis.llmlabTellings?.values() ?? [])].pop() ?? {};
  return story ? [from, story.length, story.steps.every(({ n }, i) => n === story.steps[0].n + i)] : [null, 0, true];
}"""


class Kernel:
    """How the kernel of START is, whether a page is there or not."""

    def __init__(self, server: Server) -> None:
        self._file = server.root / "told.json"

    def __getattr__(self, name: str) -> int:
        """`sent`: messages to views; `heard`: of pages; `steps` of the run."""
        return int(json.loads(self._file.read_text())[name])

    def run_on(self, seconds: float) -> int:
        """So long; how many messages were sent meanwhile. The run goes on."""
        sent, steps = self.sent, self.steps
        time.sleep(seconds)
        assert self.steps > steps
        return self.sent - sent

    def is_sending(self) -> bool:
        """Still, after more than its patience."""
        self.run_on(2 * PATIENCE_S)
        return self.run_on(1.0) > 0

    def wait_silent(self) -> None:
        """Until it has sent nothing for a second."""
        deadline = time.monotonic() + 5 * PATIENCE_S
        while self.run_on(1.0):
            assert time.monotonic() < deadline, "it goes on sending to a page that is gone"


def expect_all(opened: Notebook, kernel: Kernel) -> None:
    """The view is live again, and has every step from the first on."""
    steps = kernel.steps
    opened.page.wait_for_function(f"() => ({STEPS})()[1] > {steps}", timeout=20_000)
    first, _, is_gapless = opened.page.evaluate(STEPS)
    assert first == 0 and is_gapless
    expect(opened.output(1).locator(".llmlab-live")).to_be_visible()


def test_a_page_that_is_closed_is_not_sent_to_and_one_that_opens_the_notebook_again_has_all(
    notebook: Open, server: Server, context: BrowserContext
):
    opened, kernel = notebook("closed.ipynb", START, "llmlab.watch(run)"), Kernel(server)
    opened.run_cell(0)
    opened.run_cell(1)
    expect(opened.output(1).locator(".llmlab-live")).to_be_visible(timeout=20_000)
    assert kernel.is_sending()  # a page that is there is not taken for gone
    opened.saved()
    opened.page.close()
    kernel.wait_silent()
    assert kernel.run_on(2 * PATIENCE_S) == 0
    again = Notebook(context.new_page(), server, "closed.ipynb")
    expect_all(again, kernel)
    assert kernel.is_sending()
    again.page.close()


@pytest.mark.soak
def test_in_a_cell_that_waits_for_the_run_a_page_is_heard_and_one_that_was_suspended_catches_up(
    notebook: Open, server: Server
):
    opened, kernel = notebook("suspended.ipynb", START, WAITING), Kernel(server)
    opened.run_cell(0)
    opened.start_cell(1)
    expect(opened.output(1).locator(".llmlab-live")).to_be_visible(timeout=20_000)
    heard = kernel.heard
    assert kernel.is_sending() and kernel.heard >= heard + 2
    page = opened.page.context.new_cdp_session(opened.page)
    page.send("Debugger.enable")
    page.send("Debugger.pause")  # no script of it runs, as in a laptop that is closed
    kernel.wait_silent()
    assert kernel.run_on(2 * PATIENCE_S) == 0
    page.send("Debugger.resume")
    page.send("Debugger.disable")
    expect_all(opened, kernel)
    opened.interrupt()


@pytest.mark.soak
def test_a_page_that_a_busy_kernel_cannot_hear_is_not_taken_for_gone(notebook: Open, server: Server):
    """As in a front end that knows no subshells."""
    opened, kernel = notebook("deaf.ipynb", START, WAITING), Kernel(server)
    opened.page.evaluate("() => { jupyterapp.serviceManager.kernels.commsOverSubshells = 'disabled'; }")
    opened.run_cell(0)
    opened.start_cell(1)
    expect(opened.output(1).locator(".llmlab-live")).to_be_visible(timeout=20_000)
    assert kernel.is_sending() and kernel.heard == 0
    opened.interrupt()


@pytest.mark.soak
def test_the_page_of_a_comparison_says_that_it_is_there_too(notebook: Open):
    compare = f"""import sys, llmlab
from llmlab.views import presence
sys.path.append({ENGINES!r})
presence.PATIENCE_S = {PATIENCE_S}
options = {{"step_s": 0.05, "num_cells": 8192}}
a, b = (llmlab.load("letters", engine="fake_engine:FakeEngine", options=options, ctx=4000, name=name) for name in "ab")
found = llmlab.compare("one and two " * 100, [a, b], max_tokens=1000, together=True, wait=False)
llmlab.side_by_side(found)"""
    opened = notebook("compared.ipynb", compare, "found.stop()")
    opened.run_cell(0)
    answers = opened.output(0).locator(".llmlab-view")
    expect(answers).to_contain_text("one and two", timeout=20_000)
    time.sleep(2 * PATIENCE_S)
    before = answers.inner_text()
    expect(answers).not_to_have_text(before, use_inner_text=True)  # it goes on
    opened.run_cell(1)
