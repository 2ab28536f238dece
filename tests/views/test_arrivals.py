"""An engine that is seen from outside: what arrived and when, a sentence that says so, nothing made up of a batch."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

import llmlab
from llmlab.trace import Capabilities, Header, Request, Step, Token, Trace
from llmlab.trace.whose import of_another
from llmlab.views import twin_paper
from llmlab.views.page import page
from llmlab.views.story import Story
from llmlab.views.twin import Twin
from llmlab.views.twin_arrivals import arrival_rows


def seen_from_outside(engine: str = "openai") -> Trace:
    """a is sent at 0.5 s and b at 1 s; a gets two tokens at once and then one, b one token, and is stopped."""
    header = Header(engine=engine, model="smol", device="http://host", capabilities=Capabilities(steps=False))
    requests = [
        Request(request_id=name, arrival_s=sent_s, prompt_token_ids=ids)
        for name, sent_s, ids in (("a", 0.5, (1, 2, 3)), ("b", 1.0, ()))
    ]
    a, b = (lambda text: Token(request_id="a", token_id=5, text=text)), Token(request_id="b", token_id=6, text="!")
    steps = (
        Step(step=0, t_s=1.25, tokens=(a("one"), a(" two"))),
        Step(step=1, t_s=2.0, tokens=(a("."), b), finished={"a": "length"}),
        Step(step=2, t_s=2.5, finished={"b": "abort"}),
    )
    return Trace(header, tuple(requests), steps)


def words(record: dict) -> str:
    return "".join(text for text, _ in record["say"])


def test_each_record_says_what_arrived_and_what_ended():
    story = Story.of(seen_from_outside())
    assert [record["in"] for record in story.steps] == [[[0, 2]], [[0, 1], [1, 1]], []]
    assert [words(record) for record in story.steps] == [
        "Arrived: 2 tokens of a.",
        "Arrived: 1 token of a, 1 of b. a ends (length): 3 tokens.",
        "b is stopped: 1 token.",
    ]
    assert "in" not in Story.of(llmlab.recorded("preemption")).steps[0]


@pytest.mark.parametrize(("engine", "told"), [("vllm", "connect with --trace"), ("ollama", "Ollama tells nothing")])
def test_the_text_says_that_steps_stay_on_the_server_and_claims_no_batch(engine: str, told: str):
    story = Story.of(seen_from_outside(engine))
    lines = Twin(story, ["kv", "timeline"], "Run of 2 requests").text().splitlines()
    assert lines[0].endswith("arrival 2 of 2") and told in lines[1]
    assert lines[3:] == [
        "a 3 tokens, the first after 0.75 s, ended (length)", "b 1 token, the first after 1.00 s, ended (abort)",
    ]  # fmt: skip
    assert not any(word in " ".join(lines) for word in ("wait", " run", "budget", "step 2", "no KV cache"))


def test_the_picture_has_a_tick_where_something_came_and_no_strip_of_steps():
    story = Story.of(seen_from_outside())
    rows = arrival_rows(story, 1)
    assert (rows[0].sent_s, rows[0].came, rows[0].end) == (0.5, [(1.25, 2), (2.0, 1)], (2.0, "finished", 3))
    assert rows[1].end is None and arrival_rows(story, 2)[1].end == (2.5, "aborted", 1)
    both, one = Twin(story, ["kv", "timeline"], "a"), Twin(story, ["timeline"], "a")
    assert both.png() == one.png()
    picture = Image.open(io.BytesIO(one.png())).convert("RGB")
    ink = picture.getcolors(10**6)
    assert ink is not None and twin_paper.rgb(twin_paper.OWNERS[0]) in {colour for _, colour in ink}


def test_a_page_of_it_draws_arrivals_with_the_sentence(tmp_path: Path):
    story = Story.of(seen_from_outside())
    text = page(story, parts=["kv", "timeline"], title="Arrivals")
    assert "arrivalsPicture" in text and "connect with --trace" in text
    assert llmlab.timeline(seen_from_outside()).title == "Arrivals"
    assert llmlab.timeline(llmlab.recorded("preemption")).title == "Batching timeline"


def test_requests_of_other_clients_have_names_of_their_own_and_are_grey():
    trace = llmlab.recorded("preemption")
    others = trace.request_records[:2]
    mixed = Trace(trace.header, (*map(of_another, others), *trace.request_records[2:]), trace.step_records)
    story = Story.of(mixed)
    assert [request["name"] for request in story.requests[:4]] == ["o1", "o2", "r3", "r4"]
    assert story.others == {0, 1}
    greys = [twin_paper.owner(r, 16, story.others) for r in (0, 1)]
    assert greys == list(twin_paper.GREYS) and twin_paper.owner(2, 16, story.others) == twin_paper.owner(2, 16)
    assert "of other clients" in str([words for words, *_ in _legend(mixed)])


def _legend(trace: Trace) -> list[tuple[str, float, object]]:
    from llmlab.views.twin_paper import Paper
    from llmlab.views.twin_timeline import _Rows

    return list(_Rows(Paper(1000), Story.of(trace), 3, 0, 0, 900)._legend())


@pytest.mark.parametrize("chart", ["tokens_per_step", "kv_use", "prefix_hits"])
def test_a_chart_of_steps_says_that_they_stay_on_the_server(chart: str):
    from llmlab.views import plots

    figure = getattr(plots, chart)(seen_from_outside())
    assert not figure.data and "stay on the server" in figure.layout.annotations[-1].text
