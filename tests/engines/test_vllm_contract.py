"""What the tracer reads is there in the installed vLLM. A version that lacks a field fails here, by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmlab.engines import vllm_fields
from llmlab.errors import EngineError

SOURCES = "".join(
    path.read_text() for path in Path(vllm_fields.__file__).parent.glob("vllm_*.py") if path.name != "vllm_fields.py"
)


@pytest.mark.parametrize("field", sorted({f for _, fields in vllm_fields.FIELDS.values() for f in fields.split()}))
def test_each_field_that_is_listed_is_read_somewhere(field: str) -> None:
    assert re.search(rf"[.\"]{field}\b", SOURCES) or field.startswith("__")


@pytest.mark.slow
def test_the_installed_vllm_has_every_field_that_the_tracer_reads() -> None:
    pytest.importorskip("vllm")
    assert list(vllm_fields.missing_fields()) == []


@pytest.mark.slow
def test_a_field_that_went_is_named_with_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    module, fields = vllm_fields.FIELDS["SchedulerOutput"]
    monkeypatch.setitem(vllm_fields.FIELDS, "SchedulerOutput", (module, f"{fields} preempted_requests"))
    monkeypatch.setitem(vllm_fields.FIELDS, "BlockStore", ("vllm.v1.core.block_pool", "blocks"))
    vllm_fields.check_fields.cache_clear()
    with pytest.raises(EngineError) as error:
        vllm_fields.check_fields()
    sentence = str(error.value)
    assert "has no SchedulerOutput.preempted_requests, vllm.v1.core.block_pool.BlockStore, which" in sentence
    assert re.match(r"vLLM \d+\.\d+\.\d+", sentence) and "--opt trace=off" in sentence
