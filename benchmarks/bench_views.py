"""What the views cost and how fast they are, in a real JupyterLab with a headless Chromium.

    python -m benchmarks.bench_views

A replayed trace of a busy server offers 30 steps a second; llama.cpp runs with a view and without by turns. CPU times
are those of whole processes, as they say more than seconds on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

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
LLAMA = """import json, os, threading, time, llmlab
eng = llmlab.load("smollm2-135m", engine="llamacpp", quant="Q4_1")
prompts = [f"Tell me about the number {i}." for i in range(16)]
def turn(num_requests, num_tokens, is_shown):
    run = eng.batch(prompts[:num_requests], max_tokens=num_tokens, temperature=0.0, ignore_eos=True)
    if is_shown:
        display(llmlab.watch(run))
    cpu_s, wall_s = time.process_time(), time.monotonic()
    run.wait()
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    while any(thread.name == "llmlab view" for thread in threading.enumerate()):
        time.sleep(0.02)  # the twin is drawn
    steps = run.trace.step_records[2:]
    rate = sum(len(step.tokens) for step in steps[1:]) / (steps[-1].t_s - steps[0].t_s)
    return [rate, cpu_s / wall_s / os.cpu_count()]
warm = turn(16, 8, True)"""
TURNS = "print(json.dumps([turn({}, {}, is_shown) for is_shown in (False, True, True, False)]))"
LOADS = {"1 request": (1, 150), "16 requests": (16, 32)}  # and their tokens


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


def in_kernel(num_rounds: int) -> dict[str, list[Any]]:
    """Turns of llama.cpp in a kernel whose messages nobody draws."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        run = lambda code: _last_line(client, code)  # noqa: E731
        run(LLAMA)
        return {name: [json.loads(run(TURNS.format(*of))) for _ in range(num_rounds)] for name, of in LOADS.items()}
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _last_line(client: Any, code: str) -> str:
    """What the code prints last."""
    lines = [""]

    def keep(message: dict[str, Any]) -> None:
        if message["msg_type"] == "error":
            raise RuntimeError("\n".join(message["content"]["traceback"]))
        if message["msg_type"] == "stream":
            lines.extend(message["content"]["text"].splitlines())

    client.execute_interactive(code, output_hook=keep, timeout=300)
    return lines[-1]


def in_lab(page: Lab, num_rounds: int) -> dict[str, list[Any]]:
    """The same with a page that draws them, on the same machine."""
    notebook = page.open("llama.ipynb", LLAMA, *[TURNS.format(*of) for of in LOADS.values()])
    notebook.run_cell(0)
    return {name: [printed(notebook, 1 + i) for _ in range(num_rounds)] for i, name in enumerate(LOADS)}


def engine_cost(turns: dict[str, list[Any]], where: str) -> tuple[list[Series], list[Bound]]:
    """Tokens/s with a view against without, from rounds of four turns: without, with, with, without."""
    series, bounds = [], []
    for name, rounds in turns.items():
        lost = [100 * (1 - (b[0] + c[0]) / (a[0] + d[0])) for a, b, c, d in rounds]
        share = [100 * (b[1] + c[1] - a[1] - d[1]) / 2 for a, b, c, d in rounds]
        series.append(Series(f"llama.cpp, {name}, {where}: tokens/s lost to a view", "%", lost))
        series.append(Series(f"llama.cpp, {name}, {where}: CPU for the view, in the kernel", "% of the machine", share))
        bounds.append(Bound(f"llama.cpp, {name}: tokens/s lost to a view, %", series[-2].median, 1.0, at_least=False))
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
    return engine_cost(in_lab(page, 2), "drawn on the same machine")[0], []


PARTS: dict[str, Callable[[Lab, Path], tuple[list[Series], list[Bound]]]] = {
    "live": lambda page, folder: live(page, busy_trace(folder)),
    "first": lambda page, _: first_view(page),
    "long": lambda page, folder: long_trace(page, calm_trace(folder)),
    "quickstart": lambda page, _: quickstart(page),
    "engine": lambda page, _: engine_cost(in_kernel(4), "nobody draws"),
    "page": lambda page, _: beside_a_page(page),
}
NOTE = (
    "What a view costs the engine is bounded without a browser: on a machine with two cores, both of which compute "
    "tokens, a browser that draws takes its share whatever it draws. The figures with one are above."
)


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
        write("views", "Views in JupyterLab", series, bounds, [NOTE])


if __name__ == "__main__":
    main()
