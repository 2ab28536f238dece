"""The checks.py of a lab as a student's installation has it: hidden checks keep their names and points, not their code.

This file must not run the checks, nor know any lab.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from llmlab.labs.needed import needed, source_of, statements_of

HEADER = '"""What is asked, and how it is checked before it is handed in. Made from checks.py of the repository."""\n\n'
IMPORT = "from llmlab.labs.description import withheld"


def public_checks(checks: str) -> str:
    """The same questions; what only hidden checks need is left out.

    Raises: ValueError for a hidden check that is not written as Check(name, points, function, is_hidden=True).
    """
    lines = checks.splitlines()
    for function in sorted(_hidden_functions(checks), key=lambda node: -node.lineno):
        _replace(lines, function, "withheld")
    kept = needed(statements_of(["\n".join([IMPORT, *lines])]), {"LAB"})
    return HEADER + source_of(kept)


def _hidden_functions(checks: str) -> Iterator[ast.expr]:
    """The third argument of each hidden Check(...)."""
    for node in ast.walk(ast.parse(checks)):
        if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Check":
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        is_hidden = given.get("is_hidden")
        if is_hidden is None and len(node.args) == 3:
            continue
        if len(node.args) != 3 or not isinstance(is_hidden, ast.Constant):
            raise ValueError(f"line {node.lineno}: write Check(name, points, function, is_hidden=True)")
        if is_hidden.value:
            yield node.args[2]


def _replace(lines: list[str], node: ast.expr, text: str) -> None:
    """Columns are counted in bytes."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    before = lines[first].encode()[: node.col_offset].decode()
    after = lines[last].encode()[node.end_col_offset or 0 :].decode()
    lines[first : last + 1] = [f"{before}{text}{after}"]
