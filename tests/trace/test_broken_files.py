"""A broken trace file is a TraceError that names its line: never a crash, and no more memory than the file is worth."""

from __future__ import annotations

import gzip
import os
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broken_files import broken
from hand_written import preemption_in_blocks, prefix_sharing_in_cells

from llmlab.errors import TraceError
from llmlab.trace import Trace, jsonl
from llmlab.trace.example import two_requests

HEADER = b'{"schema":"llmlab.trace/1","engine":"x"}\n'
STEP = b'{"step":%d,"t_s":%d.0}\n'


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: thousands of files are written."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        yield Path(name)


def sound_files(folder: Path) -> list[bytes]:
    traces = (two_requests(), prefix_sharing_in_cells(), preemption_in_blocks())
    return [trace.save(folder / "sound.jsonl").read_bytes() for trace in traces]


def load_or_refuse(path: Path, *, salvage: bool = False) -> Trace | TraceError:
    try:
        return Trace.load(path, salvage=salvage)
    except TraceError as error:
        return error


@pytest.mark.parametrize("num_files", [4_000, pytest.param(20_000, marks=pytest.mark.soak)])
def test_broken_files_give_a_trace_error_with_its_line_or_a_trace_that_is_whole(folder: Path, num_files: int):
    sound, outcomes = sound_files(folder), Counter[str]()
    for number in range(num_files):
        suffix, content = broken(number, sound)
        path = folder / f"t{suffix}"
        path.write_bytes(content)
        trace = load_or_refuse(path)
        if isinstance(trace, TraceError):
            assert trace.line, f"file {number}: {trace}"
            assert trace.line <= content.count(b"\n") + 1 or suffix == ".jsonl.gz", f"file {number}: {trace}"
            assert str(trace).startswith(f"line {trace.line}: "), f"file {number}: {trace}"
            outcomes["refused"] += 1
        else:
            trace.validate()
            assert list(jsonl.read(trace.save(folder / "again.jsonl"))) == trace.records(), f"file {number}"
            outcomes["sound"] += 1
    assert outcomes["refused"] > 0.6 * num_files
    assert outcomes["sound"] > 0.025 * num_files


def test_what_can_be_salvaged_from_any_broken_file_is_a_trace_that_can_be_saved(folder: Path):
    sound = sound_files(folder)
    for number in range(0, 20_000, 20):
        suffix, content = broken(number, sound)
        path = folder / f"t{suffix}"
        path.write_bytes(content)
        trace = load_or_refuse(path, salvage=True)
        if isinstance(trace, TraceError):
            assert trace.line == 1, f"file {number}: {trace}"
        else:
            assert Trace.load(trace.save(folder / "again.jsonl")) == trace, f"file {number}"


def load(folder: Path, content: bytes, name: str = "t.jsonl") -> Trace:
    (folder / name).write_bytes(content)
    return Trace.load(folder / name)


def refuses(path: Path) -> None:
    with pytest.raises(TraceError):
        Trace.load(path)


def refusal(folder: Path, content: bytes, name: str = "t.jsonl") -> str:
    with pytest.raises(TraceError) as caught:
        load(folder, content, name)
    return str(caught.value)


SALVAGE = "The 2 lines before are sound: Trace.load('t.jsonl', salvage=True)."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "line 1: is empty; a trace starts with its header."),
        (b"\n \n", "line 1: is empty; a trace starts with its header."),
        (STEP % (0, 1), "line 1: is a Step; a trace starts with its header."),
        (HEADER + HEADER, "line 2: is a second header; one file holds one trace. The line before is sound: "
         "Trace.load('t.jsonl', salvage=True)."),
        (b'{"schema":"llmlab.trace/2","engine":[]}\n',
         "line 1: its schema is 'llmlab.trace/2', this llmlab reads 'llmlab.trace/1'. Open it with a newer llmlab."),
        (b'{"schema":"llmlab.trace/1"}\n', "line 1: Object missing required field engine."),
        (b"\xef\xbb\xbf" + HEADER, "line 1: starts with a byte order mark: save it as UTF-8 without one."),
        (HEADER.decode().encode("utf-16"), "line 1: is not UTF-8: byte 0xff in column 1."),
        (gzip.compress(HEADER, mtime=0), "line 1: is gzip: rename the file to t.jsonl.gz."),
        (b"hello", "line 1: is no JSON: Expecting value, column 1."),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s', f"line 3: the file ends inside this line. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s\n',
         f"line 3: is no JSON: Unterminated string starting at, column 11. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s":1,"t_s":2}\n', f"line 3: has the key 't_s' twice. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":"1","t_s":1}\n', f"line 3: Expected int, got str at step. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":-1,"t_s":1}\n', f"line 3: Expected int >= 0 at step. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s":NaN}\n',
         f"line 3: holds NaN, which is no finite number. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s":1e999}\n',
         f"line 3: holds 1e999, which is no finite number. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s":1,"kv":{"kind":"pages"}}\n',
         f"line 3: Invalid value 'pages' at kv.kind. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s":1,"kv":{"kind":"cells","num_used":0,"num_cells":99999999,'
         b'"num_attended":0}}\n', f"line 3: Expected int <= 16777216 at kv.num_cells. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s":1,"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n",
         f"line 3: is nested too deeply. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"stop":1}\n',
         'line 3: is no header, request, step or incident: it has no "schema", "request_id", "step" or "incident". '
         f"{SALVAGE}"),
        (HEADER + STEP % (0, 1) + b"\n" + STEP % (1, 2), f"line 3: is empty, but others follow. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b"[]\n", f"line 3: is no JSON object. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":' + b"1" * 5000 + b"}\n",
         f"line 3: holds a number of more than 4,300 digits. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s":1,"x":"\\ud800"}\n',
         f"line 3: holds '\\ud800', half of a character, which UTF-8 cannot hold. {SALVAGE}"),
        (HEADER + STEP % (0, 1) + b'{"step":1,"t_s":1,"x":"' + b"a" * 2**24 + b'"}\n',
         f"line 3: is longer than 16777216 bytes. {SALVAGE}"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_is_wrong_and_what_to_do(folder: Path, content: bytes, sentence: str):
    assert refusal(folder, content) == sentence


def test_a_gz_that_is_cut_damaged_or_no_gz_at_all_says_so(folder: Path):
    lines = HEADER + b"".join(STEP % (i, i) for i in range(2000))
    packed = gzip.compress(lines, mtime=0)
    assert refusal(folder, lines, "t.jsonl.gz") == "line 1: the gzip data are damaged (Not a gzipped file (b'{\"'))."
    cut = refusal(folder, packed[: len(packed) // 2], "t.jsonl.gz")
    assert "the gzip data end here, in the middle" in cut
    assert "lines before are sound: Trace.load('t.jsonl.gz', salvage=True)." in cut
    assert "the gzip data are damaged (CRC check failed" in refusal(folder, packed[:-8] + b"\x00" * 8, "t.jsonl.gz")


def test_blank_lines_at_the_end_and_a_missing_last_line_end_are_fine(folder: Path):
    assert len(load(folder, HEADER + STEP % (0, 1) + b"\n\n  \n").step_records) == 1
    assert len(load(folder, HEADER + (STEP % (0, 1)).rstrip()).step_records) == 1
    assert len(load(folder, (HEADER + STEP % (0, 1)).replace(b"\n", b"\r\n")).step_records) == 1


def test_a_file_that_cannot_be_opened_is_a_trace_error_without_a_line(folder: Path):
    for path, reason in [
        (folder / "none.jsonl", "No such file or directory"),
        (folder, "Is a directory"),
        (folder / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(TraceError) as caught:
            Trace.load(path)
        assert (str(caught.value), caught.value.line) == (f"{path} cannot be read: {reason}.", None)


# ---- memory


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that Python held at one time while working, beyond what it held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def step_with(value: bytes) -> bytes:
    return HEADER + b'{"step":0,"t_s":0.0,"x":' + value + b"}\n"


BIG = {
    "empty lists": step_with(b"[" + b",".join([b"[]"] * 200_000) + b"]"),
    "empty objects": step_with(b"[" + b",".join([b"{}"] * 200_000) + b"]"),
    "numbers": step_with(b"[" + b",".join([b"1.5"] * 200_000) + b"]"),
    "keys": step_with(b"{" + b",".join(b'"%d":0' % i for i in range(100_000)) + b"}"),
    "one key twice": step_with(b"{" + b",".join([b'"":0'] * 200_000) + b"}"),
    "text beyond the BMP": step_with('"😀'.encode() + b"a" * 1_000_000 + b'"'),
    "steps": HEADER + b"".join(STEP % (i, i) for i in range(30_000)),
    "prompt": HEADER + b'{"request_id":"a","arrival_s":0.0,"prompt_token_ids":[' + b"9," * 300_000 + b"9]}\n",
    "a huge run": HEADER
    + b'{"step":0,"t_s":0.0,"kv":{"kind":"cells","written":{"a":[[0,0,9000000000000000]]},"num_used":1,'
    b'"num_cells":16777216,"num_attended":1}}\n',
    "huge counts": HEADER + b'{"step":9000000000000000,"t_s":1e300,"num_waiting":9000000000000000}\n',
}


@pytest.mark.parametrize("name", BIG)
def test_reading_takes_a_small_multiple_of_the_file(folder: Path, name: str):
    (folder / "t.jsonl").write_bytes(BIG[name])

    def work() -> None:
        try:
            Trace.load(folder / "t.jsonl")
        except TraceError:
            assert name == "one key twice"

    # 5 to 20 times for traces of real runs; the worst are empty objects, 64 bytes each and held twice for a moment.
    assert peak_bytes(work) <= 56 * len(BIG[name]) + 2**20


def test_a_line_without_end_is_refused_before_it_is_read_whole(folder: Path):
    with open(folder / "t.jsonl", "wb") as file:
        file.truncate(2**31)  # zeros, which take no room on disk
    with pytest.raises(TraceError, match="line 1: is longer than 16777216 bytes"):
        Trace.load(folder / "t.jsonl")
    assert peak_bytes(lambda: refuses(folder / "t.jsonl")) < 3 * jsonl.MAX_LINE_BYTES


def test_a_gz_that_expands_beyond_reason_is_refused_at_the_line_where_it_shows(folder: Path):
    line = b'{"incident":"cut","t_s":0.0,"text":"' + b"a" * 2**20 + b'"}\n'
    packed = gzip.compress(HEADER + line * 200, 9, mtime=0)
    assert 200 * len(line) > 900 * len(packed)
    (folder / "bomb.jsonl.gz").write_bytes(packed)
    allowed = jsonl.MAX_GZIP_RATIO * len(packed) + jsonl.GZIP_SLACK_BYTES
    with pytest.raises(TraceError, match=r"this \.gz expands to more than 250 times its size") as caught:
        Trace.load(folder / "bomb.jsonl.gz")
    assert caught.value.line == 1 + allowed // len(line) + 1
    assert peak_bytes(lambda: refuses(folder / "bomb.jsonl.gz")) < 1.2 * allowed + 2**22
