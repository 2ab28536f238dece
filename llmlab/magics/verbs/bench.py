"""%llm bench: engines under load. A line says how far it is, then come table and curves, and on request a report."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from IPython.display import display

from llmlab.bench import Bench
from llmlab.bench import bench as measure_load
from llmlab.language import tr
from llmlab.magics.line import Line, Named, arguments_code
from llmlab.magics.stream_display import LiveScreen, mode_of
from llmlab.magics.verbs.targets import current, loaded
from llmlab.report import Report
from llmlab.report import report as make_report

if TYPE_CHECKING:
    from llmlab.bench.progress import Progress

UPDATES_PER_S = 4


def bench(line: Line) -> object:
    """The measurement is the value, also after Stop; with --report the Report, which has it in `.result`."""
    args = line.args
    handles = [loaded(name) for name in args.engines or []] or [current()]
    engines = Named(f"[{', '.join(f'llmlab.handles()[{handle.name!r}]' for handle in handles)}]", handles)
    wanted = {
        "workload": args.workload, "sweep": args.sweep, "slo": args.slo, "num_requests": args.num_requests,
        "repeats": args.repeats, "seed": args.seed,
    }  # fmt: skip
    screen = _Screen("quiet" if args.quiet else mode_of(line.lab.shell))

    def measure(engines: Any, **options: Any) -> Bench:
        result = measure_load(engines, **options, progress=screen.show)
        screen.finish(result)
        return result

    if args.report is None:
        found: Bench | Report = line.call("llmlab.bench", measure, engines, **wanted)
    else:
        about = {"path": args.report, "price": args.price, "currency": args.currency}
        about = {name: value for name, value in about.items() if value is not None}

        def measure_and_write(engines: Any, **options: Any) -> Report:
            result = measure(engines, **options)
            screen.say(tr("Measuring load times, quality and parity for the report."))
            return make_report(result, **about)

        name = f"llmlab.report(llmlab.bench({{}}), {arguments_code((), about)})"
        found = line.call(name, measure_and_write, engines, **wanted)
    if args.out:
        line.assign(args.out, found)
    if isinstance(found, Report) and not args.quiet:
        print(found.choice)
        print(tr("{path}: the whole report.", path=args.report))
    return line.shown(found)


class _Screen:
    """Where a measurement is followed: one live area, or printed lines, or nowhere."""

    def __init__(self, mode: str) -> None:
        self._mode, self._live = mode, LiveScreen(UPDATES_PER_S)
        self._last = ("", "")

    def show(self, progress: Progress) -> None:
        if self._mode == "live":
            self._live.show("", lambda: _bundle(progress))
        elif self._mode == "append" and (progress.engine, progress.load) != self._last:
            self._last = (progress.engine, progress.load)
            print(progress)

    def finish(self, result: Bench) -> None:
        """The result, in place of the progress."""
        if self._mode == "live":
            self._live.finish("", {"text/plain": repr(result), "text/html": result._repr_html_()}, "")
        elif self._mode == "append":
            print(result)
        elif self._mode == "once":
            display(result)

    def say(self, sentence: str) -> None:
        if self._mode in ("live", "append"):
            print(sentence)


def _bundle(progress: Progress) -> dict[str, str]:
    """A bar and the sentence: how far, how much longer."""
    share = progress.num_ended / max(1, progress.num_requests)
    bar = (
        '<div style="height:6px;max-width:420px;border:1px solid currentColor;opacity:.6">'
        f'<div style="height:100%;width:{100 * share:.1f}%;background:currentColor"></div></div>'
    )
    hint = tr("Stop keeps what was measured.")
    return {
        "text/plain": f"{progress}. {hint}",
        "text/html": f"<div>{escape(str(progress))}</div>{bar}<div style='opacity:.75'>{hint}</div>",
    }
