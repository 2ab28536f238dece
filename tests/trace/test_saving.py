"""Saving leaves a whole file or none: on a full disk, at a size limit, with a record that JSON cannot hold."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hand_written import with_step
from msgspec.structs import replace

from llmlab.errors import TraceError
from llmlab.trace import Header, Step, Token, Trace, jsonl
from llmlab.trace.example import two_requests

SAVE_A_MEGABYTE = """
import random, sys
from pathlib import Path
from llmlab.errors import TraceError
from llmlab.trace import Header, Request, Trace
ids = tuple(random.Random(0).choices(range(50_000), k=200_000))
trace = Trace(Header(engine="x"), (Request(request_id="a", arrival_s=0.0, prompt_token_ids=ids),))
path = Path(sys.argv[1])
{before}
try:
    trace.save(path)
except TraceError as error:
    print(error)
print(sorted(p.name for p in path.parent.iterdir()), path.read_text())
"""


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a mount namespace")
def test_on_a_full_disk_the_old_file_stays_and_no_other_is_left(name: str):
    """A real one: a tmpfs of 64 kB, in a mount namespace that ends with the process."""
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("no right to make a mount namespace here")
    script = SAVE_A_MEGABYTE.format(before="path.write_text('old')")
    mount = 'mount -t tmpfs -o size=64k none /mnt && exec "$0" -c "$1" /mnt/' + name
    done = subprocess.run([*namespace, mount, sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"/mnt/{name} cannot be written: No space left on device. Free some space, or save to another disk.",
        f"['{name}'] old",
    ]
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
@pytest.mark.skipif(os.name != "posix", reason="needs setrlimit")
def test_at_a_file_size_limit_the_old_file_stays_and_no_other_is_left(tmp_path: Path, name: str):
    (tmp_path / name).write_text("old")
    script = SAVE_A_MEGABYTE.format(before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))")
    command = [sys.executable, "-c", script, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{tmp_path / name} cannot be written: File too large. "
        "The file size limit is reached (`ulimit -f`): save less, or raise it.",
        f"['{name}'] old",
    ]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("none/t.jsonl", "No such file or directory. Make the folder first, or save elsewhere."),
        ("folder", "Is a directory. Give a file name in that folder."),
        ("file/t.jsonl", "Not a directory. Save elsewhere."),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named_with_what_to_do(tmp_path: Path, where: str, sentence: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    with pytest.raises(TraceError) as caught:
        two_requests().save(tmp_path / where)
    assert str(caught.value) == f"{tmp_path / where} cannot be written: {sentence}"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_folder_without_the_right_to_write_is_named(tmp_path: Path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(TraceError, match=r"Permission denied. Save to a folder of your own."):
        two_requests().save(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (
            with_step(two_requests(), 1, t_s=float("inf")),
            "line 5: Step 1 cannot be written: Expected float, got null at t_s. Nothing was saved.",
        ),
        (
            with_step(two_requests(), 2, stopped_by={"a": "\ud800"}),
            "line 6: Step 2 cannot be written: holds '\\ud800', half of a character, which UTF-8 cannot hold. "
            "Nothing was saved.",
        ),
        (
            with_step(two_requests(), 1, tokens=(Token(request_id="a", token_id=-1),)),
            "line 5: Step 1 cannot be written: Expected int >= 0 at tokens[0].token_id. Nothing was saved.",
        ),
        (
            with_step(two_requests(), 1, extra={"incident": 7}),
            "line 5: Step 1 cannot be written: Expected str, got int at incident. Nothing was saved.",
        ),
        (
            with_step(two_requests(), 1, extra={"t_s": 7}),
            "line 5: Step 1 cannot be written: JSON cannot hold it: extra has 't_s', which is a field of Step. "
            "Nothing was saved.",
        ),
        (
            Trace(Header(engine="x"), (replace(two_requests().request_records[0], sampling={"seed": object()}),)),
            "line 2: Request a cannot be written: JSON cannot hold it: Encoding objects of type object is "
            "unsupported. Nothing was saved.",
        ),
        (
            Trace(Header(engine="x", model="m" * 2**24)),
            "line 1: Header cannot be written: it has 16777267 bytes, a line holds 16777216. Nothing was saved.",
        ),
    ],
)
def test_a_record_that_could_not_be_read_back_is_not_written(tmp_path: Path, broken: Trace, sentence: str):
    (tmp_path / "t.jsonl").write_text("old")
    with pytest.raises(TraceError) as caught:
        broken.save(tmp_path / "t.jsonl")
    assert str(caught.value) == sentence
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("t.jsonl", "old")]


def test_an_interrupt_while_saving_leaves_nothing_half_made(tmp_path: Path):
    def records():
        yield Header(engine="x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jsonl.write(tmp_path / "t.jsonl", records())
    assert list(tmp_path.iterdir()) == []


def test_a_saved_file_has_the_rights_of_any_new_file_and_a_link_is_followed(tmp_path: Path):
    (tmp_path / "plain").touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "target.jsonl")
    two_requests().save(tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert stat.S_IMODE((tmp_path / "target.jsonl").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


# ---- what a broken file still holds


def test_salvage_keeps_what_is_before_the_broken_line_and_ends_who_ran(tmp_path: Path):
    lines = two_requests().save(tmp_path / "t.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "t.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:40])
    with pytest.raises(TraceError, match=r"line 6: the file ends inside this line\. The 5 lines before are sound"):
        Trace.load(tmp_path / "t.jsonl")
    trace = Trace.load(tmp_path / "t.jsonl", salvage=True)
    assert trace.step_records == two_requests().step_records[:2]
    (incident,) = trace.incidents
    assert (incident.incident, incident.t_s, incident.requests) == ("cut", 2.0, ("a", "b"))
    assert incident.text.startswith("line 6: the file ends inside this line")
    assert trace.validate() == []


def test_salvage_ends_only_who_has_not_ended(tmp_path: Path):
    trace = with_step(two_requests(), 1, finished={"b": "abort"})
    path = trace.save(tmp_path / "t.jsonl")
    path.write_bytes(path.read_bytes().replace(b'{"step":2', b'{"stop":2'))
    assert Trace.load(path, salvage=True).incidents[0].requests == ("a",)


def test_a_sound_file_loads_the_same_with_salvage(tmp_path: Path):
    path = two_requests().save(tmp_path / "t.jsonl")
    assert Trace.load(path, salvage=True) == two_requests()


def test_without_a_sound_header_there_is_nothing_to_salvage(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text("{}")
    with pytest.raises(TraceError, match="line 1: is no header"):
        Trace.load(tmp_path / "t.jsonl", salvage=True)


def test_a_trace_begins_with_a_header():
    with pytest.raises(TypeError, match="the first record of a trace is its Header, not Step"):
        Trace.of([Step(step=0, t_s=0.0)])
