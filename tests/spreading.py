"""Which files are collected, and which worker runs what: a plug-in of pytest, registered by conftest.py.

This file must not know llmlab.
"""

from __future__ import annotations

import os
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.expression import Expression

# The files of one line run one after the other in one worker: they share an engine, or a library that takes seconds to
# load. The longest line first, and the files of no line last: no worker is left alone with much to do.
TOGETHER = (
    "engines/test_vllm.py engines/test_vllm_scheduling.py engines/test_vllm_lora.py engines/test_vllm_tracer.py "
    "engines/test_vllm_tracer_core.py engines/test_vllm_server.py engines/test_vllm_contract.py",
    "engines/test_vllm_host.py parity/test_three_engines_agree.py quality/test_perplexity.py",
    "models/test_same_model.py models/test_catalog.py models/test_lora.py models/test_gguf_file.py models/test_chat.py",
    "magics/test_live.py magics/test_lessons.py magics/test_bench_verb.py",
)
UNIT_OF = {f"tests/{file}": number for number, files in enumerate(TOGETHER) for file in files.split()}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for a file in which `-m` can select nothing, by the marks that its text names: it is not even imported."""
    expression = config.option.markexpr
    if not expression or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text()
    marks = set(re.findall(r"mark\.(\w+)", text)) | ({"soak"} if "hypothesis" in text else set())
    marks &= set(re.findall(r"\w+", expression))
    some = (set(chosen) for size in range(len(marks) + 1) for chosen in combinations(sorted(marks), size))
    select = Expression.compile(expression)
    return None if any(select.evaluate(lambda name, on=on, **_: name in on) for on in some) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Properties belong to the soak too, where they are tried on more examples."""
    if config.option.markexpr == "soak":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("soak")
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: UNIT_OF.get(item.nodeid.split("::")[0], len(TOGETHER)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist loadfile`, in our order, and with the files of a line of TOGETHER as one."""
    from xdist.scheduler import LoadFileScheduling

    class LoadUnits(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return f"unit {UNIT_OF[file]}" if file in UNIT_OF else file

    if config.option.dist != "loadfile":
        return None
    config.option.loadscopereorder = False
    return LoadUnits(config, log)
