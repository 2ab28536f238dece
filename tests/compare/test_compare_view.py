"""What a page and a twin get of a comparison: the answers, the marks, and no markup of anybody."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from compare_support import Load, compare

import llmlab
from llmlab.compare import Comparison
from llmlab.errors import LlmlabError
from llmlab.views import presence
from llmlab.views.compare_data import compare_data
from llmlab.views.compare_widget import CompareWidget
from tests.views.live_support import until

HOSTILE = "<img src=x onerror=alert(1)>"


def test_cells_have_the_tokens_and_where_they_part(load: Load):
    data = compare_data(compare(load("a"), load("b", part_at=2)))
    assert [[text for text, _ in cell["tokens"]] for cell in data["cells"][0]] == [list("abcdefgh"), list("abXdefgh")]
    assert [cell.get("differs_at") for cell in data["cells"][0]] == [None, 2]
    assert data["cells"][0][1]["changed"] == [[[0, 8]], [[0, 8]]]
    (parting,) = data["head"]["partings"]
    assert (parting["prompt"], parting["b"], parting["index"], parting["tokens"]) == (0, 1, 2, ["c", "X"])
    assert data["head"]["subtitle"].endswith("greedy · one after the other, so speeds compare")


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({"temperature": [0, 1]}, "Same prompt, two settings"),
        ({"quant": ["F16", "Q8_0", "Q4_0"]}, "three quantizations"),
    ],
)
def test_the_title_says_what_is_not_the_same(load: Load, options: dict[str, Any], title: str):
    found = compare(load("a", quant="F16"), **options)
    assert title in compare_data(found)["head"]["title"]


def test_news_are_sent_once_and_only_what_is_new(load: Load):
    found = compare(load("a"), load("b"), prompts=["abc", "def"])
    view = found.view
    sent: list[dict[str, Any]] = []
    view._send = sent.append
    view._send_news()
    assert [(cell["i"], cell["j"]) for cell in sent[0]["cells"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    view._send_news()
    assert len(sent) == 1


def num_tokens_of(found: Comparison) -> int:
    """Of the first answer, so far."""
    return len(compare_data(found)["cells"][0][0]["tokens"])


def test_a_page_that_is_gone_gets_no_news_and_all_it_missed_when_it_is_back(
    load: Load, monkeypatch: pytest.MonkeyPatch
):
    slow = {"step_s": 0.02}
    found = compare(load("a", **slow), load("b", **slow), prompts="abcdefgh" * 20, max_tokens=120, wait=False)
    view, sent = found.view, list[dict[str, Any]]()
    monkeypatch.setattr(CompareWidget, "send", lambda self, content, buffers: sent.append(json.loads(buffers[0])))
    widget = view.widget
    view.follow()
    assert widget.is_live
    until(lambda: sum(len(message["cells"]) for message in sent) > 2)
    monkeypatch.setattr(presence, "PATIENCE_S", 0.0)
    time.sleep(0.3)  # a message may be on its way
    num_sent, num_tokens = len(sent), num_tokens_of(found)
    until(lambda: num_tokens_of(found) > num_tokens + 20)
    assert len(sent) == num_sent
    monkeypatch.setattr(presence, "PATIENCE_S", 90.0)
    until(lambda: len(sent) > num_sent)
    (cell,) = sent[num_sent]["cells"]
    before = [cell for message in sent[:num_sent] for cell in message["cells"]]
    assert cell["from"] == sum(len(cell["tokens"]) for cell in before) and len(cell["tokens"]) > 20
    found.wait()
    until(lambda: sent[-1]["t"] == "k" and not widget.is_live)


def test_the_twin_has_texts_figures_marks_and_causes_without_a_script(load: Load):
    found = compare(load("a"), load("b", part_at=2))
    html = found.view.html()
    text = re.sub(r"<[^>]+>", "", html)
    assert "ab◆ c" in text and "ab◆ X" in text
    assert "First difference: token 2" in text
    assert "tok/s" in text and "Causes, tested" not in text
    assert not re.search(r"<script|<style|src=", html)
    assert found.view.bundle()["text/plain"] == repr(found)


def test_of_many_prompts_the_twin_has_a_summary_and_the_first_that_parts_open(load: Load):
    found = compare(load("a"), load("b", part_at=4), prompts=["ab", "abcdefgh"], max_tokens=[2, 8])
    html = found.view.html()
    assert html.count("<details") >= 2
    assert html.count("<details open") == 1
    assert "answers</th>" in html


def test_words_that_differ_are_underlined_and_probabilities_are_told(load: Load):
    found = compare(load("a"), load("b", part_at=2), prompts="ab cd ef")
    assert "<u " in llmlab.side_by_side(found, mode="diff").html()
    assert "<u " not in llmlab.side_by_side(found, mode="text").html()


def test_names_prompts_and_answers_are_never_markup(load: Load, tmp_path: Path):
    found = compare(load(f"a{HOSTILE}"), load("b", part_at=3), prompts=HOSTILE, max_tokens=40)
    html = found.view.html()
    assert "<img" not in html and "&lt;img" in html
    page = found.to_html(tmp_path / "page.html").read_text()
    assert "<img" not in page
    data = json.loads(re.search(r'id="llmlab-data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert data["head"]["prompts"] == [HOSTILE]


def test_a_page_of_many_prompts_shows_the_first_and_says_so(load: Load, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmlab.views.compare_data.MAX_PROMPTS", 2)
    data = compare_data(compare(load("a"), load("b"), prompts=["a", "b", "c"], max_tokens=1))
    assert (len(data["cells"]), len(data["head"]["prompts"])) == (2, 2)
    assert data["head"]["notes"] == ["The first 2 of 3 prompts are shown; `.table()` has all."]


def test_a_late_click_does_no_harm_and_a_vote_reaches_the_comparison(load: Load):
    found = compare(load("a"), load("b"), blind=True)
    view = found.view
    view.answer({"t": "vote", "prompt": 0, "choice": "Z"})
    view.answer({"t": "vote", "prompt": 9, "choice": "A"})
    assert found.votes == []
    view.answer({"t": "vote", "prompt": 0, "choice": "A"})
    assert [vote.prompt for vote in found.votes] == [0]
    view.answer({"t": "stop", "column": 7})


def test_anything_else_is_refused_with_what_would_do():
    with pytest.raises(LlmlabError, match="shows a comparison, not an object of type int"):
        llmlab.side_by_side(3)


def test_a_twin_of_what_goes_on_says_so_and_calls_nothing_equal_that_is_not_there(load: Load):
    found = compare(load("a", step_s=0.02), load("b", step_s=0.02), prompts=["abc", "def"], max_tokens=500, wait=False)
    html = found.view.html()
    assert "had not ended when this notebook was saved" in html and "equal</span>" not in html
    found.stop()
    found.wait()
    assert "had not ended" not in found.view.html()
