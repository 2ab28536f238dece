"""What the tests of verbs type, and the engine that two of them compare and measure."""

from __future__ import annotations

from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

# the fake engine with logits, and the folder it is in
PARITY = "parity_engine:ParityEngine"
PARITY_FOLDER = str(Path(__file__).resolve().parent.parent / "parity")


def llm(shell: InteractiveShell, line: str, cell: str | None = None) -> object:
    return shell.run_line_magic("llm", line) if cell is None else shell.run_cell_magic("llm", line, cell)
