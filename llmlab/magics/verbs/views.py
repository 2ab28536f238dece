"""%llm kv, timeline, tokens: pictures of a run, and how a text is cut into tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

import llmlab
from llmlab.cards import Card
from llmlab.engines.result import Result
from llmlab.language import tr
from llmlab.magics.line import Line, Named
from llmlab.magics.verbs.targets import current

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ROWS = 200


def kv(line: Line) -> object:
    """The view is the value: `view.to_html(path)` writes it into a file."""
    return _show(line, "llmlab.kv_cache", llmlab.kv_cache)


def timeline(line: Line) -> object:
    return _show(line, "llmlab.timeline", llmlab.timeline)


def tokens(line: Line) -> object:
    """Pieces, ids and bytes of a text; of a variable with a result, its view. The ids, or the view, are the value."""
    text = line.args.text
    if not text:
        raise UsageError(tr("tokens: type a text, or the name of a variable that holds a result: `%llm tokens Hello`."))
    if isinstance(line.names.get(text), Result):
        return line.show(line.call("llmlab.tokens", llmlab.tokens, Named(text, line.names[text])))
    engine = current()
    ids = line.call("llmlab.current().tokenize", engine.tokenize, text)
    rows = [(i, token, *_piece(piece)) for i, (token, piece) in enumerate(zip(ids, engine.pieces(ids), strict=True))]
    more = (tr("{count} more are not shown.", count=len(rows) - MAX_ROWS),) if len(rows) > MAX_ROWS else ()
    count = tr("1 token in {name}" if len(rows) == 1 else "{count} tokens in {name}", count=len(rows), name=engine.name)
    return line.show(Card(count, ("", "id", tr("piece"), tr("bytes")), tuple(rows[:MAX_ROWS]), more), ids)


def _show(line: Line, name: str, function: Callable[[Any], Any]) -> object:
    if line.args.run:
        subject = Named(line.args.run, line.variable(line.args.run))
    else:
        subject = Named("llmlab.current()", current())
    return line.show(line.call(name, function, subject))


def _piece(piece: bytes) -> tuple[str, str]:
    """Its text with spaces and line ends to see, and its bytes; no text where it is part of a character."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        text = "–"
    return text.replace(" ", "·").replace("\n", "↵").replace("\t", "→"), piece.hex(" ")
