"""The verbs beside asking, on an engine without a model: what they do, print and return."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from verb_support import llm

import llmlab
from llmlab.engines.handle import EngineHandle
from llmlab.errors import EngineError, TraceError
from llmlab.magics.verbs.batch import read_prompts, split_prompts

Captured = pytest.CaptureFixture[str]
LOAD = "load letters -e fake_engine:FakeEngine"


# ---- engines


def test_load_gives_the_handle_and_says_what_room_there_is(shell: InteractiveShell, capsys: Captured):
    handle = llm(shell, f"{LOAD} --as a --ctx 128 --seqs 4 --opt num_cells=64")
    assert handle is llmlab.current()
    assert (handle.name, handle.header.max_model_len, handle.header.num_cells) == ("a", 128, 64)
    shown = capsys.readouterr().out
    assert "a is loaded" in shown
    assert "128 tokens a sequence, 4 at once, KV cache of 64 cells" in shown


def test_a_cell_that_loads_again_replaces_its_own_engine(shell: InteractiveShell):
    first, second = llm(shell, LOAD), llm(shell, LOAD)  # two lines of one cell are two engines
    shell.execution_count += 1
    third = llm(shell, LOAD)
    shell.execution_count -= 1
    again = llm(shell, LOAD)
    assert list(llmlab.handles().values()) == [second, third, again]
    assert again.name == first.name


def test_a_cell_that_was_edited_keeps_what_it_loaded_before(shell: InteractiveShell):
    first = llm(shell, LOAD)
    shell.execution_count += 1
    shell.execution_count -= 1
    assert llm(shell, f"{LOAD} --ctx 64") is not first
    assert first.alive


def test_ps_use_and_unload(shell: InteractiveShell, capsys: Captured):
    a, b = llm(shell, f"{LOAD} --as a"), llm(shell, f"{LOAD} --as b")
    capsys.readouterr()
    llm(shell, "ps")
    assert re.search(r"^ +a +letters .*\n→ +b +letters", capsys.readouterr().out, re.MULTILINE)
    assert llm(shell, "use a") is a
    assert llmlab.current() is a
    (gone,) = llm(shell, "unload b")
    assert (gone.name, gone.rss_after_bytes) == ("b", 0)
    assert gone.rss_before_bytes > 10_000_000
    assert list(llmlab.handles()) == ["a"]
    llm(shell, "unload --all")
    assert not llmlab.handles()
    assert not b.alive
    for line in ("unload", "unload a", "use a", "logs a"):
        with pytest.raises(UsageError, match="`%llm load"):
            llm(shell, line)


def test_an_unknown_engine_is_one_message_with_close_names(shell: InteractiveShell, capsys: Captured):
    with pytest.raises(EngineError, match="Did you mean 'llamacpp'"):
        llm(shell, "load letters -e lamacpp")
    shell.run_cell("%llm load letters -e lamacpp")
    shown = capsys.readouterr().out
    assert "EngineError" in shown
    assert "Traceback" not in shown


def test_logs_models_and_doctor_print_what_the_library_knows(
    shell: InteractiveShell, fake: EngineHandle, capsys: Captured
):
    llm(shell, "logs")
    assert "fake has printed nothing." in capsys.readouterr().out
    llm(shell, "models")
    assert re.search(r"smollm2-135m +embedded +98\.\d MB +.*Q4_1", capsys.readouterr().out)
    report = llm(shell, "doctor")
    shown = capsys.readouterr().out
    assert repr(report) in shown
    assert re.search(r"engine llamacpp +✓ ok +llama-cpp-python 0\.\d+\.\d+", shown)


def test_without_an_engine_the_status_says_what_to_type(shell: InteractiveShell, capsys: Captured):
    llm(shell, "")
    assert "%llm load smollm2-135m" in capsys.readouterr().out
    for line in ("mem", "pause", "step", "slow 1", "trace save x", "trace export perfetto x"):
        with pytest.raises(UsageError, match=r"No engine is loaded\. Type `%llm load"):
            llm(shell, line)


def test_the_status_tells_of_conversations_and_pauses(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    llm(shell, "-c -q -n 2 Hi")
    fake.pause()
    capsys.readouterr()
    llm(shell, "")
    assert re.search(
        r"→ fake +letters on .*, 0 open requests, paused, conversation of 1 turns", capsys.readouterr().out
    )


# ---- driving


def test_a_paused_engine_takes_one_step_at_a_time(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    llm(shell, "pause")
    run = llm(shell, "batch -n 3 -o run", "Hello\nWorld\n")
    assert not run.done
    assert shell.user_ns["run"] is run
    (step,) = llm(shell, "step")
    assert {share.phase for share in step.scheduled} == {"prefill"}
    assert re.search(r"prefill \d+", capsys.readouterr().out)
    assert len(llm(shell, "step 2")) == 2
    assert llm(shell, "step 5") == ()
    assert "Nothing to do" in capsys.readouterr().out
    assert run.done
    llm(shell, "resume")
    assert llm(shell, "-q -n 2 Hi").finish_reason == "length"


def test_slow_motion_waits_between_steps(shell: InteractiveShell, fake: EngineHandle):
    llm(shell, "slow 0.1")
    result = llm(shell, "-q -n 4 Hi")
    assert min(result.itl_s) > 0.05
    llm(shell, "slow 0")
    assert max(llm(shell, "-q -n 4 Hi").itl_s) < 0.1


# ---- memory


def test_mem_says_who_measured_and_what_nobody_did(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    memory = llm(shell, "mem")
    shown = capsys.readouterr().out
    assert memory["rss"] > 10_000_000
    assert re.search(r"process of the engine +[\d.]+ [MG]B +measured", shown)
    assert re.search(r"weights +–", shown)
    assert re.search(r"free on this machine +[\d.]+ GB +measured", shown)


def test_mem_of_a_run_tells_its_use_of_the_cache(shell: InteractiveShell, fake: EngineHandle, capsys: Captured):
    llm(shell, "batch -q -n 20 -o run", "One\nTwo")
    used = llm(shell, "mem run")
    assert used == llmlab.metrics.kv_use(shell.user_ns["run"].trace)
    assert re.search(r"most of the KV cache in use +\d+%", capsys.readouterr().out)
    shell.push({"x": 3})
    with pytest.raises(UsageError, match="x is a int; name a variable with a run"):
        llm(shell, "mem x")


# ---- batches


def test_a_batch_prints_each_answer_as_it_ends_and_the_run_is_the_value(
    shell: InteractiveShell, fake: EngineHandle, capsys: Captured
):
    shell.push({"word": "kiwi"})
    run = llm(shell, "batch -n 5 -o runs", "Say {word}\n\nSay hi\n")
    assert shell.user_ns["runs"] is run
    assert [result.prompt_text for result in run.results] == ["<user>Say kiwi", "<user>Say hi"]
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"1\. Say kiwi -> .* \[5 tokens, TTFT .*, .* tok/s, length\]", lines[0])
    assert re.fullmatch(r"2 requests, 10 tokens, \d+ tok/s together", lines[-1])


def test_a_request_that_is_refused_does_not_fail_the_others(
    shell: InteractiveShell, fake: EngineHandle, capsys: Captured
):
    run = llm(shell, "batch -n 2", "x" * 400 + "\nHi")
    assert [result.finish_reason for result in run.results] == ["error", "length"]
    assert "max_model_len is 256" in capsys.readouterr().out


def test_a_rate_spreads_the_requests_the_same_way_each_time(shell: InteractiveShell, fake: EngineHandle):
    runs = [llm(shell, "batch -q -n 2 --rate 40 --seed 7", "a\nb\nc\nd") for _ in range(2)]
    sent_s = [[r.arrival_s for r in run.trace.of_requests(run.request_ids).request_records] for run in runs]
    gaps_s = [[after - before for before, after in itertools.pairwise(times)] for times in sent_s]
    assert len(gaps_s[0]) == 3
    assert min(gaps_s[0]) > 0
    assert gaps_s[0] == pytest.approx(gaps_s[1], abs=1e-6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("batch", "No prompts"),
        ("batch --var nothing", "No variable 'nothing'"),
        ("batch --var number", "number: a list of prompts is needed, and it is a int"),
        ("batch --file missing.txt", "No such file"),
        ("batch --var prompts --rate 0", "--rate is 0; it must be above 0"),
        ("batch --var prompts --rate 1 --burst", "give one of the two"),
    ],
)
def test_a_batch_that_cannot_be_says_why(shell: InteractiveShell, fake: EngineHandle, line: str, message: str):
    shell.push({"number": 3, "prompts": ["a"]})
    with pytest.raises(UsageError, match=re.escape(message)):
        llm(shell, line)


def test_prompts_come_from_a_variable_with_their_own_sampling(shell: InteractiveShell, fake: EngineHandle):
    shell.push({"prompts": ["Hi {x}", {"prompt": "Long", "max_tokens": 6}], "x": 1})
    run = llm(shell, "batch -q -n 2 --var prompts")
    assert [r.num_output_tokens for r in run.results] == [2, 6]
    assert run.results[0].prompt_text == "<user>Hi {x}"


def test_prompts_come_from_files(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b.csv").write_text('id,prompt\n1,"one, two"\n2,three\n')
    (tmp_path / "c.jsonl").write_text(json.dumps("one") + "\n" + json.dumps({"prompt": "two", "max_tokens": 3}) + "\n")
    assert read_prompts(tmp_path / "a.txt") == ["one", "two"]
    assert read_prompts(tmp_path / "b.csv") == ["one, two", "three"]
    assert read_prompts(tmp_path / "c.jsonl") == ["one", {"prompt": "two", "max_tokens": 3}]
    (tmp_path / "d.jsonl").write_text('"one"\n{"text": 1}\n')
    with pytest.raises(UsageError, match="line 2: a text or an object"):
        read_prompts(tmp_path / "d.jsonl")
    (tmp_path / "e.csv").write_text("question\nx\n")
    with pytest.raises(UsageError, match="no column 'prompt'; it has 'question'"):
        read_prompts(tmp_path / "e.csv")


def test_dashes_separate_prompts_of_several_lines():
    assert split_prompts("one\nmore\n\n---\ntwo\n---\n") == ["one\nmore", "two"]


# ---- traces


def test_a_trace_is_saved_and_loaded(shell: InteractiveShell, fake: EngineHandle, tmp_path: Path, capsys: Captured):
    llm(shell, "-q -n 3 Hi")
    shell.push({"folder": tmp_path})
    path = llm(shell, "trace save {folder}/run.jsonl.gz")
    assert path == tmp_path / "run.jsonl.gz"
    trace = llm(shell, f"trace load {path}")
    assert [r.prompt_text for r in trace.request_records] == ["<user>Hi"]
    assert not trace.validate()


def test_a_trace_is_played_again_and_leaves_the_engines_as_they_were(
    shell: InteractiveShell, fake: EngineHandle, tmp_path: Path, capsys: Captured
):
    run = llm(shell, "batch -q -n 12", "One\nTwo")
    path = run.trace.save(tmp_path / "run.jsonl.gz")
    capsys.readouterr()
    again = llm(shell, f"trace replay {path} --speed 0 -o played")
    assert [str(result) for result in again.results] == [str(result) for result in run.results]
    assert shell.user_ns["played"] is again
    assert "2 requests, 24 tokens" in capsys.readouterr().out
    assert list(llmlab.handles()) == ["fake"]
    assert llmlab.current() is fake
    assert llm(shell, f"trace replay {path} --speed 0 -q --as kept").done
    assert list(llmlab.handles()) == ["fake", "kept"]
    llm(shell, f"trace replay {path} --speed 0 --show-code")
    assert capsys.readouterr().out == (
        f"import llmlab\nllmlab.load({str(path)!r}, engine='replay', options={{'speed': 0.0}}).replay()\n"
    )


def test_a_trace_is_exported_for_perfetto(
    shell: InteractiveShell, fake: EngineHandle, tmp_path: Path, capsys: Captured
):
    llm(shell, "-q -n 3 Hi")
    capsys.readouterr()
    path = llm(shell, f"trace export perfetto {tmp_path}/run.json")
    assert path == tmp_path / "run.json"
    assert "ui.perfetto.dev" in capsys.readouterr().out
    assert {"prefill", "decode"} <= {e["name"].split()[0] for e in json.loads(path.read_text())["traceEvents"]}
    llm(shell, f"trace export perfetto {path} --show-code")
    assert capsys.readouterr().out == f"import llmlab\nllmlab.current().trace.to_perfetto({str(path)!r})\n"


def test_only_formats_that_are_known_are_exported(shell: InteractiveShell, fake: EngineHandle):
    with pytest.raises(UsageError, match=r"FORMAT takes perfetto, and got 'perfeto'\. Did you mean perfetto\?"):
        llm(shell, "trace export perfeto run.json")


def test_a_broken_trace_is_named_with_its_line(shell: InteractiveShell, tmp_path: Path):
    (tmp_path / "x.jsonl").write_text('{"schema": "llmlab.trace/1", "engine": "x"}\nnonsense\n')
    with pytest.raises(TraceError, match="line 2"):
        llm(shell, f"trace load {tmp_path}/x.jsonl")


# ---- help and --show-code


def test_help_lists_everything_or_one_verb(shell: InteractiveShell, capsys: Captured):
    llm(shell, "help step")
    by_help = capsys.readouterr().out
    llm(shell, "step --help")
    assert capsys.readouterr().out == by_help
    assert by_help.startswith("%llm step [N]")
    llm(shell, "help trace")
    assert "%llm trace replay FILE" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"No verb 'laod'\. Did you mean load"):
        llm(shell, "help laod")


@pytest.mark.parametrize(
    "line",
    [
        "", "ps", "use fake", "logs -n 3", "models", "doctor", "mem", "pause", "step 2", "resume", "slow 0",
        "help load", "unload", "unload fake", "unload --all", "trace save out.jsonl", "mem run",
        "trace export perfetto out.json",
        "batch --var prompts -n 2 -o runs",
        "load letters -e fake_engine:FakeEngine --as third --opt num_cells=64",
    ],
)  # fmt: skip
def test_show_code_prints_python_that_runs_and_does_nothing_else(
    shell: InteractiveShell,
    fake: EngineHandle,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
):
    monkeypatch.chdir(tmp_path)
    names = {"run": fake.batch(["Hi"], max_tokens=2), "prompts": ["a", "b"]}
    names["run"].wait()
    shell.push(names)
    assert llm(shell, f"{line} --show-code") is None
    code = capsys.readouterr().out
    assert code.startswith("import llmlab\n")
    assert list(llmlab.handles()) == ["fake"]
    assert not fake.is_paused
    assert not list(tmp_path.iterdir())
    exec(compile(code, "twin", "exec"), names)
