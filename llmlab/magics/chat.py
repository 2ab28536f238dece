"""Conversations of `-c`: one per engine handle, one turn per cell. Running a cell again replaces its own turn.

This file must not know engines: it keeps texts.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

Message = dict[str, str]


@dataclass
class Chat:
    """Turns in the order in which their cells first ran.

    >>> chat = Chat(); chat.record("cell 1", "Hi", "Hello!"); chat.messages("cell 2", "Bye")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello!'}, {'role': 'user', 'content': 'Bye'}]
    >>> chat.messages("cell 1", "Hey")
    [{'role': 'user', 'content': 'Hey'}]
    """

    # cell -> (what the user said, what the model said)
    turns: dict[Hashable, tuple[str, str]] = field(default_factory=dict)

    def messages(self, cell: Hashable, prompt: str, system: str | None = None) -> list[Message]:
        """The turns before this cell, then the prompt."""
        found: list[Message] = [{"role": "system", "content": system}] if system else []
        for key, (said, answered) in self.turns.items():
            if key == cell:
                break
            found += [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]
        return [*found, {"role": "user", "content": prompt}]

    def record(self, cell: Hashable, prompt: str, answer: str) -> None:
        """Keep the turn of this cell, in its old place when it had one."""
        self.turns[cell] = (prompt, answer)


class CellNames:
    """Which cell a line belongs to: the id that the front end sent, else the number of the execution.

    Several lines of one cell are told apart by their order, so each finds its own turn again.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._execution: object = None
        self._lines = 0

    def next(self) -> Hashable:
        """The name of the line that asks now; call it once for each."""
        parent: Any = cast(Any, self._shell).get_parent() if hasattr(self._shell, "kernel") else {}
        execution = parent.get("header", {}).get("msg_id", self._shell.execution_count)
        self._lines = self._lines + 1 if execution == self._execution else 0
        self._execution = execution
        return parent.get("metadata", {}).get("cellId", self._shell.execution_count), self._lines
