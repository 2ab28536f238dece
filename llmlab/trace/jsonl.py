"""Trace files: JSON Lines both ways, gzip by the suffix .gz. A broken file is a TraceError that names its line.

Reading takes no more memory than the lines need: nothing is allocated from a number in the file, and neither a line
nor the expansion of a .gz is without bound. Writing leaves a whole file or none.
This file must not know what the records mean: lines.py reads them, validation.py judges them.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import itertools
import math
import os
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from llmlab.errors import TraceError
from llmlab.trace import lines
from llmlab.trace.lines import Line
from llmlab.trace.records import Header

__all__ = ["Line", "is_trace_file", "read", "write", "write_whole"]

MAX_LINE_BYTES = 16 * 2**20
# Deflate can expand a thousandfold; traces of real runs compress 5 to 30 times.
MAX_GZIP_RATIO = 250
GZIP_SLACK_BYTES = 2**20

SUFFIXES = (".jsonl", ".jsonl.gz")

_ADVICE = {
    errno.ENOSPC: "Free some space, or save to another disk.",
    errno.EDQUOT: "Your quota is used up: free some space, or save to another disk.",
    errno.EFBIG: "The file size limit is reached (`ulimit -f`): save less, or raise it.",
    errno.ENOENT: "Make the folder first, or save elsewhere.",
    errno.EACCES: "Save to a folder of your own.",
    errno.EPERM: "Save to a folder of your own.",
    errno.EROFS: "Save to a folder of your own.",
    errno.EISDIR: "Give a file name in that folder.",
}


def is_trace_file(name: str) -> bool:
    """Whether a name is that of a saved trace, not of a model."""
    return name.endswith(SUFFIXES)


def read(path: Path) -> Iterator[Line]:
    """The records of a trace file, in order; the first is its Header. Lazy: what is before a broken line is yielded.

    Raises: TraceError, with the number of the line that is broken (None when the file cannot be opened).
    """
    try:
        with open(path, "rb") as file:
            yield from _records(path, file)
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror or error}.") from None


def write(path: Path, records: Iterable[Line]) -> Path:
    """Write the records, one a line. The file appears whole or not at all; what was there before stays until then.

    The same records give the same bytes, in a .gz too.

    Raises: TraceError when it cannot be written, or a record cannot be read back.
    """
    return write_whole(path, lambda file: _write_lines(file, records))


def write_whole(path: Path, write_into: Callable[[BinaryIO], None]) -> Path:
    """Let `write_into` fill a file (gzip by the suffix .gz), which takes the place of `path` once it is whole.

    Raises: TraceError when it cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link keeps pointing there
    temporary = target.with_name(f".llmlab-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            if _is_gzip(path):
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                    write_into(cast(BinaryIO, packed))
            else:
                write_into(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Save elsewhere.")
        raise TraceError(f"{path} cannot be written: {error.strerror or error}. {advice}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _write_lines(file: BinaryIO, records: Iterable[Line]) -> None:
    for number, record in enumerate(records, start=1):
        try:
            file.write(_checked_line(record) + b"\n")
        except TraceError as error:
            name = f"{type(record).__name__} {getattr(record, 'step', getattr(record, 'request_id', ''))}".rstrip()
            raise TraceError(f"{name} cannot be written: {error}. Nothing was saved.", number) from None


def _checked_line(record: Line) -> bytes:
    """The line of a record, after reading it back."""
    line = lines.encode(record)
    if len(line) >= MAX_LINE_BYTES:
        raise TraceError(f"it has {len(line)} bytes, a line holds {MAX_LINE_BYTES}")
    read_back = lines.decode(line)
    if type(read_back) is not type(record):
        raise TraceError(f"its extra fields make it look like a {type(read_back).__name__}")
    return line


def _records(path: Path, file: BinaryIO) -> Iterator[Line]:
    raw_lines = _raw_lines(path, file)
    for number in itertools.count(1):
        try:
            raw = next(raw_lines, b"")
            if not raw.strip():
                _refuse_more(raw_lines, number)
                return
            record = _record(raw, number)
        except TraceError as error:
            raise TraceError(f"{error}.{_hint(path, number)}", number) from None
        yield record


def _refuse_more(raw_lines: Iterator[bytes], number: int) -> None:
    """Empty lines at the end are fine, in the middle something is lost."""
    if any(raw.strip() for raw in raw_lines):
        raise TraceError("is empty, but others follow")
    if number == 1:
        raise TraceError("is empty; a trace starts with its header")


def _record(raw: bytes, number: int) -> Line:
    try:
        record = lines.decode(raw.rstrip(b"\r\n"))
    except lines.NotJson:
        if raw.endswith(b"\n") or number == 1:
            raise
        raise TraceError("the file ends inside this line") from None
    if number == 1 and not isinstance(record, Header):
        raise TraceError(f"is a {type(record).__name__}; a trace starts with its header")
    if number > 1 and isinstance(record, Header):
        raise TraceError("is a second header; one file holds one trace")
    return record


def _raw_lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Lines with their line end. Raises TraceError when one, or a .gz as a whole, is longer than can be honest."""
    source: BinaryIO | gzip.GzipFile = file
    left: float = math.inf
    if _is_gzip(path):
        source = gzip.GzipFile(fileobj=file)
        left = MAX_GZIP_RATIO * os.fstat(file.fileno()).st_size + GZIP_SLACK_BYTES
    while True:
        limit = int(min(MAX_LINE_BYTES, left))
        try:
            raw = source.readline(limit + 1)
        except EOFError:
            raise TraceError("the gzip data end here, in the middle") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise TraceError(f"the gzip data are damaged ({error})") from None
        if not raw:
            return
        if len(raw) > limit:
            raise TraceError(
                f"is longer than {MAX_LINE_BYTES} bytes"
                if limit == MAX_LINE_BYTES
                else f"this .gz expands to more than {MAX_GZIP_RATIO} times its size"
            )
        if left == math.inf and raw.startswith(b"\x1f\x8b"):
            raise TraceError(f"is gzip: rename the file to {path.name}.gz")
        left -= len(raw)
        yield raw


def _hint(path: Path, number: int) -> str:
    if number == 1:
        return ""
    before = "The line before is" if number == 2 else f"The {number - 1} lines before are"
    return f" {before} sound: Trace.load({path.name!r}, salvage=True)."
