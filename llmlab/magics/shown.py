"""A value that a magic has shown already becomes `_` and Out[n] without being shown a second time.

This file must not know what is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class ShownOnce:
    """Silences the next display of one value, in the cell that runs now; later displays show it as usual."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        assert shell.display_formatter is not None
        self._formatter = shell.display_formatter.ipython_display_formatter
        self._value: object = None
        self._note = ""
        self._before: Callable[[Any], object] | None = None
        shell.events.register("post_run_cell", self.forget)

    def mark(self, value: object, note: str = "(above)") -> None:
        """`value` was shown: when IPython asks the formatters on its way to Out[n], nothing is left to do."""
        self.forget()
        if value is not None:
            self._value, self._note = value, note
            self._before = self._formatter.for_type(type(value), self._swallow)

    def forget(self, *_: object) -> None:
        if self._value is None:
            return
        kind = type(self._value)
        self._formatter.pop(kind, None)
        if self._before is not None:
            self._formatter.for_type(kind, self._before)
        self._value = self._before = None

    def close(self) -> None:
        self.forget()
        self._shell.events.unregister("post_run_cell", self.forget)

    def _swallow(self, value: object) -> None:
        is_the_one = value is self._value
        self.forget()
        if not is_the_one:
            from IPython.display import display

            display(value)
        elif not hasattr(self._shell, "kernel"):
            print(self._note)  # a terminal has written "Out[n]: " already
