"""The wrong solutions are read, not collected: each stands below the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_lab import write_small_lab

from llmlab.labs import finding
from llmlab.labs.description import Lab
from llmlab.labs.finding import load_lab

collect_ignore_glob = ["wrong/*"]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The small lab, the only one there is."""
    labs = tmp_path / "labs"
    folder = write_small_lab(labs)
    monkeypatch.setattr(finding, "LABS", labs)
    return load_lab(folder)
