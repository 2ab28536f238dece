"""What a student wrote, on its way to the process that checks it: as pickled names of a notebook, or as source text.

This file must not know any lab, nor how long anything may take.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import cloudpickle

# Source text that came without a file.
YOUR_CODE = "<your code>"


@dataclass(frozen=True, slots=True)
class Submission:
    """Either `pickled` names, or the source of one file under YOUR_CODE; `files` holds source texts by file name."""

    files: Mapping[str, str] = field(default_factory=dict)
    pickled: bytes | None = None

    def names(self) -> dict[str, Any]:
        """What the student defined. Runs his code: only for the process that checks it."""
        for name, text in self.files.items():  # tracebacks and inspect find the lines there
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        if self.pickled is not None:
            return dict(pickle.loads(self.pickled))
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(self.files[YOUR_CODE], YOUR_CODE, "exec"), names)
        return names


def from_source(text: str) -> Submission:
    return Submission({YOUR_CODE: text})


def from_names(names: Mapping[str, Any], needed: Iterable[str]) -> Submission:
    """Those of the needed names that are defined, with all that they use.

    Raises: what pickle raises, for a class that uses an engine or an open file.
    """
    present = {name: names[name] for name in needed if name in names}
    files = {name: text for value in present.values() for name, text in sources_of(value)}
    return Submission(files, cloudpickle.dumps(present))


def sources_of(value: Any) -> Iterator[tuple[str, str]]:
    """File name and text of each cell or file in which functions of a value were written."""
    for function in _functions_of(value):
        if lines := linecache.getlines(function.__code__.co_filename):
            yield function.__code__.co_filename, "".join(lines)


def _functions_of(value: Any) -> Iterator[FunctionType]:
    """A function, or those of a class."""
    for part in vars(value).values() if isinstance(value, type) else (value,):
        function = inspect.unwrap(getattr(part, "fget", None) or getattr(part, "__func__", part))
        if isinstance(function, FunctionType):
            yield function


def forbidden_import(submission: Submission, forbidden: Sequence[str]) -> str | None:
    """The first module among `forbidden` that the source texts import, or reach by its full name."""
    for text in submission.files.values():
        try:
            tree = ast.parse(
                "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in text.split("\n"))
            )
        except SyntaxError:  # it says so itself when it runs
            continue
        for name in _imported(tree):
            found = next((module for module in forbidden if f"{name}.".startswith(f"{module}.")), None)
            if found is not None:
                return found
    return None


def forbidden_base(value: Any, forbidden: Sequence[str]) -> str | None:
    """The module among `forbidden` that a class, one that it inherits from, or what its functions name comes from."""
    used = [*getattr(value, "__mro__", (value,))]
    for function in _functions_of(value):
        known = function.__globals__
        used += [known[name] for name in function.__code__.co_names if name in known]
    modules = [getattr(one, "__module__", None) or getattr(one, "__name__", None) for one in used]
    return next((module for module in forbidden if module in modules), None)


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield from [str(node.args[0].value)] if called in ("import_module", "__import__") else []
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)
