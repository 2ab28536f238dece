"""What a model wrote is data: it reaches the page as text, whatever it says."""

from __future__ import annotations

import html
import re

import pytest

from llmlab.magics import render
from llmlab.magics.defaults import FORMATS

HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> ![p](http://tracker/p.png) "
    "[link](javascript:alert(3)) </pre></div><iframe src='http://x'></iframe>"
)


def tags(page: str) -> set[str]:
    return set(re.findall(r"<(/?\w+)", page))


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in ("html", "raw")])
def test_no_tag_of_a_model_becomes_a_tag_of_the_page(form: str):
    page = render.answer(HOSTILE, "footer", form)["text/html"]
    assert not tags(page) & {"script", "img", "iframe"}
    assert "javascript:alert" not in "".join(re.findall(r'href="([^"]*)"', page))
    assert "alert(1)" in html.unescape(page)


def test_html_of_a_model_is_shown_in_a_frame_that_can_do_nothing():
    page = render.answer(HOSTILE, "footer", "html")["text/html"]
    assert tags(page) <= {"div", "/div", "iframe", "/iframe"}
    assert page.count("<iframe") == 1
    assert 'sandbox=""' in page
    source = html.unescape(re.search(r'srcdoc="([^"]*)"', page)[1])
    assert source.startswith('<meta http-equiv="Content-Security-Policy" content="default-src \'none\'')


def test_markdown_is_rendered():
    page = render.answer("# Sky\n\n- **blue**\n\n|a|b|\n|-|-|\n|1|2|", "", "md")["text/html"]
    assert {"h1", "li", "strong", "table"} <= tags(page)


def test_the_text_form_is_the_answer_and_the_footer():
    assert render.answer("It is *blue*.", "engine · 3 tokens")["text/plain"] == "It is *blue*.\n\nengine · 3 tokens"


def test_raw_has_no_page_at_all():
    assert set(render.answer("x", "f", "raw")) == {"text/plain"}


def test_code_shows_the_fenced_blocks_only():
    page = render.answer("Here:\n```python\nx = '<b>'\n```\nand\n```\ny\n", "", "code")["text/html"]
    assert "Here" not in page
    assert re.findall(r"<pre[^>]*>(.*?)</pre>", page) == ["x = &#x27;&lt;b&gt;&#x27;", "y"]


def test_json_is_laid_out_and_broken_json_says_where():
    assert "{\n  &quot;a&quot;: 1\n}" in render.answer('```json\n{"a":1}\n```', "", "json")["text/html"]
    broken = render.answer('{"a":', "", "json")
    assert "not valid JSON" in broken["text/html"]
    assert "--schema" in broken["text/plain"]


def test_the_live_text_is_escaped():
    assert "&lt;script&gt;" in render.live("<script>")["text/html"]
