"""%llm pause, step, resume, slow: drive the current engine by hand."""

from __future__ import annotations

from llmlab.cards import Card, seconds_text
from llmlab.language import tr
from llmlab.magics.line import Line
from llmlab.magics.verbs.targets import current
from llmlab.trace import Step


def pause(line: Line) -> object:
    engine = current()
    line.call("llmlab.current().pause", engine.pause)
    print(tr("{name} is paused. `%llm step` lets it take a step, `%llm resume` lets it run.", name=engine.name))
    return None


def step(line: Line) -> object:
    """The steps that were taken are the value."""
    steps = line.call("llmlab.current().step", current().step, line.args.n or 1)
    if not steps:
        print(
            tr(
                "Nothing to do: no request waits. Send some with `llmlab.current().batch([...])`, which returns at "
                "once."
            )
        )
        return line.shown(steps)
    columns = (tr("step"), tr("requests"), tr("tokens"), tr("took"))
    return line.show(Card("", columns, tuple(_row(step) for step in steps)), steps)


def resume(line: Line) -> object:
    engine = current()
    line.call("llmlab.current().resume", engine.resume)
    print(tr("{name} runs.", name=engine.name))
    return None


def slow(line: Line) -> object:
    engine, seconds = current(), line.args.seconds
    line.call("llmlab.current().slow", engine.slow, seconds)
    if seconds:
        print(tr("{name} waits {seconds:g} s between steps.", name=engine.name, seconds=seconds))
    else:
        print(tr("{name} runs at full speed.", name=engine.name))
    return None


def _row(step: Step) -> tuple[object, ...]:
    shares = ", ".join(f"{share.request_id} {share.phase} {share.num_tokens}" for share in step.scheduled)
    return step.step, shares or "–", step.num_scheduled_tokens, seconds_text(step.forward_s)
