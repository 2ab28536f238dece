"""%llm class: join the class that a lecturer has opened, and see what all of it does to the engine."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

from IPython.core.error import UsageError

import llmlab
from llmlab.language import tr
from llmlab.magics.line import Line
from llmlab.magics.verbs.serving import connect

# Where JupyterHub puts them (deploy/jupyterhub/).
URL, KEY = "LLMLAB_CLASS_URL", "LLMLAB_CLASS_KEY"


def join(line: Line) -> object:
    """The handle is the value: the class's engine, which answers from here on. Below its card is the batch, live."""
    args = line.args
    url = args.url or os.environ.get(URL)
    if not url:
        raise UsageError(tr("Which class? Type its URL: `%llm class http://host:8000`. Your lecturer knows it."))
    asked = SimpleNamespace(
        url=url, kind=None, model=None, api_key_env=args.api_key_env or KEY, timeout=None, seed=None, ctx=None,
        keep_alive=None, pull=False, trace=True, trace_token_env=None, show_code=args.show_code, **{"as": None},
    )  # fmt: skip
    far = connect(replace(line, args=asked))
    return line.show(llmlab.watch(far), far)
