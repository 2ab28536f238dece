"""A comparison in a real JupyterLab: columns fill, marks stand in them, Stop works, it is read without a kernel."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from jupyter_lab import Notebook, Server
from playwright.sync_api import Locator, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(290)]

Open = Callable[..., Notebook]
ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<img src=x onerror=window.owned=1>"
# Two quants on llama.cpp, and vLLM as it was recorded: prompts of that recording.
ENGINES = """import json, llmlab
%load_ext llmlab
for quant in ("Q8_0", "Q4_0"):
    llmlab.load("smollm2-135m", engine="llamacpp", quant=quant, name=quant, ctx=512)
recorded = llmlab.recorded("burst_of_64")
recorded.save("recorded.jsonl.gz")
llmlab.load("recorded.jsonl.gz", name="vLLM")
prompts = [{"prompt": r.prompt_text, "raw": True} for r in recorded.request_records]"""
START = """found = llmlab.compare(prompts[:NUM], ["Q8_0", "Q4_0", "vLLM"], max_tokens=6, wait=False)
found"""
TOLD = """rows = [[p.prompt, p.columns[1], p.index] for p in found.known_partings()]
ids = [[[t for t in (r.token_ids if r else ())] for r in row] for row in found.results]
print(json.dumps({"rows": rows, "ids": ids}))"""


def columns(output: Locator) -> Locator:
    return output.locator(".llmlab-compare-column")


@pytest.mark.parametrize("num_prompts", [6, pytest.param(20, marks=pytest.mark.soak)])
def test_prompts_on_two_quants_and_two_engines_stream_part_and_stay(notebook: Open, server: Server, num_prompts: int):
    opened = notebook(
        "compare.ipynb", ENGINES, START.replace("NUM", str(num_prompts)), "n = len(found.wait().prompts)", TOLD
    )
    opened.run_cell(0)
    opened.start_cell(1)
    output = opened.output(1)
    expect(columns(output)).to_have_count(3, timeout=30_000)
    expect(output.locator(".llmlab-compare-name b")).to_have_text(["Q8_0", "Q4_0", "vLLM"])
    expect(columns(output).first.locator(".llmlab-compare-text")).not_to_be_empty(timeout=30_000)
    expect(output.locator(".llmlab-compare-list tbody tr")).to_have_count(num_prompts)
    expect(output.locator(".llmlab-compare-bar .llmlab-stop")).to_be_visible()
    opened.run_cell(2)
    opened.run_cell(3)

    told = json.loads(opened.output(3).first.inner_text())
    by_hand = [
        [i, j, next((k for k, (x, y) in enumerate(zip(row[0], row[j], strict=False)) if x != y),
                    min(len(row[0]), len(row[j])))]
        for i, row in enumerate(told["ids"]) for j in (1, 2) if row[0] != row[j]
    ]  # fmt: skip
    assert told["rows"] == by_hand and by_hand
    prompt, _, index = by_hand[0]
    output.get_by_role("button", name=f"Show prompt {prompt + 1}", exact=True).click()
    mark = output.locator(".llmlab-compare-parts").first
    expect(mark).to_have_attribute("title", f"first different token, index {index}")
    expect(output.locator(".llmlab-compare-evidence h3")).to_have_text(re.compile(r"First difference: token \d+"))
    expect(output.locator(".llmlab-compare-evidence .llmlab-figures").first).to_contain_text("tested")
    expect(output.locator(".llmlab-compare-list tbody td", has_text=f"◆ {index}").first).to_be_visible()

    saved = opened.saved()
    html = saved.cells[1].outputs[0]["data"]["text/html"]
    assert "widget-view" not in "".join(saved.cells[1].outputs[0]["data"])
    assert "<script" not in html
    server.end_kernels()
    saved.cells = saved.cells[1:2]
    nbformat.write(saved, server.root / "compare_again.ipynb")
    again = Notebook(opened.page, server, "compare_again.ipynb").output(0)
    expect(again.locator("table").first).to_contain_text("Q4_0")
    expect(again.locator("details[open]").first).to_contain_text("First difference: token")
    expect(again.locator("details").first).to_contain_text("◆")


def test_stop_ends_one_column_then_all_and_no_text_becomes_markup(notebook: Open):
    opened = notebook(
        "compare_stop.ipynb",
        """import json, llmlab
%load_ext llmlab
for name in "ab":
    llmlab.load("smollm2-135m", engine="llamacpp", quant="Q4_1", name=name, ctx=2048)""",
        f"%%llm compare -e a b --together -n 1500 --no-causes -o found\nRepeat: {HOSTILE}",
        "print(json.dumps([[r.finish_reason, r.num_output_tokens] for r in found.results[0]]))",
    )
    opened.run_cell(0)
    opened.start_cell(1)
    output = opened.output(1)
    expect(columns(output)).to_have_count(2, timeout=30_000)
    for column in columns(output).all():
        expect(column.locator(".llmlab-compare-text")).not_to_be_empty(timeout=30_000)
    output.get_by_role("button", name="Stop a", exact=True).click()
    expect(columns(output).first.locator(".llmlab-compare-end")).to_have_text("stopped", timeout=10_000)
    second = columns(output).nth(1)
    expect(second.get_by_role("button", name="Stop b")).to_be_visible()
    come = second.locator(".llmlab-compare-figures").inner_text()
    expect(second.locator(".llmlab-compare-figures")).not_to_have_text(come, use_inner_text=True, timeout=10_000)
    output.locator(".llmlab-compare-bar .llmlab-stop").click()
    opened.wait_idle()
    opened.run_cell(2)
    ends = json.loads(opened.output(2).first.inner_text())
    assert [reason for reason, _ in ends] == ["interrupted", "interrupted"]
    assert all(num_tokens > 0 for _, num_tokens in ends)
    assert opened.page.evaluate("() => window.owned") is None


def test_the_panel_is_filled_in_and_run_with_the_keyboard_alone(notebook: Open):
    fake = f"""import sys, llmlab
options = {{"step_s": 0.1}}
sys.path.append({str(ROOT / "tests" / "engines")!r})
for name in "ab":
    llmlab.load("letters", engine="fake_engine:FakeEngine", name=name, isolation="inline", options=options)"""
    opened = notebook("panel.ipynb", fake, "panel = llmlab.panel()\npanel", "print(panel.comparison['a'][0].text)")
    opened.run_cell(0)
    opened.run_cell(1)
    output, keyboard = opened.output(1), opened.page.keyboard
    prompt = output.get_by_label("Prompt (Ctrl + Enter runs)")
    expect(prompt).to_be_visible(timeout=20_000)
    prompt.focus()
    keyboard.press("Control+A")
    keyboard.type("xdd")  # d, d and x would delete and cut the cell
    keyboard.press("Shift+Tab")
    keyboard.press("Space")  # together
    keyboard.press("Tab")
    output.locator("[data-llmlab-place]").evaluate("twin => twin.dataset.before = 1")
    keyboard.press("Control+Enter")
    expect(columns(output)).to_have_count(2, timeout=20_000)
    expect(output.get_by_role("tab")).to_have_count(3, timeout=20_000)
    expect(columns(output).first.locator(".llmlab-compare-text")).to_contain_text("xddxdd", timeout=20_000)
    output.get_by_role("tab", name="Answers").focus()
    keyboard.press("ArrowRight")
    expect(output.get_by_role("tab", name="KV cache and timeline: a")).to_be_focused()
    expect(output.locator(".llmlab-kv canvas").first).to_be_visible(timeout=20_000)
    keyboard.press("Tab")  # into the picture, where the end of the run must leave it
    expect(output.locator("[data-llmlab-place][data-before]")).to_have_count(0, timeout=20_000)
    expect(output.locator(".llmlab-panel-body .llmlab-view:focus")).to_have_count(1)
    keyboard.press("Home")
    expect(output.locator(".llmlab-state").first).to_contain_text("step 0")
    keyboard.press("Shift+Tab")
    keyboard.press("Home")
    expect(columns(output).first).to_be_visible()
    opened.run_cell(2)
    assert opened.output(2).first.inner_text().startswith("xdd")
    assert opened.page.locator(".jp-CodeCell").count() == 3


def test_a_panel_offers_a_quant_where_there_is_one_to_choose_and_leaves_its_tabs_as_they_look_alone(notebook: Open):
    fake = f"""import sys, llmlab
sys.path.append({str(ROOT / "tests" / "engines")!r})
for name in "ab":
    llmlab.load("letters", engine="fake_engine:FakeEngine", name=name, isolation="inline")"""
    opened = notebook("panel_looks.ipynb", fake, "llmlab.panel()")
    opened.run_all()
    form = opened.output(1)
    form.get_by_text("Load another engine").click()
    for engine, has_quants in (("torch", False), ("llamacpp", True)):
        kind, _, quant = form.locator("details select").all()
        kind.select_option(engine)
        assert quant.is_enabled() is has_quants
    form.get_by_role("button", name="Run", exact=True).click()
    expect(columns(form)).to_have_count(2, timeout=20_000)
    inside = form.locator(".llmlab-panel-body")
    expect(inside.locator(".llmlab-head h3").first).to_have_css("margin-bottom", "0px")
    expect(inside.locator(".llmlab-compare-bar").first).to_have_css("margin-bottom", "8px")


def test_a_comparison_whose_kernel_is_shut_down_says_so_and_offers_no_stop(notebook: Open):
    opened = notebook(
        "compare_shut_down.ipynb",
        f"""import os, sys, llmlab
sys.path.append({str(ROOT / "tests" / "engines")!r})
for name in "ab":
    llmlab.load("letters", engine="fake_engine:FakeEngine", name=name, ctx=1000, options={{"step_s": 0.05}})
llmlab.compare("one two", ["a", "b"], max_tokens=900, together=True, wait=False)""",
        "print(os.getpid())",
    )
    opened.run_cell(0)
    opened.run_cell(1)
    output = opened.output(0)
    expect(columns(output).nth(1).locator(".llmlab-compare-text")).to_contain_text("one", timeout=20_000)
    stop = output.locator(".llmlab-stop:visible")
    expect(stop).to_have_count(3)  # of each column, and of all
    os.kill(json.loads(opened.output(1).inner_text()), signal.SIGSTOP)  # or it would end the runs first
    opened.shut_down_kernel()
    expect(output.locator(".llmlab-notice")).to_contain_text("✕ The kernel is gone: frozen at the tokens that arrived")
    expect(stop).to_have_count(0)
