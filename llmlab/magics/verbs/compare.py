"""%%llm compare: one prompt in columns that fill, where they part and why; the Comparison as the value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from IPython.core.error import UsageError

import llmlab
from llmlab.language import tr
from llmlab.magics.line import Line, Named
from llmlab.magics.stream_display import mode_of
from llmlab.magics.verbs.batch import split_prompts
from llmlab.magics.verbs.targets import loaded, sampling_options
from llmlab.magics.verbs.watching import watch

if TYPE_CHECKING:
    from llmlab.compare import Comparison

POLL_S = 0.05


def compare(line: Line) -> object:
    """Ask all columns and show them fill; the Comparison is the value, and goes to -o after a Stop as well."""
    args = line.args
    for name in args.engines or []:
        loaded(name)
    if args.panel:
        return line.show(line.call("llmlab.panel", llmlab.panel, engines=args.engines))
    prompts = _prompts(line)
    comparison = line.call(
        "llmlab.compare",
        _start,
        prompts,
        engines=args.engines,
        together=args.together or None,
        at_once=args.at_once,
        limit=args.limit,
        blind=args.blind or None,
        causes=False if args.no_causes else None,
        system=line.system(),
        timeout=args.timeout,
        **{**sampling_options(line), **grid(args.grid)},
    )
    _follow(comparison, line)
    return line.shown(comparison)


def _start(prompts: Any, timeout: float | None = None, **options: Any) -> Comparison:
    """What compare() does, without waiting for the end."""
    from llmlab.compare import compare as start

    return start(prompts, wait=False, **options)


def _follow(comparison: Comparison, line: Line) -> None:
    """Show it until it ends, or until Stop or --timeout end it; then assign it. Raises: when nothing was answered."""
    from IPython.display import display

    args = line.args
    view = llmlab.side_by_side(comparison, mode=_mode(line))
    is_live = not args.quiet and mode_of(line.lab.shell) == "live"
    if is_live:
        display(view)
    watch(comparison, lambda: None, timeout_s=args.timeout, poll_s=POLL_S)
    if args.out:
        line.assign(args.out, comparison)
    comparison.require_answers()
    if not args.quiet and not is_live:
        display(view)


def _mode(line: Line) -> Literal["text", "diff", "logprobs"]:
    return "diff" if line.args.diff else "logprobs" if line.args.logprobs is not None else "text"


def _prompts(line: Line) -> Any:
    """From --var, --file or the cell: all of it is one prompt, or several with lines of `---` between them."""
    args = line.args
    if args.var and args.file:
        raise UsageError(tr("--var and --file both name prompts: give one of the two."))
    if args.var:
        return Named(args.var, line.variable(args.var))
    if args.file:
        if not args.file.endswith(".jsonl"):
            raise UsageError(
                tr(
                    "--file {file}: prompts to compare come from a .jsonl file, one text or object a line.",
                    file=args.file,
                )
            )
        return args.file
    text = (line.cell or "").strip("\n")
    several = [line.expanded(part) for part in split_prompts(f"{text}\n---")]
    if not several:
        raise UsageError(tr("No prompt: write it below %%llm compare, or name a set with --file or --var."))
    return several[0] if len(several) == 1 else several


def grid(given: dict[str, Any] | None) -> dict[str, list[Any]]:
    """Values of --grid as lists.

    >>> grid({"temperature": (0, 0.7), "quant": "F16,Q8_0", "seed": 3})
    {'temperature': [0, 0.7], 'quant': ['F16', 'Q8_0'], 'seed': [3]}
    """
    found = {}
    for name, value in (given or {}).items():
        if isinstance(value, str):
            value = value.split(",")
        found[name] = list(value) if isinstance(value, list | tuple) else [value]
    return found
