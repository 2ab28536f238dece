"""{name} in a prompt becomes its value, when the notebook has that name; every other brace stays as it is.

This file must not know any engine, verb or notebook: it sees a text and a namespace.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

from IPython.core.error import UsageError

from llmlab.language import tr
from llmlab.magics.parsing import did_you_mean

# A format such as .2f, >10, 05d or %Y-%m-%d. Narrow on purpose: {x: 1} and {x:string} are code, not fields.
_SPEC = r"(?:.?[<>=^])?[-+]?#?0?\d*[_,]?(?:\.\d+)?[bcdeEfFgGnosxX%]?|%[A-Za-z%][^{}]*"
_FIELD = re.compile(
    rf"(?P<double>\{{)?\{{(?P<root>[^\W\d]\w*)(?P<path>(?:\.[^\W\d]\w*|\[[^\[\]{{}}\n]+\])*)"
    rf"(?:!(?P<conversion>[rsa]))?(?::(?P<spec>{_SPEC}))?\}}(?(double)(?P<closed>\}})?)"
)
_CONVERSIONS: dict[str, Callable[[Any], str]] = {"r": repr, "s": str, "a": ascii}


def interpolate(text: str, namespace: Mapping[str, Any], *, strict: bool = False) -> str:
    """`text` with {name}, {name.attr}, {name[...]} and {x:.2f} replaced where the namespace has `name`.

    {{name}} gives {name}. Values are not expanded again. With `strict`, a name that is missing is an error.

    >>> interpolate('{n} of {"a": {"b": 1}}, {unknown} and {{n}}', {"n": 3})
    '3 of {"a": {"b": 1}}, {unknown} and {n}'

    Raises: UsageError when a field cannot be computed, or (strict) its name is missing.
    """

    def value_of(match: re.Match[str]) -> str:
        if match["root"] not in namespace:
            if strict and not match["closed"]:
                near = did_you_mean(match["root"], namespace)
                raise UsageError(
                    tr("--strict: no variable {name!r} for {field}.", name=match["root"], field=match[0]) + near
                )
            return match[0][1:-1] if strict else match[0]
        if match["closed"]:
            return match[0][1:-1]
        return (match["double"] or "") + _format(match, namespace)

    return _FIELD.sub(value_of, text)


def _format(match: re.Match[str], namespace: Mapping[str, Any]) -> str:
    field = match[0].lstrip("{").rstrip("}")
    try:
        value = _follow(match["root"] + match["path"], namespace)
        if match["conversion"]:
            value = _CONVERSIONS[match["conversion"]](value)
        return format(value, match["spec"] or "")
    except Exception as error:  # whatever an attribute, an index or a __format__ of the user raises
        raise UsageError(
            tr(
                "{{{field}}} in the prompt: {kind}: {error}. {{{{{field}}}}} or --no-expand sends the braces as they "
                "are.",
                field=field,
                kind=type(error).__name__,
                error=error,
            )
        ) from None


def _follow(expression: str, namespace: Mapping[str, Any]) -> Any:
    """The value behind name.attr[index]...; an index may be a literal, a slice, or a name of the namespace."""
    try:
        tree: ast.expr = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise ValueError(tr("{text!r} is not a name with attributes and indices", text=expression)) from None
    return _value(tree, namespace)


def _value(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(name):
            if name not in namespace:
                raise NameError(tr("no variable {name!r}", name=name))
            return namespace[name]
        case ast.Attribute(owner, name):
            return getattr(_value(owner, namespace), name)
        case ast.Subscript(owner, index):
            return _value(owner, namespace)[_value(index, namespace)]
        case ast.Slice(lower, upper, step):
            return slice(*(None if part is None else _value(part, namespace) for part in (lower, upper, step)))
        case ast.Tuple(elements):
            return tuple(_value(element, namespace) for element in elements)
        case _:
            return ast.literal_eval(node)
