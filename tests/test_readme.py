"""What the README shows runs, and what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# (language, text) of each fenced block: the commands, the program, the tree
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS, PROGRAM, TREE = (text for _, text in BLOCKS)


def test_the_program_is_eight_lines_of_python():
    assert [language for language, _ in BLOCKS] == ["", "python", ""]
    assert len([line for line in PROGRAM.splitlines() if line]) == 8


@pytest.mark.slow
def test_the_eight_lines_run_and_print_an_answer_and_its_steps(tmp_path: Path):
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode == 0, result.stderr
    assert re.search(r"\[\d+ rows x \d+ columns\]", result.stdout), result.stdout


def test_each_make_target_it_names_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"make (\w+)", README))
    assert {"lab", "test", "demo", "check"} <= named
    assert {target for target in named if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)} == set()


def test_each_path_of_the_tree_exists():
    folder, missing = ROOT, []
    for line in TREE.splitlines():
        path = (folder if line.startswith(" ") else ROOT) / line.split()[0]
        if not line.startswith(" "):
            folder = path
        if not path.exists():
            missing.append(path)
    assert missing == []
