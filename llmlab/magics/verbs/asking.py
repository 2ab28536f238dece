"""%llm PROMPT and %%llm: one prompt, its answer while it streams, the result as the value of the cell."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from llmlab.magics import render
from llmlab.magics.line import Line
from llmlab.magics.stream_display import Screen, mode_of, screen
from llmlab.magics.verbs.targets import Target, sampling_options, target_of

if TYPE_CHECKING:
    from llmlab.engines.result import Result
    from llmlab.engines.run import Run

# How often the notebook looks for new tokens. It sleeps between two looks instead of waiting for a token: Ctrl-C ends
# a sleep at once, and the last words before a pause appear without waiting for the next ones.
POLL_S = 0.01


def ask(line: Line) -> object:
    """Send the prompt and show the answer; its Result is the value, and goes to -o after a Stop as well."""
    args = line.args
    target = target_of(line, getattr(args, "name", None))
    if target.handle.is_paused and not args.show_code:
        raise UsageError(f"{target.name} is paused: no answer would come. `%llm resume` lets it run.")
    if args.reset:
        target.chat.turns.clear()
    text = line.expanded(line.cell.strip("\n") if line.cell is not None else args.text)
    if args.reset and not text:
        print(f"The conversation with {target.name} starts anew.")
        return None
    options = sampling_options(line)
    if not args.chat:
        run = _send(line, target, text, {"system": line.system(), **options})
        return line.shown(_follow(run, line))
    cell = line.lab.cells.next()
    run = _send(line, target, target.chat.messages(cell, text, line.system()), options)
    result = _follow(run, line)
    target.chat.record(cell, text, result.text)
    return line.shown(result)


def _send(line: Line, target: Target, prompt: Any, options: dict[str, Any]) -> Run:
    """What generate() does, without waiting for the end."""

    def generate(prompt: Any, timeout: float | None = None, **options: Any) -> Run:
        return target.handle.batch([prompt], **options)

    return line.call(f"{target.code}.generate", generate, prompt, **options, timeout=line.args.timeout)


def _follow(run: Run, line: Line) -> Result:
    """Show the answer until it ends, or until Stop or --timeout end it; then assign it.

    Raises: what the run raises. What had come is on screen and assigned all the same.
    """
    args = line.args
    shown = screen(mode_of(line.lab.shell), quiet=args.quiet, stream=not args.no_stream)
    deadline_s = None if args.timeout is None else time.monotonic() + args.timeout
    try:
        _stream(run, shown, deadline_s, show_prompt=args.show_prompt)
    except KeyboardInterrupt:
        pass
    finally:
        if not run.done:
            with suppress(KeyboardInterrupt):  # a second Ctrl-C: the run has ended on our side already
                run.stop()
    result = run.results[0]
    if args.out:
        line.assign(args.out, result)
    if result.tokens or not result.error:
        form = args.format or line.lab.default("format")
        shown.finish(result.text, render.answer(result.text, result.footer, form), result.footer)
    run.wait()
    return result


def _stream(run: Run, shown: Screen, deadline_s: float | None, *, show_prompt: bool) -> None:
    while not run.done and (deadline_s is None or time.monotonic() < deadline_s):
        show_prompt = show_prompt and not _print_prompt(run.results[0])
        text = run.results[0].text
        if text:
            shown.show(text, lambda text=text: render.live(text))  # type: ignore[misc]
        time.sleep(POLL_S)
    if show_prompt:
        _print_prompt(run.results[0])


def _print_prompt(result: Result) -> bool:
    """The exact text and ids that the engine got; False while it has not accepted them."""
    if not result.prompt_token_ids:
        return False
    print(result.prompt_text)
    print(f"{result.num_prompt_tokens} token ids: {list(result.prompt_token_ids)}")
    return True
