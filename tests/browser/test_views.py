"""Live views in a real JupyterLab: they show what the engine does, drive it, and stay when nothing runs any more."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_lab import Notebook, Server
from nbconvert import HTMLExporter
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

Open = Callable[..., Notebook]
ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<img src=x onerror=window.owned=1>"
LLAMA = f"""import json, random, llmlab
eng = llmlab.load("smollm2-135m", engine="llamacpp", quant="Q4_1", kv_tokens=1024)
prompts = [f"Tell me about the number {{i}}." for i in range(15)] + [{HOSTILE!r}]"""
# an engine without a model, which repeats its prompt; loaded once, however often the cell runs
FAKE = f"""import sys, threading, llmlab
sys.path.append({str(ROOT / "tests" / "engines")!r})
if "eng" not in globals():
    options = {{"step_s": 0.05, "num_cells": 1024}}
    eng = llmlab.load("letters", engine="fake_engine:FakeEngine", options=options, ctx=1000)
prompts = ["one", "one and two", {HOSTILE!r}]"""
# some steps of the run, each with its cells: [cell, position, ids of the requests that hold it]
CELLS = """shown = {}
trace = run.trace
for i in random.Random(0).sample(range(len(trace.step_records)), NUM):
    rows = trace.kv(trace.step_records[i].step).itertuples()
    shown[i] = [[r.first_cell + k, r.first_position + k, sorted(r.request_ids.split(", "))]
                for r in rows for k in range(r.num_cells)]
print(json.dumps(shown))"""
SHOWN = """async i => {
  const view = [...document.querySelectorAll('.llmlab-view')].pop();
  const range = view.querySelector('.llmlab-scrub input');
  range.value = i;
  range.dispatchEvent(new Event('input'));
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))));
  const canvas = [...view.querySelectorAll('canvas')].find(c => c.llmlabShown);
  const { story } = [...globalThis.llmlabTellings.values()].pop();
  return canvas.llmlabShown().map(c => [c.cell, c.position, c.holders.map(r => story.requests[r].id).sort()]);
}"""


def run_cells(opened: Notebook, *cells: int) -> None:
    for cell in cells:
        opened.run_cell(cell)


def live_step(opened: Notebook, cell: int) -> tuple[int, float]:
    """The step that the view of a cell shows, and its time in seconds."""
    words = opened.output(cell).locator(".llmlab-state").inner_text()
    match = re.search(r"step (\d+) of \d+ · ([\d.]+) s", words)
    assert match, words
    return int(match[1]), float(match[2])


def printed(opened: Notebook, cell: int) -> Any:
    run_cells(opened, cell)
    return json.loads(opened.output(cell).first.inner_text())


@pytest.mark.parametrize("num_steps", [15, pytest.param(50, marks=pytest.mark.soak)])
def test_a_batch_is_seen_live_scrubbed_frozen_and_read_without_a_kernel(
    notebook: Open, server: Server, tmp_path: Path, num_steps: int
):
    opened = notebook(
        "live.ipynb",
        LLAMA,
        "run = eng.batch(prompts, max_tokens=64)\nview = llmlab.watch(run)\nview",
        "n = len(run.wait())",
        "run.view",
        CELLS.replace("NUM", str(num_steps)),
    )
    run_cells(opened, 0)
    opened.start_cell(1)
    view = opened.output(1).locator(".llmlab-view")
    expect(view.locator(".llmlab-live")).to_be_visible(timeout=20_000)
    first, _ = live_step(opened, 1)
    expect(view.locator(".llmlab-state")).not_to_contain_text(f"step {first} of", timeout=10_000)
    assert view.locator(".llmlab-kv canvas").count() and view.locator(".llmlab-timeline canvas").count()
    view.press("Home")
    expect(view.locator(".llmlab-state")).to_contain_text(re.compile(r"step 0 of \d"))
    expect(view.locator(".llmlab-to-live")).to_contain_text("→ Live,")
    view.press("End")
    expect(view.locator(".llmlab-live")).to_be_visible()
    run_cells(opened, 2)
    expect(opened.output(1).locator("img")).to_have_attribute("alt", re.compile(r"Run of 16 requests · llama\.cpp"))

    run_cells(opened, 3)
    # in front of its twin, as long as there is a kernel
    expect(opened.output(3).locator(".llmlab-view .llmlab-kv canvas").first).to_be_visible()
    expect(opened.output(3).locator("img")).to_be_hidden()
    expected = printed(opened, 4)
    assert len(expected) == num_steps
    for index, cells in expected.items():
        assert opened.page.evaluate(SHOWN, int(index)) == sorted(cells), f"step {index}"
    assert opened.page.evaluate("() => window.owned") is None

    saved = opened.saved()
    for cell in (1, 3):
        (output,) = saved.cells[cell].outputs
        assert set(output["data"]) == {"image/png", "text/html", "text/plain"}
        assert "attention reads" in output["data"]["text/plain"]
    reopen(server, opened.page, saved, tmp_path)


def reopen(server: Server, page: Page, saved: nbformat.NotebookNode, tmp_path: Path) -> None:
    """Nothing of the old kernel is left; then as a page without network."""
    server.end_kernels()
    saved.cells = [saved.cells[1], saved.cells[3]]  # what was live, and what had ended when it was shown
    nbformat.write(saved, server.root / "again.ipynb")
    again = Notebook(page, server, "again.ipynb")
    for cell in (0, 1):
        image = again.output(cell).locator("img")
        expect(image).to_have_attribute("alt", re.compile("Run of 16 requests"))
        expect(image).to_be_visible()
        assert image.evaluate("i => i.naturalWidth") == 2000
    (tmp_path / "again.html").write_text(HTMLExporter().from_filename(server.root / "again.ipynb")[0])
    page.context.set_offline(True)
    try:
        page.goto((tmp_path / "again.html").as_uri(), wait_until="domcontentloaded")
        images = page.locator('img[alt*="Run of 16 requests"]')
        assert images.evaluate_all("all => all.map(i => i.complete && i.naturalWidth)") == [2000, 2000]
    finally:
        page.context.set_offline(False)


def test_stop_ends_the_run_on_the_engine_and_keeps_what_came(notebook: Open):
    """From a cell that is busy waiting, from one that awaits, and after the cell has returned."""
    start = "import json\nrun = eng.batch(prompts, max_tokens=900)\ndisplay(llmlab.kv_cache(run))\n"
    waiting = ["results = run.wait()", "results = await run", "pass"]
    told = """ends = [[r.finish_reason, r.num_output_tokens] for r in run.results]
print(json.dumps([*ends, run.trace.step_records[-1].t_s]))"""
    opened = notebook("stop.ipynb", FAKE, *[cell for wait in waiting for cell in (start + wait, told)])
    run_cells(opened, 0)
    for cell in (1, 3, 5):
        opened.start_cell(cell)
        view = opened.output(cell).locator(".llmlab-view")
        expect(view.locator(".llmlab-stop")).to_be_visible(timeout=20_000)
        expect(view.locator(".llmlab-state")).to_contain_text(re.compile(r"step \d\d+ of"))
        view.locator(".llmlab-stop").click()
        _, clicked_s = live_step(opened, cell)
        expect(opened.output(cell).locator("img")).to_be_visible(timeout=10_000)
        opened.wait_idle()
        *results, last_s = printed(opened, cell + 1)
        assert [reason for reason, _ in results] == ["interrupted"] * 3
        assert all(num_tokens > 0 for _, num_tokens in results)
        assert last_s - clicked_s <= 1.0
        errors = '[data-mime-type="application/vnd.jupyter.stderr"], [data-mime-type="application/vnd.jupyter.error"]'
        assert opened.output(cell).locator(errors).count() == 0


def test_an_engine_is_paused_and_stepped_from_the_view(notebook: Open):
    opened = notebook("pause.ipynb", FAKE, "run = eng.batch(prompts, max_tokens=900)\nllmlab.watch(run)", "run.stop()")
    run_cells(opened, 0, 1)
    view = opened.output(1).locator(".llmlab-view")
    expect(view.locator(".llmlab-state")).to_contain_text(re.compile(r"step [1-9]\d+ of"), timeout=20_000)
    view.locator(".llmlab-hold").click()
    note = view.locator(".llmlab-note")
    expect(note).to_contain_text("Paused before step")
    before = int(re.search(r"\d+", note.inner_text())[0])  # type: ignore[index]
    view.locator(".llmlab-single").click()
    expect(note).to_have_text(f"Paused before step {before + 1}.")
    view.press(".")
    expect(note).to_have_text(f"Paused before step {before + 2}.")
    (output,) = opened.saved().cells[1].outputs  # if the kernel dies now, this is what the notebook shows
    assert output["data"].keys() == {"text/html", "text/plain"}
    assert "The run had not ended when this notebook was saved" in output["data"]["text/html"]
    view.locator(".llmlab-hold").click()
    expect(note).to_be_empty()
    run_cells(opened, 2)


def test_running_all_cells_twice_leaves_no_widget_and_no_thread_behind(notebook: Open):
    count = (
        "import json, time, ipywidgets\n"
        "time.sleep(0.5)  # a thread that sends looks up four times a second at least\n"
        "names = [t.name for t in threading.enumerate()]\n"
        "print(json.dumps([names.count('llmlab view'), len(ipywidgets.widgets.widget._instances)]))"
    )
    opened = notebook(
        "twice.ipynb", FAKE, "run = eng.batch(prompts, max_tokens=15)\nllmlab.watch(run)", "n = run.wait()",
        "llmlab.timeline(run)", "still = eng.batch(prompts, max_tokens=900)\nllmlab.kv_cache(still)", "still.stop()",
        count,
    )  # fmt: skip
    found = []
    for _ in range(2):
        opened.run_all()
        found.append(json.loads(opened.output(6).first.inner_text()))
    # a widget and its layout, of the run that had ended when it was shown
    assert found == [[0, 2], [0, 2]]
    assert opened.page.evaluate("() => globalThis.llmlabTellings.size") == 1


def test_a_kernel_that_dies_in_a_run_is_told_and_the_last_picture_can_be_looked_through(notebook: Open):
    opened = notebook(
        "killed.ipynb", FAKE, "import os\nrun = eng.batch(prompts, max_tokens=900)\ndisplay(llmlab.watch(run))",
        "print(os.getpid())", "run.stop()",
    )  # fmt: skip
    run_cells(opened, 0, 1)
    kernel = printed(opened, 2)
    view = opened.output(1).locator(".llmlab-view")
    state, stop, box = (view.locator(f".llmlab-{name}") for name in ("state", "stop", "notice"))
    expect(state).to_contain_text(re.compile(r"step [1-9]\d+ of"), timeout=20_000)
    os.kill(kernel, signal.SIGSTOP)
    stop.click()
    expect(view.locator(".llmlab-note")).to_contain_text("Stop was not heard", timeout=15_000)
    expect(stop).to_be_enabled()
    os.kill(kernel, signal.SIGKILL)
    expect(box).to_contain_text(re.compile(r"✕ The kernel is gone: frozen at step \d+"), timeout=20_000)
    expect(view.locator(".llmlab-live-side")).to_be_hidden()
    expect(view.locator(".llmlab-note")).to_be_empty()
    opened.page.locator(".jp-Dialog button").click()  # Jupyter has started another one
    view.press("Home")
    expect(state).to_contain_text(re.compile(r"step 0 of [1-9]\d+"))
    opened.restart_kernel()
    expect(box).to_be_visible()  # that one is not back
    opened.saved()
    opened.reload()
    expect(opened.output(1)).to_contain_text("The run had not ended when this notebook was saved")
    run_cells(opened, 0, 1)
    expect(view.locator(".llmlab-live")).to_be_visible(timeout=20_000)
    run_cells(opened, 3)


def test_a_kernel_that_is_shut_down_or_changed_for_another_in_a_run_is_told_too(notebook: Open):
    opened = notebook(
        "shut_down.ipynb", FAKE, "run = eng.batch(prompts, max_tokens=900)\ndisplay(llmlab.watch(run))",
        "import os\nprint(os.getpid())",
    )  # fmt: skip
    view = opened.output(1).locator(".llmlab-view")
    box, state = view.locator(".llmlab-notice"), view.locator(".llmlab-state")
    for end in (opened.shut_down_kernel, opened.change_kernel):
        run_cells(opened, 0, 1)
        kernel = printed(opened, 2)
        expect(state).to_contain_text(re.compile(r"step [1-9]\d+ of"), timeout=20_000)
        expect(box).to_have_count(0)
        os.kill(kernel, signal.SIGSTOP)  # or its last act might be the twin
        end()
        expect(box).to_contain_text(re.compile(r"✕ The kernel is gone: frozen at step \d+"))
        expect(view.locator(".llmlab-live-side")).to_be_hidden()
        view.press("Home")
        expect(state).to_contain_text(re.compile(r"step 0 of [1-9]\d+"))
        opened.change_kernel()
        expect(box).to_be_visible()  # that one is not back


def test_an_engine_that_dies_in_a_run_is_told_with_its_cause_and_can_be_looked_through(notebook: Open):
    opened = notebook(
        "died.ipynb", FAKE, "run = eng.batch(prompts, max_tokens=900)\nllmlab.watch(run)", "print(eng.pid)",
        "again = llmlab.load('letters', engine='fake_engine:FakeEngine')\nprint(len(again.generate('one').token_ids))",
    )  # fmt: skip
    run_cells(opened, 0, 1)
    host = printed(opened, 2)
    view = opened.output(1).locator(".llmlab-view")
    expect(view.locator(".llmlab-state")).to_contain_text(re.compile(r"step [1-9]\d+ of"), timeout=20_000)
    os.kill(host, signal.SIGKILL)
    box = view.locator(".llmlab-notice")
    told, cause = re.compile(r"✕ fake 1 died at step \d+"), "was killed by SIGKILL"
    expect(box).to_contain_text(told, timeout=20_000)
    expect(box).to_contain_text(cause)
    expect(view.locator(".llmlab-live-side")).to_be_hidden()
    view.press("Home")
    expect(view.locator(".llmlab-state")).to_contain_text(re.compile(r"step 0 of [1-9]\d+"))
    (output,) = opened.saved().cells[1].outputs
    assert cause in output["data"]["text/plain"] and "image/png" in output["data"]
    opened.reload()
    expect(box).to_contain_text(told, timeout=20_000)
    assert printed(opened, 3) > 0


def test_keys_in_a_view_are_the_views_and_no_shortcut_of_the_notebook(notebook: Open):
    opened = notebook("keys.ipynb", 'import llmlab\nllmlab.kv_cache(llmlab.recorded("preemption"))')
    run_cells(opened, 0)
    view = opened.output(0).locator(".llmlab-view")
    view.press("Home")
    for key in ("x", "b", "a"):  # cut, and new cells below and above
        view.press(key)
    assert opened.page.locator(".jp-NotebookPanel .jp-Cell").count() == 1
    view.press("g")
    view.locator(".llmlab-go input").fill("26")
    view.locator(".llmlab-go input").press("Enter")
    expect(view.locator(".llmlab-state")).to_contain_text("step 26 of 357")
    width = view.locator(".llmlab-transport button").first.bounding_box()["width"]  # type: ignore[index]
    view.press("z")
    assert view.locator(".llmlab-transport button").first.bounding_box()["width"] >= 1.3 * width  # type: ignore[index]
    canvas = view.locator(".llmlab-kv canvas").first
    canvas.hover()
    opened.page.keyboard.down("Control")
    opened.page.mouse.wheel(0, -100)
    opened.page.keyboard.up("Control")
    expect(view).to_contain_text(re.compile("Blocks #[0-9]+–#[0-9]+ of 64"))
    canvas.press("0")
    expect(view).not_to_contain_text("of 64:")


def test_what_a_trace_says_is_text_and_never_markup(notebook: Open):
    show = f"""from msgspec.structs import replace
run = eng.batch(prompts, max_tokens=20)
run.wait()
trace = run.trace
llmlab.watch(llmlab.Trace(replace(trace.header, model={HOSTILE!r}), trace.request_records, trace.step_records))"""
    opened = notebook("hostile.ipynb", FAKE, show, "llmlab.tokens(run.results[2])")
    opened.run_all()
    expect(opened.output(1).locator(".llmlab-head span")).to_contain_text(HOSTILE)
    canvas = opened.output(1).locator(".llmlab-kv canvas").first
    for x in range(60, 600, 60):  # tooltips quote the texts of the cells
        canvas.hover(position={"x": x, "y": 36})
    expect(opened.output(2).locator(".llmlab-view")).to_contain_text("onerror")
    assert opened.page.locator(".llmlab-view img").count() == 0
    assert opened.page.evaluate("() => window.owned") is None
