"""`%llm Why is the sky blue?` is a prompt: IPython would take it for a request for help on `blue`, because of its end.

`%llm?` is still a request for help. This file must not know verbs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from IPython.core.inputtransformer2 import EscapedCommand, MagicAssign

if TYPE_CHECKING:
    from tokenize import TokenInfo

    from IPython.core.interactiveshell import InteractiveShell

_LINE = re.compile(r"\s*%(?:llm|llmlab)\s")
_ASSIGNMENT = re.compile(r"\s*[\w.,\[\]'\" ]+=\s*(?=%(?:llm|llmlab)\s)")


class _PromptLine(EscapedCommand):
    """%llm at the start of a line, found before IPython's HelpEnd (priority 5) looks at the end of that line."""

    priority = 1

    @classmethod
    def find(cls, tokens_by_line: list[list[TokenInfo]]) -> Any:
        token = next((t for t in map(_first, tokens_by_line) if t and t.string == "%" and _LINE.match(t.line)), None)
        return token and cls(token.start)


class _PromptAssignment(MagicAssign):
    """x = %llm ... It starts where HelpEnd starts, at the beginning of the line, so that the priority decides."""

    priority = 1
    magic_col = 0

    @classmethod
    def find(cls, tokens_by_line: list[list[TokenInfo]]) -> Any:
        for token in filter(None, map(_first, tokens_by_line)):
            if match := _ASSIGNMENT.match(token.line):
                found = cls(token.start)
                found.magic_col = match.end()
                return found
        return None

    def transform(self, lines: list[str]) -> list[str]:
        self.start_col = self.magic_col
        return super().transform(lines)


def _first(line: list[TokenInfo]) -> TokenInfo | None:
    return next((token for token in line if token.string.strip()), None)


def install(shell: InteractiveShell) -> None:
    shell.input_transformer_manager.token_transformers += [_PromptLine, _PromptAssignment]


def remove(shell: InteractiveShell) -> None:
    manager = shell.input_transformer_manager
    manager.token_transformers = [t for t in manager.token_transformers if t not in (_PromptLine, _PromptAssignment)]
