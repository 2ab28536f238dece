"""What of a notebook is needed for the names that are checked: the statements that bind them, and what those use.

Runs of engines, prints and magics stay behind, so that a submission is checked in seconds and without a model. This
file must not run anything, nor know any lab.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

# A line that IPython understands and Python does not: a magic, a shell command, a question.
_IPYTHON = re.compile(r"(?P<indent>\s*)(?:[%!?]|[\w.,\s]+=\s*[%!]|[\w.]+\?{1,2}\s*$)")
# Cell magics whose cell is Python; that of any other is not.
_PYTHON_BELOW = ("%%time", "%%timeit", "%%capture", "%%prun")
# Have variables of their own.
_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_IMPORT = re.compile(r"(import|from) ")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a cell, the cells counted from 0."""

    cell: int
    text: str
    # Names that it defines or changes.
    binds: frozenset[str]
    uses: frozenset[str]
    is_definition: bool
    # `from x import *` may bind anything, `from __future__` changes all that follows.
    is_always_needed: bool = False


def as_python(cell: str) -> str:
    """A cell with its magics as `pass`.

    >>> as_python("%llm ps\\nx = 1")
    'pass\\nx = 1'

    Raises: SyntaxError for what is no Python either; ValueError for a null character.
    """
    lines = re.split(r"\r\n|\r|\n", cell)
    if cell.lstrip().startswith("%%"):
        first = next(i for i, line in enumerate(lines) if line.strip())
        is_python = lines[first].split()[0] in _PYTHON_BELOW
        lines = [*lines[:first], "pass", *(lines[first + 1 :] if is_python else [])]
    while True:
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as error:
            wrong = (error.lineno or 0) - 1
            found = _IPYTHON.match(lines[wrong]) if 0 <= wrong < len(lines) else None
            if found is None:
                raise
            lines[wrong] = f"{found['indent']}pass"
        else:
            return "\n".join(lines)


def statements_of(cells: Iterable[str]) -> list[Statement]:
    """Of cells that as_python() has read, in order."""
    return [statement for i, cell in enumerate(cells) for statement in _statements(i, cell)]


def needed(statements: Sequence[Statement], names: Iterable[str]) -> list[Statement]:
    """Those that bind the names, and those that bind what they use; in order."""
    wanted, kept, before = set(names), set[int](), -1
    while len(kept) != before:
        before = len(kept)
        for i, statement in enumerate(statements):
            if i not in kept and (statement.is_always_needed or statement.binds & wanted):
                kept.add(i)
                wanted |= statement.uses
    return [statements[i] for i in sorted(kept)]


def source_of(statements: Iterable[Statement]) -> str:
    """As one file."""
    ordered = sorted(statements, key=lambda statement: not statement.text.startswith("from __future__"))
    texts = [statement.text for statement in ordered]
    gaps = ["\n" if all(_IMPORT.match(text) for text in pair) else "\n\n\n" for pair in pairwise(texts)]
    return "".join(f"{text}{gap}" for text, gap in zip(texts, [*gaps, "\n"], strict=False))


def _statements(cell: int, text: str) -> Iterator[Statement]:
    lines = text.split("\n")
    for node in ast.parse(text).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        end = node.end_lineno or first
        behind = lines[end - 1].encode()[node.end_col_offset or 0 :].split(b"#")[0].strip()
        is_alone = not node.col_offset and not behind
        shown = "\n".join(lines[first - 1 : end]) if is_alone else ast.get_source_segment(text, node) or ""
        is_always = isinstance(node, ast.ImportFrom) and (
            node.module == "__future__" or any(alias.name == "*" for alias in node.names)
        )
        is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield Statement(cell, shown, frozenset(_bound(node)), frozenset(_used(node, shown)), is_definition, is_always)


def _bound(statement: ast.AST) -> Iterator[str]:
    """Names that a statement binds where it stands; of a class or function only its own."""
    nodes = [statement]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            yield from _base(node)  # BlockPool.free = free
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr" and node.args:
            yield from _base(node.args[0])
        if not isinstance(node, _SCOPES):
            nodes += ast.iter_child_nodes(node)


def _base(node: ast.AST) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _used(node: ast.AST, text: str) -> set[str]:
    """Names of the notebook that a statement reads; the variables of its functions are their own."""
    try:
        scopes = [symtable.symtable(text, "cell", "exec")]
    except (SyntaxError, RecursionError, MemoryError):  # rather too many
        return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    names = {symbol.get_name() for symbol in scopes[0].get_symbols() if symbol.is_referenced()}
    while scopes:
        scope = scopes.pop()
        names |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global() and symbol.is_referenced()}
        scopes += scope.get_children()
    return names
