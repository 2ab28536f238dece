"""The widget and where it appears: a real kernel, as a front end and as nbclient drive it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hand_written import preemption_in_blocks, prefix_sharing_in_cells, share, step
from live_support import ENGINES, load_fake, until

import llmlab
from llmlab.engines import registry
from llmlab.trace import Trace
from llmlab.views import display
from llmlab.views.presence import PATIENCE_S, Presence
from llmlab.views.story import Story
from llmlab.views.story_view import NEXT_PART_STEPS, PART_STEPS
from llmlab.views.widget import View, keep_subshell

WIDGET = "application/vnd.jupyter.widget-view+json"
spec = importlib.util.spec_from_file_location(
    "live_kernel", Path(__file__).resolve().parents[1] / "magics" / "live_kernel.py"
)
assert spec is not None and spec.loader is not None
live_kernel = importlib.util.module_from_spec(spec)
sys.modules.setdefault("live_kernel", live_kernel)
spec.loader.exec_module(live_kernel)

START = f"""import sys, threading, llmlab
sys.path.append({ENGINES!r})
eng = llmlab.load("letters", engine="fake_engine:FakeEngine", isolation="inline", options={{"step_s": 0.005}})"""
WATCH = "run = eng.batch(['one', 'and two'], max_tokens=20)\ndisplay(llmlab.watch(run))\n"
NUM_OPEN = "import ipywidgets; print(len(ipywidgets.widgets.widget._instances))"


@pytest.fixture(scope="module")
def kernel() -> Iterator[live_kernel.Kernel]:
    kernel = live_kernel.Kernel()
    kernel.run(START)
    yield kernel
    kernel.close()


@pytest.mark.slow
def test_a_live_view_is_a_widget_and_at_the_end_its_twin_in_the_same_place(kernel: live_kernel.Kernel):
    seen = []
    outputs = kernel.run(WATCH + "r = run.wait()", cell_id="live", meanwhile=lambda o: seen.append(list(o.displays)))
    first = next(displays for displays in seen if displays)
    assert first[0][1].keys() == {"text/html", "text/plain", WIDGET}
    assert "had not ended when this notebook was saved" in first[0][1]["text/html"]  # for who opens it without a kernel
    (_, bundle), *others = outputs.displays
    assert not others and bundle.keys() == {"image/png", "text/html", "text/plain"}
    assert bundle["text/plain"].startswith("Run of 2 requests · fake 1 · step ")
    assert kernel.run(NUM_OPEN).stdout == "0\n"


@pytest.mark.slow
def test_under_nbclient_no_widget_is_made_and_the_twin_is_stored(kernel: live_kernel.Kernel):
    outputs = kernel.run(WATCH + "r = run.wait()", allow_stdin=False)
    assert [bundle.keys() for _, bundle in outputs.displays] == [{"image/png", "text/html", "text/plain"}]
    again = kernel.run("run.view", allow_stdin=False)
    assert again.displays[0][1]["text/plain"] == outputs.displays[0][1]["text/plain"]
    assert kernel.run(NUM_OPEN).stdout == "0\n"


@pytest.mark.slow
def test_a_cell_that_runs_again_closes_what_it_showed(kernel: live_kernel.Kernel):
    kernel.run(WATCH + "r = run.wait()", cell_id="live")
    for _ in range(3):
        outputs = kernel.run("display(llmlab.kv_cache(run), run.view)", cell_id="shows")
        bundles = [bundle for _, bundle in outputs.displays]
        # what a notebook saves is the twin; the widget finds its place in it
        assert [bundle.keys() for bundle in bundles] == [{"image/png", "text/html", "text/plain"}] * 2
        assert all(bundle["text/html"].startswith('<div data-llmlab-place="') for bundle in bundles)
    assert kernel.run(NUM_OPEN).stdout == "4\n"  # two widgets with a layout each
    kernel.run("pass", cell_id="shows")
    assert kernel.run(NUM_OPEN).stdout == "0\n"


@pytest.mark.slow
def test_freeze_puts_the_twin_where_a_finished_run_was_shown(kernel: live_kernel.Kernel):
    kernel.run(WATCH + "r = run.wait()", cell_id="live")
    outputs = kernel.run("view = run.view\ndisplay(view)\nview.freeze()", cell_id="frozen")
    assert outputs.displays[0][1].keys() == {"image/png", "text/html", "text/plain"}
    assert "data-llmlab-place" not in outputs.displays[0][1]["text/html"]
    assert kernel.run(NUM_OPEN).stdout == "0\n"


@pytest.mark.slow
def test_it_is_known_when_a_cell_runs(kernel: live_kernel.Kernel):
    sample = """import threading, time
from llmlab.views.display import CELLS
CELLS.hook()
seen = [CELLS.is_running]
def look():
    while seen[-1] is not None:
        time.sleep(0.1)
        seen.append(CELLS.is_running)
threading.Thread(target=look, daemon=True).start()"""
    kernel.run(sample)
    kernel.run("start = len(seen) + 1; time.sleep(0.5); within = seen[start:]")
    time.sleep(1)
    told = kernel.run("print(seen[0], set(within), seen[-4]); seen.append(None)").stdout
    assert told == "True {True} False\n"


def test_a_page_that_says_that_it_is_there_is_heard_and_nothing_else_happens():
    now_s, answered = [0.0], []
    widget = View(None, answered.append, id="x")
    widget.presence = Presence(lambda: False, lambda: now_s[0])
    now_s[0] = PATIENCE_S + 1
    assert not widget.presence.is_there()
    for message in ({"t": "here"}, {"t": "need", "have": 3}):
        widget._handle_custom_msg(message, [])
    assert widget.presence.is_there() and answered == [{"t": "need", "have": 3}]
    widget.close()


def test_a_widget_opens_with_all_of_a_finished_story():
    story = Story.of(prefix_sharing_in_cells())
    widget = View(story, lambda message: None, parts=["kv"], title="KV cache", id="x")
    opening = json.loads(widget.opening)
    told = {"head": story.head, "requests": story.requests, "steps": story.steps, "num_left": 0}
    assert opening == json.loads(json.dumps(told))
    assert widget.options["parts"] == ["kv"] and widget.state == "ended"
    widget.close()


def test_a_page_gets_a_long_trace_in_parts_and_the_twin_in_the_end(monkeypatch: pytest.MonkeyPatch):
    published: list[dict[str, Any]] = []
    monkeypatch.setattr(display, "publish", lambda bundle, display_id, *, update=False: published.append(bundle))
    monkeypatch.setattr(display, "place", lambda: "page")
    monkeypatch.setattr(display.CELLS, "add", lambda view: None)
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(View, "send", lambda self, content, buffers: sent.append(json.loads(buffers[0])))
    trace = long_trace()
    whole = json.loads(json.dumps(Story.of(trace).steps))
    view = llmlab.watch(trace)
    view._ipython_display_()
    opening = json.loads(view.widget.opening)
    assert len(opening["steps"]) == PART_STEPS and opening["num_left"] == len(whole) - PART_STEPS
    assert [message["from"] for message in sent] == [PART_STEPS, PART_STEPS + NEXT_PART_STEPS]
    assert opening["steps"] + [step for message in sent for step in message["steps"]] == whole
    assert "image/png" not in published[0] and "image/png" in published[1]
    assert all("data-llmlab-place" in bundle["text/html"] for bundle in published)
    assert view.widget.state == "ended" and len(view.story.steps) == len(whole)  # type: ignore[union-attr]
    view._answer({"t": "need", "have": PART_STEPS})  # a page that is loaded again has the opening only
    assert sent[-1]["from"] == PART_STEPS and len(sent[-1]["steps"]) == len(whole) - PART_STEPS
    view.left()


def long_trace() -> Trace:
    """One request that decodes one token in each of 4,500 steps."""
    first = preemption_in_blocks()
    (request, *_) = first.request_records
    num_prompt = len(request.prompt_token_ids)
    steps = [
        step(i, [share(request.request_id, "decode", 1, num_prompt + i, num_prompt, i)], None, {request.request_id: i})
        for i in range(PART_STEPS + NEXT_PART_STEPS + 500)
    ]
    return Trace(first.header, (request,), tuple(steps))


def test_messages_of_the_page_stop_and_drive_the_run_and_tell_where_the_user_looks():
    engine = load_fake(step_s=0.01)
    run = engine.batch(["one"], max_tokens=2000)
    view = llmlab.watch(run)
    until(lambda: view.story is not None and len(view.story.steps) > 3)
    view._answer({"t": "drive", "paused": True})
    assert engine.is_paused
    view._answer({"t": "at", "i": 2})
    assert view.twin().index == 2
    view._answer({"t": "at", "i": None})
    assert view.story is not None and view.twin().index == len(view.story.steps) - 1
    view._answer({"t": "nonsense"})
    view._answer({"t": "stop"})
    assert run.done and run.results[0].finish_reason == "interrupted"
    registry.unload(all=True)


def test_a_comm_that_remembers_a_shell_answers_on_the_one_that_was_asked():
    comm = SimpleNamespace(_reply_subshell_for=lambda data, default: None)  # as ipykernel 7.4: the main shell
    keep_subshell(SimpleNamespace(comm=comm))
    assert comm._reply_subshell_for({}, "subshell-1") == "subshell-1"
    old = SimpleNamespace()
    keep_subshell(SimpleNamespace(comm=old))
    keep_subshell(SimpleNamespace(comm=None))
    assert vars(old) == {}


def test_ipykernel_still_has_what_the_repair_replaces():
    """When this fails, look at whether JupyterLab's messages reach a busy kernel without keep_subshell()."""
    import ipykernel
    from ipykernel.comm.comm import BaseComm

    if ipykernel.version_info[:2] >= (7, 4):
        assert hasattr(BaseComm, "_reply_subshell_for")


def test_a_view_of_a_file_needs_no_widget_package():
    code = (
        "import sys, llmlab; from llmlab.views.shows import watch; print(sorted({'anywidget', 'IPython', 'PIL'} & "
        "set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
