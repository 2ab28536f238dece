"""What the views cost and how fast they are, in a real JupyterLab with a headless Chromium.

    python -m benchmarks.bench_views

A replayed trace of a busy server offers 30 steps a second. CPU times are those of whole processes, as they say more
than seconds on a machine that does other things too. What a live view costs an engine: bench_view_cost.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from benchmarks.bench_view_cost import LLAMA, measured
from benchmarks.harness import Bound, Series, write
from benchmarks.lab import Lab, Wire, lab, printed
from benchmarks.large_trace import large_trace

ROOT = Path(__file__).resolve().parent.parent
RATE, WARM_S, WINDOW_S = 30, 3, 8
NUM_STEPS, NUM_SEEKS, NUM_PANNED = 10_000, 50, 120
SMALL = str(ROOT / "datasets" / "traces" / "burst_of_64.jsonl.gz")

LOAD = """import json, os, time, llmlab
eng = llmlab.load({path!r}, engine="replay")
print(json.dumps([os.getpid()]))"""
SHOW = """called_s = time.time()
display({view})
print(json.dumps([called_s, time.time()]))"""


def live(page: Lab, path: Path) -> tuple[list[Series], list[Bound]]:
    """30 steps a second of 100,000 blocks, with a view and without."""
    show = SHOW.format(view="llmlab.kv_cache(run)")
    notebook = page.open("live.ipynb", LOAD.format(path=str(path)), "run = eng.replay()", show, "eng.unload()")
    wire, spent = Wire(page.page), {}
    for is_shown in (False, True):
        (kernel,) = printed(notebook, 0)
        notebook.run_cell(1)
        if is_shown:
            notebook.run_cell(2)
        page.wait(WARM_S)
        page.take()
        wire.clear()
        before = page.cpu_s(kernel)
        page.wait(WINDOW_S)
        after, taken = page.cpu_s(kernel), page.take()
        spent[is_shown] = {name: 1000 * (after[name] - before[name]) / (RATE * WINDOW_S) for name in after}
        news, keys = list(wire.news), list(wire.keys)
        notebook.run_cell(3)
    gaps = [b - a for a, b in pairwise(taken["frames"])]
    drawn = round((len(taken["draws"]) - 1) / (taken["draws"][-1] - taken["draws"][0]) * 1000, 1)
    cost = {name: spent[True][name] - spent[False][name] for name in spent[True]}
    named = "100,000 blocks"
    series = [
        Series(f"{named}: pictures drawn", "a second", [drawn]),
        Series(f"{named}: time between frames of the page", "ms", gaps),
        Series(f"{named}: message with news", "bytes", [float(n) for n in news]),
        Series(f"{named}: key message", "bytes", [float(n) for n in keys]),
        *(Series(f"{named}: CPU for the view, {name}", "ms a step", [ms]) for name, ms in cost.items()),
        Series(f"{named}: CPU of the kernel without a view", "ms a step", [spent[False]["kernel"]]),
    ]
    bounds = [
        Bound(f"{named}, 30 steps/s offered: pictures drawn a second", drawn, 20.0),
        Bound(f"{named}: CPU for the view in the kernel, ms a step", cost["kernel"], 1.5, at_least=False),
        Bound(f"{named}: message with news, median bytes", statistics.median(news), 8000, at_least=False),
        Bound(f"{named}: longest time between two frames, ms", max(gaps), 100, at_least=False),
    ]
    return series, bounds


def first_view(page: Lab) -> tuple[list[Series], list[Bound]]:
    """Of a run that goes on: in a kernel that has shown none, and again."""
    show = SHOW.format(view="llmlab.watch(run)")
    cells = [LOAD.format(path=SMALL), "run = eng.replay()", show, "run.stop()\nrun = eng.replay()", show, "run.stop()"]
    names = ("first in a kernel", "second in a kernel")
    shown = {name: Series(f"view, {name}: until it is shown", "ms") for name in names}
    drawn = {name: Series(f"view, {name}: until it is drawn", "ms") for name in names}
    for number in range(3):
        notebook = page.open(f"first{number}.ipynb", *cells)
        printed(notebook, 0)
        for name, cell in zip(names, (1, 3), strict=True):
            notebook.run_cell(cell)
            page.take()
            called_s, shown_s = printed(notebook, cell + 1)
            drawn[name].values.append(1000 * (page.first_draw_s() - called_s))
            shown[name].values.append(1000 * (shown_s - called_s))
        notebook.run_cell(5)
    series = [*shown.values(), *drawn.values()]
    return series, [Bound("first view after the call, ms", shown[names[0]].median, 150, at_least=False)]


def long_trace(page: Lab, path: Path) -> tuple[list[Series], list[Bound]]:
    """10,000 steps of 1,000 requests, 16 at once: open, seek, pan."""
    show = SHOW.format(view="llmlab.watch(trace)")
    load = f"import json, time, llmlab\ntrace = llmlab.Trace.load({str(path)!r})"
    notebook = page.open("long.ipynb", load, show)
    notebook.run_cell(0)
    page.take()
    called_s, shown_s = printed(notebook, 1)
    opened_s = page.first_draw_s(step=NUM_STEPS - 1) - called_s
    page.wait(1)
    seeks = page.seek(random.Random(0).sample(range(NUM_STEPS), NUM_SEEKS))
    panned = page.pan(NUM_PANNED)
    named = "10,000 steps"
    series = [
        Series(f"{named}: until all of it is drawn", "s", [opened_s]),
        Series(f"{named}: until the cell is done, with the twin that stays", "s", [shown_s - called_s]),
        Series(f"{named}: to another step", "ms", seeks),
        Series(f"{named}, 1,000 requests: a frame while the timeline is dragged", "ms", panned),
    ]
    bounds = [
        Bound(f"{named}: opened after, s", opened_s, 2.0, at_least=False),
        Bound(f"{named}: longest way to another step, ms", max(seeks), 50, at_least=False),
    ]
    return series, bounds


def quickstart(page: Lab) -> tuple[list[Series], list[Bound]]:
    """The size of the notebook, run and saved in JupyterLab."""
    name = "00_quickstart.ipynb"
    (page.server.root / name).write_text((ROOT / "notebooks" / name).read_text())
    notebook = page.open_file(name)
    notebook.run_all()
    notebook.saved()
    kb = (page.server.root / name).stat().st_size / 1000
    return [Series("saved quickstart notebook", "kB", [kb])], [Bound("saved quickstart, kB", kb, 300, at_least=False)]


def busy_trace(folder: Path) -> Path:
    return large_trace(RATE * (WARM_S + WINDOW_S + 15), rate=RATE).save(folder / "busy.jsonl.gz")


def calm_trace(folder: Path) -> Path:
    settings = {"num_blocks": 4000, "max_num_seqs": 16, "prompt_tokens": 300, "output_tokens": 160}
    return large_trace(NUM_STEPS, num_warm_up=0, **settings).save(folder / "calm.jsonl.gz")


def beside_a_page(page: Lab) -> tuple[list[Series], list[Bound]]:
    """Reported only: on a machine with two cores, both of which compute tokens, a browser takes its share anyway."""
    notebook = page.open("llama.ipynb", LLAMA.code, "turn(16, 100)", *[f"turn{load}" for load in LLAMA.loads.values()])
    for cell in (0, 1):
        notebook.run_cell(cell)
    found = {name: [printed(notebook, 2 + i) for _ in range(2)] for i, name in enumerate(LLAMA.loads)}
    return measured(found, "llama.cpp, drawn on the same machine")[0], []


PARTS: dict[str, Callable[[Lab, Path], tuple[list[Series], list[Bound]]]] = {
    "live": lambda page, folder: live(page, busy_trace(folder)),
    "first": lambda page, _: first_view(page),
    "long": lambda page, folder: long_trace(page, calm_trace(folder)),
    "quickstart": lambda page, _: quickstart(page),
    "page": lambda page, _: beside_a_page(page),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parts = parser.parse_args().parts
    series, bounds = [], []
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder)) as page:
        for part in parts:
            some_series, some_bounds = PARTS[part](page, Path(folder))
            print(*some_series, *some_bounds, sep="\n", flush=True)
            series += some_series
            bounds += some_bounds
    if parts == list(PARTS):
        write("views", "Views in JupyterLab", series, bounds)


if __name__ == "__main__":
    main()
