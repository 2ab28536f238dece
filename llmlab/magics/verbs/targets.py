"""Who a prompt goes to, and with which sampling: what %llm, %%llm and %%llm batch have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

import llmlab
from llmlab.language import tr
from llmlab.magics.chat import Chat
from llmlab.magics.line import Line, Named
from llmlab.magics.parsing import did_you_mean

if TYPE_CHECKING:
    from llmlab.engines.handle import EngineHandle

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "stop", "logprobs")


@dataclass(frozen=True)
class Target:
    """An engine, its conversation, and the Python that names it after `import llmlab`."""

    handle: EngineHandle
    chat: Chat
    code: str

    @property
    def name(self) -> str:
        return self.handle.name


def target_of(line: Line, name: str | None = None) -> Target:
    """The engine of that name, else the current one, else the default model, which is loaded now.

    Raises: UsageError for a name that is not loaded; LlmlabError when the default model cannot be loaded.
    """
    if name is not None:
        handle, code = loaded(name), f"llmlab.handles()[{name!r}]"
    elif (current := llmlab.current()) is not None:
        handle, code = current, "llmlab.current()"
    else:
        handle, code = _load_default(line), "llmlab.current()"
    return Target(handle, line.lab.chats.setdefault(handle, Chat()), code)


def loaded(name: str) -> EngineHandle:
    """The loaded engine of that name.

    Raises: UsageError with the names that are loaded.
    """
    handles = llmlab.handles()
    if name not in handles:
        names = ", ".join(sorted(handles))
        known = tr("Loaded: {names}.", names=names) if handles else tr("None is loaded.")
        hint = did_you_mean(name, handles) or tr(" Load one: `%llm load MODEL --as NAME`.")
        raise UsageError(f"{tr('No engine {name!r}.', name=name)} {known}{hint}")
    return handles[name]


def _load_default(line: Line) -> EngineHandle:
    model, engine = line.lab.default("default_model"), line.lab.default("default_engine")
    print(tr("No engine is loaded: loading {model} (`%llm load MODEL` chooses another).", model=model))
    return llmlab.load(model, engine=engine)


def sampling_options(line: Line) -> dict[str, Any]:
    """Keyword arguments of generate() and batch() from the flags, then the defaults; None means: not given."""
    args = line.args
    options = {name: getattr(args, name) for name in _SAMPLING}
    for name in ("temperature", "max_tokens", "seed"):
        if options[name] is None:
            options[name] = line.lab.default(name)
    if args.schema:
        options["json_schema"] = Named(args.schema, line.variable(args.schema))
    return {**options, "raw": args.raw_prompt or None}


def current() -> EngineHandle:
    """The engine that answers now.

    Raises: UsageError when none is loaded.
    """
    handle = llmlab.current()
    if handle is None:
        raise UsageError(tr("No engine is loaded. Type `%llm load smollm2-135m`."))
    return handle
