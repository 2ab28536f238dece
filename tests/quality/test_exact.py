"""Exact answers: what counts as right, the interval, files with broken lines; and the checksums of all data files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from llmlab.errors import RequestError
from llmlab.quality.exact import QUESTIONS, Answered, ExactAnswers, Question, is_right, read_questions
from llmlab.shipped import shipped


@pytest.mark.parametrize(
    ("text", "answers", "right"),
    [
        ("Paris", ["Paris"], True),
        ("The capital is **paris**.", ["Paris"], True),
        ("6", ["6", "six"], True),
        ("Six!", ["6", "six"], True),
        ("16", ["6", "six"], False),
        ("Lyon\nParis", ["Paris"], False),
        ("", ["Paris"], False),
        ("Atlantic Ocean", ["Atlantic"], True),
    ],
)
def test_an_answer_is_right_when_its_first_line_says_it_as_a_word(text: str, answers: list[str], right: bool):
    assert is_right(text, answers) is right


def test_the_interval_is_wilsons():
    answered = tuple(Answered(Question("?", ("x",)), "x" if i < 18 else "y", i < 18) for i in range(24))
    low, high = ExactAnswers("a", answered).interval
    # 18 of 24: 0.551 to 0.880, worked out by hand
    assert (round(low, 3), round(high, 3)) == (0.551, 0.880)


def test_no_shipped_question_holds_its_own_answer_and_none_is_asked_twice():
    questions = read_questions(shipped(QUESTIONS))
    assert len(questions) == len({q.question for q in questions}) == 24
    leaking = [q.question for q in questions if is_right(q.question, q.answers)]
    assert leaking == ['What is the first word of this sentence: "Ships come in with the tide"? Answer with one word.']


def test_a_broken_line_is_named_by_its_number(tmp_path: Path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "1+1?", "answers": ["2"]}\n\n{"question": "?"}\n')
    with pytest.raises(RequestError, match=r"line 3: .*answers"):
        read_questions(path)


def test_every_data_file_has_the_checksum_that_its_readme_says():
    readme = (shipped("README.md")).read_text()
    said = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|", readme, flags=re.MULTILINE))
    root = shipped("README.md").parent
    folders = ("texts", "quality", "claims", "workloads")
    files = [f for folder in folders for f in sorted((root / folder).iterdir()) if f.suffix != ".md"]
    found = {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    assert said == found
