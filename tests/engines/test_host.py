"""What a process of its own adds: it loads, dies, hangs, is cut off; the notebook goes on and says what happened."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fake_loading import LoadFake

from llmlab.engines import loading, registry
from llmlab.engines.handle import EngineHandle
from llmlab.engines.host_link import HostLink
from llmlab.engines.messages import Load
from llmlab.errors import EngineDied, EngineError
from llmlab.scheduling.policies import Fcfs

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def folder_of(eng: EngineHandle) -> Path:
    link = eng._connection.link
    assert isinstance(link, HostLink)
    return link.folder


def test_the_engine_lives_in_another_process_that_unloading_ends(load_fake: LoadFake):
    eng = load_fake("host")
    assert eng.pid != os.getpid()
    assert eng.generate("abc", max_tokens=4).text == "abca"
    folder = folder_of(eng)
    gone = eng.unload()
    assert gone.rss_before_bytes is not None
    assert gone.rss_before_bytes > 5e6
    assert gone.rss_after_bytes == 0
    assert not psutil.pid_exists(eng.pid)
    assert not folder.exists()


def test_a_batch_through_a_host_is_the_same_as_inline(load_fake: LoadFake):
    prompts = [f"shared words and number {i}" for i in range(20)]
    texts = [
        [result.text for result in load_fake(where, seqs=4, num_cells=200).batch(prompts, max_tokens=9).wait()]
        for where in ("inline", "host")
    ]
    assert texts[0] == texts[1]


def test_prints_of_the_engine_go_to_its_log_not_to_the_cell(load_fake: LoadFake, capfd: pytest.CaptureFixture[str]):
    eng = load_fake("host", fail_at=1)
    with pytest.raises(EngineError):
        eng.generate("abc")
    assert "the fake engine was told to fail" in eng.logs()
    assert capfd.readouterr() == ("", "")
    eng.unload()
    assert "the fake engine was told to fail" in eng.logs()


def test_an_engine_that_does_not_load_says_why_and_leaves_no_process(load_fake: LoadFake):
    before = set(psutil.Process().children())
    with pytest.raises(EngineError) as caught:
        load_fake("host", refuse="the model is cut short at byte 17")
    assert str(caught.value) == "the model is cut short at byte 17"
    assert set(psutil.Process().children()) <= before


def test_an_engine_that_cannot_be_imported_is_named():
    with pytest.raises(EngineError, match="The nowhere:Engine engine needs the module 'nowhere', which is not here"):
        loading.load("a-model", "nowhere:Engine")


def test_an_error_that_is_not_ours_comes_with_what_the_engine_printed():
    with pytest.raises(EngineError, match=r"(?s)AttributeError: .*The engine printed:.*Traceback"):
        loading.load("a-model", "fake_engine:NoSuchEngine")


def test_an_engine_whose_header_cannot_be_told_does_not_load():
    with pytest.raises(EngineError, match="object"):
        loading.load("a-model", "slow_to_load:UnspeakableEngine", timeout=20)


def test_loading_has_a_time_limit():
    with pytest.raises(EngineError, match=r"was not ready within 0.3 s. Give load\(\) a longer timeout"):
        loading.load("a-model", "slow_to_load:SlowEngine", timeout=0.3)


POLICY = """
class Mine(Fcfs):
    def schedule(self, state):
        return {r.request_id: 1 for r in (*state.running, *state.waiting)[:1]}
"""


def test_a_policy_of_the_notebook_travels_to_the_host(load_fake: LoadFake):
    cell = {"Fcfs": Fcfs, "__name__": "__main__"}
    exec(POLICY, cell)
    run = load_fake("host", policy=cell["Mine"]).batch(["abc", "abc"], max_tokens=2)
    run.wait()
    assert {len(step.scheduled) for step in run.trace.step_records} == {1}
    assert {step.num_scheduled_tokens for step in run.trace.step_records} == {1}


def test_two_hosts_at_once_do_not_mix(load_fake: LoadFake):
    one, two = load_fake("host", step_s=0.005), load_fake("host", step_s=0.005)
    assert one.pid != two.pid
    runs = [one.batch(["one"] * 8, max_tokens=30), two.batch(["two"] * 8, max_tokens=30)]
    texts = [{result.text for result in run.wait()} for run in runs]
    assert texts == [{"one" * 10}, {"two" * 10}]


def test_a_module_beside_the_notebook_does_not_hide_one_of_the_library(
    load_fake: LoadFake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_fake("host").generate("abc", max_tokens=1).text == "a"


# ---- bad days


@pytest.mark.parametrize(
    ("sign", "says"),
    [
        (signal.SIGKILL, "was killed by SIGKILL"),
        (signal.SIGSEGV, "was killed by SIGSEGV"),
        (signal.SIGSTOP, "did not answer: a signal stopped it, and after 2 s it was ended"),
    ],
    ids=["SIGKILL", "SIGSEGV", "SIGSTOP"],
)
def test_a_host_that_dies_ends_every_request_in_time_with_its_partial_text(
    load_fake: LoadFake, sign: signal.Signals, says: str
):
    eng = load_fake("host", step_s=0.01)
    run = eng.batch(["abc"] * 16, max_tokens=200)
    for _ in zip(range(100), run, strict=False):
        pass
    started = time.monotonic()
    os.kill(eng.pid, sign)
    with pytest.raises(EngineDied) as caught:
        run.wait()
    assert time.monotonic() - started < 5
    message = str(caught.value)
    assert message.startswith(f"The engine 'a-model' (a-model) {says}.")
    assert message.endswith(
        "Load it again: `%llm load a-model -e fake_engine:FakeEngine --opt step_s=0.01`, "
        "or llmlab.load('a-model', engine='fake_engine:FakeEngine', options={'step_s': 0.01})"
    )
    assert [r.text[:5] for r in caught.value.results] == ["abcab"] * 16
    assert {r.finish_reason for r in caught.value.results} == {"error"}
    trace = run.trace
    assert trace.validate() == []
    assert trace.incidents[-1].incident == "died"
    assert set(trace.incidents[-1].requests) == set(run.request_ids)
    assert sum(len(step.tokens) for step in trace.step_records) == sum(r.num_output_tokens for r in run.results)
    assert gone_within(eng.pid, 1)
    with pytest.raises(EngineDied, match=says):
        eng.generate("abc")
    again = load_fake("host")
    assert again.name == "a-model"
    assert again.generate("abc", max_tokens=3).text == "abc"


def test_questions_to_a_host_that_dies_end_too(load_fake: LoadFake):
    eng = load_fake("host", tokenize_s=30.0)
    killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(0.3); os.kill({eng.pid}, 9)"])
    with pytest.raises(EngineDied, match="was killed by SIGKILL"):
        eng.tokenize("abc")
    killer.wait()


def test_a_host_that_dies_while_it_loads_is_no_riddle():
    with pytest.raises(EngineDied, match=r"(?s)was killed by SIGABRT.*Load it again: `%llm load a-model"):
        loading.load("a-model", "slow_to_load:AbortingEngine")
    assert registry.handles() == {}


def test_an_engine_that_dies_of_its_cpu_is_loaded_once_more_carefully(monkeypatch: pytest.MonkeyPatch):
    engine = "slow_to_load:HalfAmxEngine"
    careful = {engine: ({"extra_bufts": False}, "This CPU only says that it can.")}
    monkeypatch.setattr(loading, "SECOND_TRIES", careful)
    with loading.load("a-model", engine) as eng:
        assert eng.notes == ("This CPU only says that it can.",)
        assert eng.generate("abc", max_tokens=2).text == "ab"
    with pytest.raises(EngineDied, match="was killed by SIGABRT"):
        loading.load("a-model", engine, options={"extra_bufts": True})


def test_a_stopped_host_that_nobody_waits_for_is_left_alone(load_fake: LoadFake):
    eng = load_fake("host")
    os.kill(eng.pid, signal.SIGSTOP)
    time.sleep(3)
    os.kill(eng.pid, signal.SIGCONT)
    assert eng.generate("abc", max_tokens=1).text == "a"


def notebook(code: str) -> subprocess.Popen[str]:
    """A Python process that plays the notebook's kernel."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)


STREAMING = """
import llmlab, sys
eng = llmlab.load("a-model", "fake_engine:FakeEngine", options={"step_s": %s})
run = eng.batch(["abc"] * 4, max_tokens=200)
print(eng.pid, eng._connection.link.folder, flush=True)
run.wait()
"""


@pytest.mark.parametrize("step_s", [0.01, 60.0], ids=["between steps", "inside a step"])
def test_a_killed_kernel_takes_its_host_along(step_s: float):
    kernel = notebook(STREAMING % step_s)
    assert kernel.stdout is not None
    pid, folder = kernel.stdout.readline().split()
    time.sleep(0.2)
    kernel.kill()
    kernel.wait()
    assert gone_within(int(pid), 2)
    assert not Path(folder).exists()


def test_a_kernel_that_ends_in_peace_takes_its_host_along():
    kernel = notebook(STREAMING.replace("run.wait()", "") % 0.01)
    output, _ = kernel.communicate(timeout=30)
    pid, folder = output.split()
    assert kernel.returncode == 0
    assert gone_within(int(pid), 2)
    assert not Path(folder).exists()


INTERRUPTED = """
import llmlab, os, signal, threading, time
eng = llmlab.load("a-model", "fake_engine:FakeEngine", options={"step_s": 0.01})
stream = lambda prompt, **options: list(eng.stream(prompt, **options))
batch = lambda prompt, **options: eng.batch([prompt] * 8, **options).wait()
tokens = lambda prompt, **options: list(eng.batch([prompt] * 8, **options))
for ask in (eng.generate, stream, batch, tokens):
    for delay_s in (0.01, 0.05, 0.3):
        threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            ask("abc", max_tokens=240)
            raise SystemExit("not interrupted")
        except KeyboardInterrupt:
            pass
        assert eng.last.finish_reason == "interrupted", eng.last
        assert eng.generate("abc", max_tokens=4).text == "abca"
assert eng.num_open_requests == 0 and eng.memory()["kv_used"] == 0
assert eng.trace.validate() == []
print("usable")
"""


def test_ctrl_c_stops_the_answer_and_leaves_the_engine_usable():
    kernel = notebook(INTERRUPTED)
    output, _ = kernel.communicate(timeout=60)
    assert (kernel.returncode, output) == (0, "usable\n")


def test_ctrl_c_of_a_terminal_does_not_reach_the_host(load_fake: LoadFake):
    eng = load_fake("host")
    assert os.getsid(eng.pid) != os.getsid(0)
    os.kill(eng.pid, signal.SIGINT)
    assert eng.generate("abc", max_tokens=2).text == "ab"


def test_nobody_else_may_enter_the_folder_of_the_sockets(load_fake: LoadFake):
    status = folder_of(load_fake("host")).stat()
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == os.getuid()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_cannot_connect(load_fake: LoadFake):
    eng = load_fake("host")
    code = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1]); print('connected')\n"
        "except PermissionError: print('refused')"
    )
    for name in ("commands", "events"):
        path = str(folder_of(eng) / name)
        assert Path(path).is_socket()
        assert subprocess.check_output([sys.executable, "-c", code, path], text=True) == "refused\n"


def test_a_host_that_gets_no_load_ends(tmp_path: Path):
    host = subprocess.run(
        [sys.executable, "-m", "llmlab.engines.host", str(tmp_path)], stdin=subprocess.DEVNULL, timeout=20, check=False
    )
    assert host.returncode == 1


def test_a_command_after_the_host_has_died_does_not_block(load_fake: LoadFake):
    eng = load_fake("host")
    os.kill(eng.pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(EngineDied):
        eng.generate("abc", timeout=10)
    assert time.monotonic() - started < 3


def test_a_message_that_cannot_be_read_ends_the_engine_and_those_who_wait(load_fake: LoadFake):
    eng = load_fake("host", step_s=0.01)
    run = eng.batch(["abc"], max_tokens=200)
    next(iter(run))
    eng._connection.link.receive = lambda timeout_s: b"Snonsense"  # type: ignore[method-assign]
    with pytest.raises(EngineDied, match="the notebook cannot read what it says"):
        run.wait(timeout=20)
    assert gone_within(eng.pid, 1)


def test_ctrl_c_while_unloading_leaves_no_process(load_fake: LoadFake, monkeypatch: pytest.MonkeyPatch):
    eng = load_fake("host")

    def interrupted(self: object, timeout: float | None = None) -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        eng.unload()
    assert gone_within(eng.pid, 1)


def test_a_load_message_survives_the_way_to_the_host_whatever_its_size(load_fake: LoadFake):
    eng = load_fake("host", padding="x" * 1_000_000)
    assert eng.generate("abc", max_tokens=1).text == "a"
    assert isinstance(Load(eng.config), Load)
