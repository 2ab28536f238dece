"""Where prompts come from: what can be used is used, and what cannot is told by its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmlab.compare import prompt_set
from llmlab.errors import RequestError

CONVERSATION = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("one", ("one",)),
        (["one", "two"], ("one", "two")),
        (("one", CONVERSATION), ("one", CONVERSATION)),
        (CONVERSATION, (CONVERSATION,)),
        ([5, 6, 7], ([5, 6, 7],)),
        ({"prompt": "one", "max_tokens": 3}, ({"prompt": "one", "max_tokens": 3},)),
        (pd.DataFrame({"prompt": ["one", "two"]}), ("one", "two")),
        (pd.Series(["one", "two"]), ("one", "two")),
    ],
    ids=["text", "list", "mixed", "conversation", "token ids", "request", "table", "series"],
)
def test_whatever_is_in_hand_becomes_prompts(given: Any, prompts: tuple[Any, ...]):
    assert prompt_set(given).prompts == prompts


def test_an_empty_field_of_a_table_is_left_out_by_its_row():
    found = prompt_set(pd.DataFrame({"question": ["one", None, "two"]}), column="question")
    assert found.prompts == ("one", "two")
    assert found.note.startswith("1 row was left out of the list: row 2: no prompt, but ")


def test_a_file_keeps_its_good_lines_and_tells_the_broken_ones_by_number(tmp_path: Path):
    lines = [
        '"one"', '{"prompt": "two", "id": 7}', "{broken", "", '{"text": "three"}', "12", b"\xff\xfe".decode("latin-1"),
        json.dumps({"messages": CONVERSATION}), '""',
    ]  # fmt: skip
    path = tmp_path / "set.jsonl"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    found = prompt_set(path)
    assert found.prompts == ("one", "two", CONVERSATION)
    assert [number for number, _ in found.problems] == [3, 5, 6, 7, 9]
    assert dict(found.problems)[5] == "no 'prompt'; it has 'text'"
    assert found.note.startswith("5 lines were left out of set.jsonl: line 3: no JSON (Expecting property name")


def test_a_file_of_50_megabytes_is_read_line_by_line_and_its_broken_lines_are_told(tmp_path: Path):
    path = tmp_path / "large.jsonl"
    padding = "x" * 10_000
    with path.open("w") as file:
        for number in range(1, 5001):
            broken = number % 1000 == 0
            file.write("{no json\n" if broken else json.dumps({"prompt": f"p{number}", "note": padding}) + "\n")
    assert path.stat().st_size > 50_000_000 - 100_000
    found = prompt_set(str(path))
    assert len(found.prompts) == 4995
    assert [number for number, _ in found.problems] == [1000, 2000, 3000, 4000, 5000]
    assert prompt_set(path, limit=3).prompts == ("p1", "p2", "p3")


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        ([], {}, "the set is empty"),
        (["", None], {}, "the set is empty. 2 rows were left out of the list: row 1"),
        ("missing.jsonl", {}, "Cannot read missing.jsonl: No such file"),
        (pd.DataFrame({"promt": ["one"]}), {}, "Unknown column 'prompt'. Known: promt. Did you mean 'promt'?"),
        (7, {}, "Prompts are a text, a list, a DataFrame or a .jsonl file; got int"),
        (["one"], {"limit": 0}, "limit is 0"),
    ],
    ids=["empty", "nothing usable", "no file", "no column", "a number", "limit"],
)
def test_what_holds_no_prompt_is_refused_with_what_would_do(given: Any, options: dict[str, Any], says: str):
    with pytest.raises(RequestError) as caught:
        prompt_set(given, **options)
    assert says in str(caught.value)
