"""The lesson that class mode promises, on llama.cpp: 60 students, 3 requests each within 20 s, and one who floods."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from class_support import Class
from serve_support import wait_until

import llmlab
from benchmarks.class_of_students import attend, flood, leaks, lost, worst_over_median

NUM_STUDENTS, NUM_PLACES = 60, 16
ANSWERS = {"max_tokens": 24, "ignore_eos": True}


@pytest.mark.soak
def test_sixty_students_share_one_llama_cpp(tmp_path: Path):
    handle = llmlab.load("smollm2-135m", engine="llamacpp", quant="Q4_1", name="smol", seqs=NUM_PLACES)
    with handle:
        room = llmlab.classroom(handle, students=NUM_STUDENTS + 1, folder=tmp_path / "class", tokens_per_minute=400)
        one = Class(room)
        try:
            _hold_lesson(one)
        finally:
            one.close()


def _hold_lesson(one: Class) -> None:
    *students, flooder = one.students(NUM_STUDENTS + 1)

    async def lesson() -> None:
        flooding = asyncio.create_task(flood(one.url, flooder, 100, **ANSWERS))
        await attend(one.url, students, **ANSWERS)
        await flooding

    asyncio.run(lesson())
    assert lost(students) == []
    assert worst_over_median(students) <= 3
    assert list(leaks([*students, flooder])) == []
    # held to what may be in flight; what he had then was more than his minute
    assert sum(asked.status == 200 for asked in flooder.asked) == 8
    assert all(asked.retry_after for asked in flooder.asked if asked.status == 429)
    assert wait_until(one.is_idle, 60)
    assert one.handle.trace.validate() == [] and one.room.failures == []
