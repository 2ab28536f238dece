"""Connected servers in a real JupyterLab: with their trace all that they do is live, without it what arrives is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from jupyter_lab import Notebook
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ENGINES = Path(__file__).resolve().parents[1] / "engines"
SERVED = f"""import os, sys, llmlab
sys.path.append({str(ENGINES)!r})
options = {{"step_s": 0.05, "num_cells": 1024}}
eng = llmlab.load("letters", engine="fake_engine:FakeEngine", options=options, ctx=1000)
srv = llmlab.serve(eng)
os.environ["KEY"] = srv.token
plain = llmlab.connect(srv.url, api_key_env="KEY", name="plain")
far = llmlab.connect(srv.url, api_key_env="KEY", name="far", trace=True)"""


def test_a_connected_server_is_watched_live_and_one_without_a_trace_shows_arrivals(
    notebook: Callable[..., Notebook], tmp_path: Path
):
    folder = Path(os.environ.get("LLMLAB_KEEP") or tmp_path)  # a folder: to look at the pictures
    opened = notebook(
        "connected.ipynb",
        SERVED,
        "llmlab.watch(far)",
        'other = eng.batch(["somebody else"], max_tokens=60)\nrun = far.batch(["ours", "ours too"], max_tokens=40)',
        'arriving = plain.batch(["abc", "de"], max_tokens=30)\narriving.view',
        "_ = arriving.wait(), run.wait(), other.wait()\nllmlab.watch(far)._told.stop()",
    )
    for cell in range(4):
        opened.run_cell(cell)
    live = opened.output(1)
    expect(live.locator(".llmlab-note")).to_contain_text("Stop ends the watching only", timeout=30_000)
    expect(live.locator(".llmlab-say")).to_contain_text("decode", timeout=30_000)
    # it is not ours to hold
    expect(live.locator(".llmlab-hold")).to_be_hidden()
    expect(live.locator(".llmlab-stop")).to_be_visible()
    arrivals = opened.output(3)
    expect(arrivals.locator(".llmlab-unseen")).to_contain_text("connect with --trace", timeout=30_000)
    expect(arrivals.locator(".llmlab-say")).to_contain_text("Arrived")
    assert arrivals.locator(".llmlab-kv").count() == 0
    arrivals.screenshot(path=folder / "arrivals_live.png")
    opened.page.screenshot(path=folder / "connected_live.png", full_page=True)
    names = "() => [...llmlabTellings.values()].map(t => t.story?.requests.map(r => r.name) ?? [])"
    assert any({"o1", "r1", "r2"} <= set(shown) for shown in opened.page.evaluate(names))
    opened.run_cell(4)
    expect(opened.output(3).locator("img[src^='data:image/png']")).to_be_attached(timeout=30_000)
    expect(opened.output(1).locator("img[src^='data:image/png']")).to_be_attached(timeout=30_000)
    opened.page.screenshot(path=folder / "connected_frozen.png", full_page=True)
