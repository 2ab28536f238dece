"""Log: one line of JSON for each request that a gateway took: where it went and why, what it took, what it cost.

No prompt, no answer, no key. The file is opened for each line, so that it may be moved away at any time.
This file must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from llmlab.errors import LlmlabError
from llmlab.language import tr

if TYPE_CHECKING:
    import pandas as pd


class Attempt(msgspec.Struct, frozen=True):
    """A backend that did not take the request, or lost it before a word of the answer."""

    backend: str
    why: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One request. None: not known, or there was none."""

    # seconds since 1970, when it came
    at_s: float
    request_id: str
    # the name of the key, never the key
    client: str
    model: str
    stream: bool
    # who answered, and why he did
    backend: str | None
    reason: str
    attempts: list[Attempt]
    # of the answer; 499: the client did not wait for it
    status: int
    # a word for what went wrong
    error: str | None
    num_prompt_tokens: int
    num_output_tokens: int | None
    # who counted: the backend, or the gateway by bytes and events
    counted_by: Literal["reported", "estimated"]
    cost: float | None
    ttft_s: float | None
    e2e_s: float


class Log:
    """Where entries go; `path` None: nowhere."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def check(self) -> None:
        """Raises: LlmlabError when nothing can be written there."""
        if self.path is not None:
            try:
                self.path.open("ab").close()
            except OSError as error:
                raise LlmlabError(
                    tr("The log {path} cannot be written ({error}). Name another place: `log:`.", path=self.path,
                       error=error.strerror)
                ) from None  # fmt: skip

    def write(self, entry: Entry) -> None:
        """Raises: OSError when the disk is full, or the place is gone."""
        if self.path is not None:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")

    def entries(self) -> Iterator[Entry]:
        """What is in the file, oldest first; a line that was cut off at the end is left out."""
        if self.path is None or not self.path.exists():
            return
        decoder = msgspec.json.Decoder(Entry)
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield decoder.decode(line)
                except msgspec.MsgspecError as error:
                    if not line.endswith(b"\n"):
                        return
                    raise LlmlabError(
                        tr(
                            "{path}, line {line} is no entry of a gateway's log ({error}). Is it the right file?",
                            path=self.path,
                            line=number,
                            error=error,
                        )
                    ) from None


def read_log(path: str | Path) -> pd.DataFrame:
    """The log as a table, a row for each request; `at` is when it came, `ended_at` when its answer had ended, in UTC.

    Raises: LlmlabError for a file that is no log.
    """
    import pandas as pd

    if not Path(path).exists():
        raise LlmlabError(tr("There is no log at {path}: a gateway makes it with its first request.", path=path))
    rows = [msgspec.to_builtins(entry) for entry in Log(Path(path)).entries()]
    table = pd.DataFrame(rows, columns=list(Entry.__struct_fields__))
    table.insert(0, "at", pd.to_datetime(table.pop("at_s"), unit="s", utc=True))
    table.insert(1, "ended_at", table["at"] + pd.to_timedelta(table["e2e_s"], unit="s"))
    return table
