"""What is handed in is read as far as it goes, and only what the checks need is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_lab import notebook_text, with_large_output

from llmlab.labs import handed_in
from llmlab.labs.handed_in import read
from llmlab.labs.needed import as_python, needed, source_of, statements_of


def read_text(folder: Path, text: str, name: str = "a.ipynb") -> handed_in.HandedIn:
    (folder / name).write_text(text)
    return read(folder / name)


DAMAGED = {
    "empty file": ("", (), "a.ipynb is no notebook (Expecting value"),
    "no notebook": ("Dear teacher, ...", (), "a.ipynb is no notebook (Expecting value"),
    "a number": ("7", (), "a.ipynb is no notebook (it has no list of cells)"),
    "no cells": (notebook_text(), (), "a.ipynb has no code in it"),
    "empty cells": (notebook_text("", " "), ("", " "), "a.ipynb has no code in it"),
    "cut off": (notebook_text("x = 1", "y = 2", "z = 3")[:-250], ("x = 1", "y = 2"), "2 of its cells could be read"),
    "another kernel": (notebook_text("x = 1", kernel="ir", language="R"), ("x = 1",), "written for the kernel ir"),
    "no Python": (notebook_text("x = 1", "if x"), ("x = 1", ""), "Code cell 2 is left out: SyntaxError in line 1"),
    "null bytes": (notebook_text("x = 1", "\0"), ("x = 1", ""), "Code cell 2"),
    "cells that are none": ('{"cells": [1, null, {"cell_type": "code", "source": 5}]}', ("5",), ""),
    "version 3": (
        json.dumps({"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": ["x = ", "1"]}]}]}),
        ("x = 1",),
        "",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_notebook_is_read_as_far_as_it_goes_and_it_says_so(tmp_path: Path, name: str):
    text, cells, note = DAMAGED[name]
    found = read_text(tmp_path, text)
    assert found.cells == cells and note in " ".join(found.notes)
    assert bool(found.notes) == bool(note)


def test_a_large_output_is_told_and_a_huge_file_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = with_large_output(notebook_text("x = 1"), 20_000_000)
    found = read_text(tmp_path, text)
    assert found.cells == ("x = 1",) and found.notes == ("a.ipynb has 20 MB, most of them outputs.",)
    monkeypatch.setattr(handed_in, "MOST_BYTES", 1_000_000)
    assert "has 20 MB and was not read" in read_text(tmp_path, text).notes[0]
    assert "cannot be read" in read(tmp_path / "gone.ipynb").notes[0]


def test_a_python_file_has_cells_or_is_one(tmp_path: Path):
    text = "# %% [markdown]\n# hello\n\n# %%\nx = 1\n# %%\nx = \n"
    found = read_text(tmp_path, text, "a.py")
    assert (
        found.source_for(["x"])[0].strip() == "x = 1"
        and "Code cell 4 is left out: SyntaxError in line 2" in found.notes[0]
    )


def test_magics_are_passed_over_wherever_python_allows_no_percent_sign():
    assert as_python("%llm ps\nfor i in x:\n    !ls\ny = %who\nz?\nm = (5\n  % 2)") == (
        "pass\nfor i in x:\n    pass\npass\npass\nm = (5\n  % 2)"
    )
    assert as_python("%%time\nx = 1") == "pass\nx = 1"
    assert as_python("%%bash\nrm -rf x") == "pass"
    with pytest.raises(SyntaxError):
        as_python("x = (")


def test_only_what_the_names_need_is_run():
    cells = [
        "from __future__ import annotations",
        "import os, sys\nimport numpy as np",
        "SIZE = 4  # of a block\nengine = load('big')\nrun = engine.batch(5)",
        "def ceil(n):\n    local = 5\n    return -(-n // SIZE) * local // local",
        "@np.vectorize\ndef decorated(x): return x",
        "class Pool:\n    def need(self, n): return ceil(n)",
        "local = os.system('rm')\nprint(Pool().need(5)); other = [local for local in (1,)]",
        "Pool.free = lambda self: sys.path\nsetattr(Pool, 'size', other)",
        "try:\n    import json\nexcept ImportError:\n    json = None",
    ]
    kept = source_of(needed(statements_of(cells), ["Pool"]))
    assert kept == (
        "from __future__ import annotations\nimport os, sys\n\n\nSIZE = 4  # of a block\n\n\n"
        "def ceil(n):\n    local = 5\n    return -(-n // SIZE) * local // local\n\n\n"
        "class Pool:\n    def need(self, n): return ceil(n)\n\n\nother = [local for local in (1,)]\n\n\n"
        "Pool.free = lambda self: sys.path\n\n\nsetattr(Pool, 'size', other)\n"
    )
    assert "@np.vectorize\ndef decorated" in source_of(needed(statements_of(cells), ["decorated"]))
    assert "import json" in source_of(needed(statements_of(cells), ["json"]))


def test_a_name_defined_twice_counts_once_and_it_says_so(tmp_path: Path):
    text = notebook_text("def f(): return 1", "%llm lab check", "def f(): return 2")
    source, notes = read_text(tmp_path, text).source_for(["f", "g"])
    names: dict[str, object] = {}
    exec(source, names)
    assert names["f"]() == 2  # type: ignore[operator]
    assert notes == ("f is defined in the code cells 1, 3: the last one counts.",)
