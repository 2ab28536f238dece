"""A real `vllm serve`, seen from inside; beside a local llama.cpp and a server with Ollama's API; killed at last."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from live_support import FakeScreen
from ollama_conformance import OllamaConformance
from serve_support import wait_until

import llmlab
from llmlab import models
from llmlab.engines.packages import missing
from llmlab.engines.trace_listener import TOKEN
from llmlab.engines.vllm_scheduler import ADDRESS
from llmlab.errors import EngineDied, EngineError
from llmlab.remote import TracedHandle
from llmlab.trace import Trace
from llmlab.trace.whose import is_other
from llmlab.views.live import live_of
from llmlab.views.shares import requests_in
from llmlab.views.story import Story
from tests.engines.vllm_serving import ON_CPU, served
from tests.local_servers import free_port

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
COUNTING = "1, 2, 3, 4, 5, 6,"
SECRET = "a-token-of-this-test"


class VllmServer(NamedTuple):
    url: str
    trace: str
    file: Path  # what it writes of the same trace itself
    processes: list[psutil.Process]


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    if (lack := missing("vllm")) is not None:
        pytest.skip(lack)
    folder = tmp_path_factory.mktemp("vllm")
    trace = f"http://127.0.0.1:{free_port()}"
    file, before = folder / "own.jsonl", set(psutil.Process().children(recursive=True))
    flags = "--dtype float32 --enforce-eager --block-size 32 --max-model-len 512 --num-gpu-blocks-override 25".split()
    flags += "--max-num-seqs 4 --served-model-name smol".split()
    flags += ["--scheduler-cls", "llmlab.engines.vllm_scheduler.TracedScheduler"]
    environment = {**ON_CPU, "VLLM_CPU_KVCACHE_SPACE": "1", ADDRESS: f"{trace},{file}", TOKEN: SECRET}
    model = models.get("smollm2-135m").hf_dir
    with served(model, folder / "log", flags, environment=environment, start_s=500) as url:
        mine = [p for p in psutil.Process().children(recursive=True) if p not in before]
        yield VllmServer(url, trace, file, mine)
    log = (folder / "log").read_text()
    assert SECRET not in log and "llmlab: error" not in log


@pytest.fixture
def far(vllm_server: VllmServer, monkeypatch: pytest.MonkeyPatch) -> TracedHandle:
    monkeypatch.setenv(TOKEN, SECRET)
    handle = llmlab.connect(vllm_server.url, trace=vllm_server.trace, name="far")
    assert isinstance(handle, TracedHandle)
    return handle


def words_of(story: Story, index: int) -> str:
    """What came out of a request, as the picture has it."""
    found: list[tuple[int, str]] = []
    for step in story.steps:
        found += zip(requests_in(step["d"]), step.get("dx", ()), strict=False)
        told = step.get("x", [])
        found += zip(told[::2], told[1::2], strict=True)
    return "".join(text for request, text in found if request == index)


def ask_as_somebody_else(url: str, max_tokens: int) -> None:
    body = b'{"model": "smol", "prompt": "Name a fruit.", "ignore_eos": true, "max_tokens": %d}' % max_tokens
    asked = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(asked, timeout=120).read()


def test_without_the_token_nobody_sees_the_trace(vllm_server: VllmServer, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(EngineError, match="wants a token"):
        llmlab.connect(vllm_server.url, trace=vllm_server.trace)
    monkeypatch.setenv(TOKEN, "not-the-right-one")
    with pytest.raises(EngineError, match="refuses the token"):
        llmlab.connect(vllm_server.url, trace=vllm_server.trace)
    with pytest.raises(EngineError, match="--scheduler-cls"):
        llmlab.connect(vllm_server.url, trace=True)


def test_an_idle_server_shows_its_cache_at_once_and_its_steps_as_they_come(vllm_server: VllmServer, far: TracedHandle):
    header = far.header
    assert (header.engine, header.model, header.block_size, header.num_blocks) == ("vllm", "smol", 32, 24)
    assert far.capabilities.kv == "blocks" and far.is_seen and far.clock.error_s < 1
    of_all = live_of(far.following)
    of_all.attach(FakeScreen())
    other = threading.Thread(target=ask_as_somebody_else, args=(vllm_server.url, 48))
    other.start()
    prompt = "One, two, three, four, five, six, seven, eight. " * 6
    run = far.batch([prompt, prompt + "And so on", "Hello"], max_tokens=24, ignore_eos=True)
    screen = FakeScreen()
    live_of(run).attach(screen)
    answers = run.wait()
    assert wait_until(lambda: screen.num_frozen == 1)
    chat = far.generate("Why is the sky blue?", max_tokens=8)
    other.join()
    trace = run.trace
    assert trace.validate() == []
    ours = [request for request in trace.request_records if not is_other(request)]
    assert [request.request_id for request in ours] == run.request_ids
    assert [request.prompt_token_ids for request in ours] == [tuple(answer.prompt_token_ids) for answer in answers]
    tokens = [token for step in trace.step_records for token in step.tokens if token.request_id == "r1"]
    assert [token.token_id for token in tokens] == list(answers[0].token_ids)
    assert "".join(token.text for token in tokens) == answers[0].text
    assert any(step.prefix_hits.get("r2") for step in trace.step_records)
    assert chat.request_id in {request.request_id for request in chat.trace.request_records}
    everything = far.trace
    assert [r.request_id.startswith("cmpl-") for r in everything.request_records if is_other(r)] == [True]
    story = run.view.story
    assert story is not None and story.head["kind"] == "blocks" and sum(len(s["fin"]) for s in story.steps) >= 3
    # what a block holds is written out in its tooltip: of ours, as it came; nothing of others
    assert prompt in far.detokenize(answers[0].prompt_token_ids)
    assert wait_until(lambda: of_all.story is not None and sum(len(s["fin"]) for s in of_all.story.steps) == 5)
    assert wait_until(lambda: all(r["pieces"] for r in of_all.story.requests if not r.get("other")))
    for pictured, results in ((story, answers), (of_all.story, [*answers, chat])):
        own = [request for request in pictured.requests if not request.get("other")]
        for request, answer in zip(own, results, strict=True):
            assert "".join(request["pieces"]) == far.detokenize(answer.prompt_token_ids)
            assert words_of(pictured, pictured.index_of(request["id"])) == answer.text
    (others,) = [request for request in of_all.story.requests if request.get("other")]
    assert others["pieces"] is None and words_of(of_all.story, of_all.story.index_of(others["id"])) == ""
    of_all.stop()


def test_the_kv_cache_is_what_the_servers_own_file_says(vllm_server: VllmServer, far: TracedHandle):
    """Who connects late has the cache as it is, held and cached blocks alike."""
    far.batch([COUNTING * 8, COUNTING * 9, "a, b, c,"], raw=True, max_tokens=20, ignore_eos=True).wait()
    seen = far.trace
    own = Trace.load(vllm_server.file)
    assert own.validate() == [] and seen.validate() == []
    known = {step.step for step in own.step_records}
    assert {step.step for step in seen.step_records} <= known and len(seen.step_records) >= 20
    mark = far._seen._whose.mark
    for step in random.Random(3).sample([step.step for step in seen.step_records], 8):
        there, here = own.kv(step), seen.kv(step)
        names = [far._seen._whose.own_id(name) or name for name in there["request_id"]]
        assert there.drop(columns="request_id").equals(here.drop(columns="request_id")), step
        assert names == list(here["request_id"]) and mark not in "".join(here["request_id"])


def test_three_kinds_of_engines_stand_in_one_table(
    vllm_server: VllmServer, far: TracedHandle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    near = llmlab.load("smollm2-135m", engine="llamacpp", quant="F32", name="near")
    behind = llmlab.load("smollm2-135m", engine="llamacpp", quant="Q8_0", name="behind")
    with OllamaConformance(models=("smollm2:135m",), engine=behind) as ollama:
        third = llmlab.connect(ollama.url, kind="ollama", name="ollama")
        found = llmlab.compare("Why is the sky blue?", engines=[near, far, third], max_tokens=24)
        first, second, of_ollama = found.results[0]
        assert first is not None and second is not None and of_ollama is not None
        assert first.text == second.text and len(of_ollama.text) > 20
        table = found.table()
        assert len(table) == 3
        page = os.environ.get("LLMLAB_KEEP")  # a folder: to look at the page
        path = (Path(page) if page else tmp_path) / "one_table.html"
        found.to_html(path)
        content = path.read_text()
        assert all(name in content for name in ("near", "far", "ollama"))


def test_a_server_that_is_killed_leaves_the_trace_up_to_there_and_says_so(vllm_server: VllmServer, far: TracedHandle):
    run = far.batch([COUNTING, "a, b, c,"], raw=True, max_tokens=400, ignore_eos=True)
    assert wait_until(lambda: len(far.trace.step_records) >= 10, 60)
    for process in vllm_server.processes:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EngineDied) as caught:
        run.wait(60)
    assert all(len(result.tokens) > 4 for result in caught.value.results)
    assert wait_until(lambda: not far.is_seen)
    trace = run.trace
    assert len(trace.step_records) >= 10 and trace.validate() == []
    (incident,) = trace.incidents
    assert incident.incident == "cut" and set(incident.requests) == set(run.request_ids)
    assert "broke off" in incident.text and "broke off" in repr(far)
    story = run.view.story
    assert story is not None and "broke off" in story.head["incident"]["words"][0][0]
    time.sleep(1)
    assert len(far.gaps) == 1 and not far.is_seen
