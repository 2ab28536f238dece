"""%%llm batch: many prompts at once, one line each while they run, a table at the end, the Run as the value."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from llmlab.language import tr
from llmlab.magics.line import Line, Named
from llmlab.magics.stream_display import mode_of
from llmlab.magics.verbs.batch_view import BatchScreen
from llmlab.magics.verbs.targets import sampling_options, target_of
from llmlab.magics.verbs.watching import watch

if TYPE_CHECKING:
    from llmlab.engines.run import Run

POLL_S = 0.05


def batch(line: Line) -> object:
    """Send all prompts and show them run; the Run is the value, and goes to -o after a Stop as well."""
    args = line.args
    prompts = _prompts(line)
    if not prompts:
        raise UsageError(tr("No prompts: write one a line below %%llm batch, or name them with --file or --var."))
    if args.rate is not None and args.burst:
        raise UsageError(tr("--rate spreads the requests, --burst sends them at once: give one of the two."))
    target = target_of(line, args.name)
    run: Run = line.call(
        f"{target.code}.batch",
        target.handle.batch,
        Named(args.var, prompts) if args.var and args.var.isidentifier() else prompts,
        system=line.system(),
        arrivals=_arrivals(len(prompts), args.rate, args.seed or 0),
        **sampling_options(line),
    )
    follow(run, prompts, line, is_paused=target.handle.is_paused)
    return line.shown(run)


def follow(run: Run, prompts: Sequence[Any], line: Line, *, is_paused: bool = False) -> None:
    """Show the run until it ends, or until Stop or --timeout end it; then assign it. Raises: what the run raises.

    A paused engine takes the requests and waits for `%llm step`; the cell does not wait for it.
    """
    screen = BatchScreen(prompts, "quiet" if line.args.quiet else mode_of(line.lab.shell))
    if not is_paused:
        watch(run, lambda: screen.show(run), timeout_s=getattr(line.args, "timeout", None), poll_s=POLL_S)
    if line.args.out:
        line.assign(line.args.out, run)
    screen.finish(run)
    if is_paused:
        print(tr("The engine is paused: `%llm step` lets it take a step, `%llm resume` lets it run."))
    else:
        run.wait()


def _prompts(line: Line) -> list[Any]:
    """From --var, --file or the cell; only what was typed in the cell has its {names} filled in."""
    args = line.args
    if args.var:
        return list(_as_list(args.var, line.variable(args.var)))
    if args.file:
        return read_prompts(Path(args.file).expanduser())
    return [line.expanded(prompt) for prompt in split_prompts(line.cell or "")]


def _as_list(name: str, value: Any) -> Iterable[Any]:
    # a table of prompts: its column of that name
    column = value["prompt"] if hasattr(value, "columns") and "prompt" in value.columns else value
    if isinstance(column, str) or not isinstance(column, Iterable):
        kind = type(value).__name__
        raise UsageError(tr("--var {name}: a list of prompts is needed, and it is a {kind}.", name=name, kind=kind))
    return column


def split_prompts(text: str) -> list[str]:
    """One prompt a line; or, with lines of `---`, the text between them.

    >>> split_prompts("one\\n\\ntwo\\n"), split_prompts("one\\nmore\\n---\\ntwo")
    (['one', 'two'], ['one\\nmore', 'two'])
    """
    lines = text.splitlines()
    if not any(line.strip() == "---" for line in lines):
        return [line.strip() for line in lines if line.strip()]
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == "---":
            parts.append([])
        else:
            parts[-1].append(line)
    return [part for part in ("\n".join(lines).strip() for lines in parts) if part]


def read_prompts(path: Path) -> list[Any]:
    """Prompts of a file: .jsonl (texts, or objects with "prompt" and sampling values), .csv (column prompt), else text.

    Raises: UsageError when there is no such file, or it holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or tr("not a UTF-8 text file")
        raise UsageError(f"--file {path}: {why}.") from None
    if path.suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        if rows and "prompt" not in rows[0]:
            found = ", ".join(map(repr, rows[0]))
            raise UsageError(tr("--file {path}: no column 'prompt'; it has {columns}.", path=path, columns=found))
        return [row["prompt"] for row in rows if row["prompt"]]
    if path.suffix != ".jsonl":
        return split_prompts(text)
    return [_json_line(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UsageError(tr("--file {path}, line {number}: {error}.", path=path, number=number, error=error)) from None
    if isinstance(value, str) or (isinstance(value, dict) and "prompt" in value):
        return value
    raise UsageError(
        tr(
            '--file {path}, line {number}: a text or an object with "prompt" is needed, and it is {line:.60}',
            path=path,
            number=number,
            line=line,
        )
    )


def _arrivals(num_prompts: int, rate_rps: float | None, seed: int) -> list[float] | None:
    """When each request is sent, in seconds from now: at random with `rate_rps` a second on average."""
    if rate_rps is None:
        return None
    if not rate_rps > 0:
        raise UsageError(tr("--rate is {rate:g}; it must be above 0 (requests a second).", rate=rate_rps))
    chance, at_s, arrivals = random.Random(seed), 0.0, []
    for _ in range(num_prompts):
        arrivals.append(round(at_s, 3))
        at_s += chance.expovariate(rate_rps)
    return arrivals
