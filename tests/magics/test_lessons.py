"""A class of the notebook breaks its contract: a sentence and a picture of the KV cache, and no stack of ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_kernel import FAKE, Kernel

pytestmark = pytest.mark.slow

LOAD = f"""
import llmlab
from llmlab.scheduling.policies import ChunkedPrefill

class GivesTooMuch(ChunkedPrefill):
    def schedule(self, state):
        return {{name: n + (state.step >= 3) for name, n in super().schedule(state).items()}}

broken = llmlab.load("letters", engine={FAKE!r}, policy=GivesTooMuch, name="broken")
"""
SENTENCE = "was given 2 tokens, it has 1 uncomputed: give 1..1"


@pytest.fixture
def student(kernel: Kernel) -> Iterator[Kernel]:
    """With `broken` loaded: its fourth step fails."""
    assert kernel.run(LOAD).error is None
    yield kernel
    kernel.run("%llm unload broken\n%llm use fake")


def test_an_error_that_nobody_catches_shows_the_kv_cache_before_that_step(student: Kernel):
    outputs = student.run("broken.generate('Hello', max_tokens=9, raw=True)")
    (line,) = outputs.error or []
    assert line.startswith("PlanRefused: step 3: ") and line.endswith(SENTENCE)
    (page,) = outputs.pages
    assert "step 2 of 2" in page and "<img" in page


def test_one_that_was_caught_is_a_value_with_sentence_and_picture(student: Kernel):
    run = "broken.batch(['Hello', 'You'], max_tokens=9, raw=True).wait()"
    code = f"try:\n    {run}\nexcept llmlab.LlmlabError as error:\n    lesson = error\nlesson"
    page = (student.run(code).result or {})["text/html"]
    assert SENTENCE in page and "step 2 of 2" in page and "<img" in page
    told = student.run("print(lesson.trace.validate(), lesson.trace.step_records[-1].kv.num_used > 0)").stdout
    assert told == "[] True\n"


def test_where_nothing_has_run_there_is_no_picture(kernel: Kernel):
    outputs = kernel.run("from llmlab.errors import PartFailed\nraise PartFailed('it lacks free')")
    assert outputs.error == ["PartFailed: it lacks free"] and outputs.pages == []
