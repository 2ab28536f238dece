"""%llm PROMPT and %%llm: one prompt, its answer while it streams, the result as the value of the cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from llmlab.language import tr
from llmlab.magics import render
from llmlab.magics.line import Line
from llmlab.magics.stream_display import mode_of, screen
from llmlab.magics.verbs.targets import Target, sampling_options, target_of
from llmlab.magics.verbs.watching import watch

if TYPE_CHECKING:
    from llmlab.engines.result import Result
    from llmlab.engines.run import Run

POLL_S = 0.01


def ask(line: Line) -> object:
    """Send the prompt and show the answer; its Result is the value, and goes to -o after a Stop as well."""
    args = line.args
    target = target_of(line, getattr(args, "name", None))
    if target.handle.is_paused and not args.show_code:
        raise UsageError(tr("{name} is paused: no answer would come. `%llm resume` lets it run.", name=target.name))
    if args.reset:
        target.chat.turns.clear()
    text = line.expanded(line.cell.strip("\n") if line.cell is not None else args.text)
    if args.reset and not text:
        print(tr("The conversation with {name} starts anew.", name=target.name))
        return None
    options = sampling_options(line)
    if not args.chat:
        return line.shown(_follow(_send(line, target, text, {"system": line.system(), **options}), line))
    cell = line.lab.cells.next()
    result = _follow(_send(line, target, target.chat.messages(cell, text, line.system()), options), line)
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
    prompt_is_due = args.show_prompt

    def show() -> None:
        nonlocal prompt_is_due
        result = run.results[0]
        prompt_is_due = prompt_is_due and not _print_prompt(result)
        if result.text:
            shown.show(result.text, lambda: render.live(result.text))

    watch(run, show, timeout_s=args.timeout, poll_s=POLL_S)
    result = run.results[0]
    if prompt_is_due:
        _print_prompt(result)
    if args.out:
        line.assign(args.out, result)
    if result.tokens or not result.error:
        form = args.format or line.lab.default("format")
        shown.finish(result.text, render.answer(result.text, result.footer, form), result.footer)
    run.wait()
    return result


def _print_prompt(result: Result) -> bool:
    """The exact text and ids that the engine got; False while it has not accepted them."""
    if not result.prompt_token_ids:
        return False
    print(result.prompt_text)
    print(tr("{count} token ids: {ids}", count=result.num_prompt_tokens, ids=list(result.prompt_token_ids)))
    return True
