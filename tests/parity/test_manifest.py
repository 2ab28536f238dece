"""The manifest of two engines without a model: every line says what it should, and refusals say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import llmlab
from llmlab.engines import registry
from llmlab.engines.handle import EngineHandle
from llmlab.errors import EngineError, RequestError
from llmlab.parity import Manifest, Probe

PROMPTS = [Probe("a", "Hello"), Probe("b", "<World>", is_chat=True)]
Load = Callable[..., EngineHandle]


@pytest.fixture
def load() -> Iterator[Load]:
    def load_it(name: str, kind: str = "ParityEngine", **options: Any) -> EngineHandle:
        arguments = {key: options.pop(key) for key in ("quant", "seed", "ctx") if key in options}
        return llmlab.load("m", f"parity_engine:{kind}", name=name, isolation="inline", options=options, **arguments)

    yield load_it
    registry.unload(all=True)


def manifest(a: EngineHandle, b: EngineHandle) -> Manifest:
    return llmlab.parity(a, b, PROMPTS, max_tokens=6)


def verdicts(found: Manifest) -> dict[str, str]:
    return {row.name: row.verdict for row in found.rows}


def test_equal_engines_have_equal_lines(load: Load):
    found = manifest(load("a"), load("b"))
    assert found.ok
    assert set(verdicts(found).values()) <= {"equal", "within bound", "noted", "not comparable"}
    assert found.verdict == "The same model: the same tokens go in, and the logits are as close as float32 allows."
    assert [row.section for row in found.rows] == sorted(
        (row.section for row in found.rows), key=["text in", "numbers", "room", "text out"].index
    )


def test_noise_beyond_the_bound_is_no_parity(load: Load):
    found = manifest(load("a"), load("b", noise=0.5))
    assert verdicts(found)["log probabilities"] == "beyond bound"
    assert "0.5 nats at most; float32 allows 0.01" in found["log probabilities"].note
    assert not found.ok


def test_the_coarser_side_chooses_the_bound(load: Load):
    found = manifest(load("a", quant="F16"), load("b", quant="F16", noise=0.1))
    assert (found.bound.precision, found.ok) == ("float16", True)
    found = manifest(llmlab.handles()["a"], load("c", quant="Q4_0", noise=0.1))
    assert found.bound.precision == "quantized"
    assert verdicts(found)["weights stored in"] == "differs"


def test_another_template_gives_other_prompt_tokens(load: Load):
    found = manifest(load("a"), load("b", template="{% for m in messages %}[{{ m.content }}]{% endfor %}"))
    assert verdicts(found)["chat template"] == "differs"
    assert verdicts(found)["prompt token ids"] == "differs"
    assert found["prompt token ids"].note == "first in 'b', at token 0"
    assert [row.name for row in found.failures] == ["prompt token ids", "chat template"]


def test_room_may_differ(load: Load):
    found = manifest(load("a", seed=1), load("b", seed=2, ctx=64))
    assert [verdicts(found)[name] for name in ("seed", "longest sequence")] == ["differs", "differs"]
    assert found.ok


def test_other_vocabularies_stop_at_what_makes_no_sense(load: Load):
    found = manifest(load("a"), load("b", words="other"))
    assert verdicts(found)["vocabulary"] == "differs"
    assert verdicts(found)["logits"] == verdicts(found)["greedy answers"] == "not comparable"
    assert (found.distance, found.divergence) == (None, None)
    assert not found.ok


def test_an_engine_without_logits_is_refused_with_what_to_load(load: Load):
    with pytest.raises(EngineError, match=r"^b: the .* engine has no logits to compare\. .*%llm load MODEL -e both"):
        manifest(load("a"), load("b", kind="NoLogits"))


def test_a_paused_or_busy_engine_is_not_waited_for(load: Load):
    a, b = load("a"), load("b", step_s=0.05)
    run = b.batch(["Hello"], max_tokens=100)
    with pytest.raises(RequestError, match="b has 1 requests of its own"):
        manifest(a, b)
    run.stop()
    b.pause()
    with pytest.raises(RequestError, match=r"b is paused\. Let it run first: `%llm resume`"):
        manifest(a, b)


def test_it_shows_as_a_table_as_text_and_as_a_page(load: Load):
    found = manifest(load("<a>"), load("b", noise=0.5))
    assert list(found.table().columns) == ["section", "name", "<a>", "b", "verdict", "note"]
    assert len(found.table()) == len(found.rows)
    assert "✕  numbers   log probabilities" in repr(found)
    page = found._repr_html_()
    assert "&lt;a&gt;" in page and "<a>" not in page
    assert "<script" not in page


def test_a_line_is_found_by_its_name(load: Load):
    found = manifest(load("a"), load("b"))
    assert found["EOS"].a == "none"
    with pytest.raises(KeyError, match="no line 'EOF'; there are: prompt token ids"):
        found["EOF"]
