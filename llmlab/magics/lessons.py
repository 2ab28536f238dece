"""What a broken contract looks like in a notebook: the sentence, and the KV cache as it was before that step.

This file must not know engines: it reads the trace that the error carries.
"""

from __future__ import annotations

from html import escape

from IPython.display import display

from llmlab.errors import BrokenContract
from llmlab.views.shows import kv_cache
from llmlab.views.story_view import StoryView


def html(error: BrokenContract) -> str:
    """For an error that was caught: it is the value of a cell."""
    sentence = f"<p><b>{type(error).__name__}</b>: {escape(str(error))}</p>"
    picture = _picture(error)
    return sentence + (picture.bundle()["text/html"] if picture else "")


def show_picture(error: BaseException) -> None:
    """For one that was not: IPython has shown its sentence, the picture comes below. One can step back in it."""
    if isinstance(error, BrokenContract) and (picture := _picture(error)):
        display(picture)


def _picture(error: BrokenContract) -> StoryView | None:
    """None when nothing had run yet: then the cache was empty."""
    has_run = error.trace is not None and bool(error.trace.step_records)
    return kv_cache(error.trace) if has_run else None
