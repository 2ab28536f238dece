"""Servers that others wrote behind one door: `vllm serve`, llama-server (through xllamacpp), beside `llmlab serve`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_support import TOKENS, Door, events_of, text_of, wait_until

import llmlab
from llmlab import models
from llmlab.engines.packages import missing
from llmlab.gateway import gateway
from tests.engines.llama_serving import llama_served
from tests.engines.vllm_serving import served

pytestmark = pytest.mark.soak

CONFIG = """
backends:
  vllm: {{url: {vllm}}}
  llama-server: {{url: {llama_server}}}
  llmlab: {{url: {llmlab}, api_key_env: LLMLAB_KEY}}
models:
  v: {{backends: {{vllm: smol}}}}
  l: {{backends: {{llama-server: any}}}}
  k: {{backends: {{llmlab: smol}}}}
keys:
  ann: {{token_env: ANN_TOKEN}}
"""


@pytest.fixture
def llama_server() -> Iterator[str]:
    with llama_served() as url:
        yield url


def test_three_kinds_of_server_answer_through_one_door_and_tell_their_load(tmp_path: Path, llama_server: str):
    if (lack := missing("vllm")) is not None:
        pytest.skip(lack)
    folder = models.get("smollm2-135m").hf_dir
    flags = ["--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "4", "--served-model-name", "smol"]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    file = tmp_path / "config.yaml"
    with (
        llmlab.load("smollm2-135m", engine="llamacpp", quant="Q8_0", name="smol", ctx=512) as engine,
        served(folder, tmp_path / "log", [*flags, "--enforce-eager"], environment=environment, start_s=400) as vllm,
    ):
        server = llmlab.serve(engine)
        file.write_text(CONFIG.format(vllm=vllm, llama_server=llama_server, llmlab=server.url))
        door = Door(gateway(file, environment={**TOKENS, "LLMLAB_KEY": server.token}))
        for model in "vlk":
            whole = door.chat("Name a fruit.", model=model, max_tokens=5, temperature=0)
            events = events_of(door.chat("Name a fruit.", model=model, max_tokens=5, temperature=0, stream=True))
            assert whole.status_code == 200 and events[-1] == "[DONE]"
            assert text_of(events[:-1]) == whole.json()["choices"][0]["message"]["content"] != ""
            assert door.chat("word " * 900, model=model, max_tokens=5).status_code == 400 or model == "l"
        assert wait_until(lambda: len(door.entries) == 9)
        for entry in door.entries:
            if entry.status == 200:
                assert entry.counted_by == "reported" and entry.num_prompt_tokens > 5
        # it tells of its last step, and is looked at once a second
        assert wait_until(lambda: door.http.get("/backends").json()["llmlab"]["num_waiting"] is not None)
        shown = door.http.get("/backends").json()
        assert {name: one["up"] for name, one in shown.items()} == dict.fromkeys(shown, True)
        assert shown["vllm"]["num_waiting"] == shown["llmlab"]["num_waiting"] == 0
        assert shown["vllm"]["kv_use"] is not None and shown["llama-server"]["num_waiting"] is None
        door.close()
        server.stop()
        assert door.server.failures == []
