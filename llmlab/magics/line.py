"""Line: one typed line on its way to its action, and the one public call that it makes.

This file must not know any verb.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.error import UsageError

from llmlab.language import tr
from llmlab.magics.interpolate import interpolate
from llmlab.magics.options import Verb
from llmlab.magics.parsing import did_you_mean

if TYPE_CHECKING:
    from llmlab.magics.llmlab_magics import LLMLab

T = TypeVar("T")


class CodeShown(Exception):
    """The line asked for its Python call only; it was printed."""


@dataclass(frozen=True, slots=True)
class Named:
    """A value that stands in a variable: the printed call names the variable."""

    name: str
    value: Any


@dataclass(frozen=True)
class Line:
    """What an action gets: the values of the flags, the cell below, and what surrounds them."""

    lab: LLMLab
    verb: Verb
    args: SimpleNamespace
    cell: str | None
    # The user's variables.
    names: Mapping[str, Any]

    def call(self, name: str, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Make the public call behind this line; with --show-code print it instead.

        `name` is how `function` is written after `import llmlab`, or the whole call with {} for its arguments. None
        among `kwargs` means: not given.

        Raises: CodeShown after the call was printed.
        """
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        if self.args.show_code:
            print(call_code(name, args, kwargs, assign_to=getattr(self.args, "out", None)))
            raise CodeShown
        return function(*map(_value, args), **{key: _value(value) for key, value in kwargs.items()})

    def show(self, view: object, value: object = None) -> object:
        """Display `view` now. The value of the line, `value` or the view itself, is not displayed again."""
        from IPython.display import display

        display(view)
        return self.shown(view if value is None else value)

    def shown(self, value: object) -> object:
        quiet = getattr(self.args, "quiet", False)
        self.lab.shown_once.mark(value, note="" if quiet else "(above)")
        return value

    def expanded(self, prompt: str) -> str:
        """The prompt with its {names} filled in, as --no-expand and --strict want it."""
        if self.args.no_expand:
            return prompt
        return interpolate(prompt, self.names, strict=self.args.strict)

    def system(self) -> str | None:
        """The system message of -s, where @name stands for a variable; else the default one."""
        given = self.args.system
        if given is None:
            return None if self.args.raw_prompt else self.lab.default("system")
        return str(self.variable(given[1:])) if given.startswith("@") else given

    def assign(self, name: str, value: object) -> None:
        self.lab.shell.push({name: value})

    def variable(self, name: str) -> Any:
        """The value of a variable that a flag names.

        Raises: UsageError with close names.
        """
        if name not in self.names:
            raise UsageError(tr("No variable {name!r} in this notebook.", name=name) + did_you_mean(name, self.names))
        return self.names[name]


def call_code(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], assign_to: str | None = None) -> str:
    """A call as Python source that runs on its own, but for the variables that Named values name.

    >>> print(call_code("llmlab.load", ("smollm2-135m",), {"quant": "F16"}))
    import llmlab
    llmlab.load('smollm2-135m', quant='F16')
    """
    call = (name if "{}" in name else f"{name}({{}})").replace("{}", arguments_code(args, kwargs), 1)
    return f"import llmlab\n{assign_to} = {call}" if assign_to else f"import llmlab\n{call}"


def arguments_code(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """What stands between the brackets of a call.

    >>> arguments_code(("smollm2-135m",), {"quant": "F16"})
    "'smollm2-135m', quant='F16'"
    """
    return ", ".join([*map(_source, args), *(f"{key}={_source(value)}" for key, value in kwargs.items())])


def _source(value: Any) -> str:
    return value.name if isinstance(value, Named) else repr(value)


def _value(value: Any) -> Any:
    return value.value if isinstance(value, Named) else value


def action_of(verb: Verb) -> Callable[[Line], object]:
    """The function behind a verb; its module is imported when it is first used."""
    module, _, function = verb.action.partition(":")
    return getattr(importlib.import_module(f"llmlab.magics.verbs.{module}"), function)
