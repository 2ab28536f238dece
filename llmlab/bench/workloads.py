"""Workloads: what is asked and in which rhythm, by name. Each is a JSON file in datasets/workloads/, with a data sheet.

This file must not know engines or clocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from llmlab.errors import RequestError, unknown
from llmlab.shipped import shipped

# What `load` counts, by kind of arrivals.
LOADS = {"burst": "requests at once", "poisson": "requests/s", "closed": "users"}


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When requests come: all at once, at random times, or each user's next one after the last answer."""

    kind: Literal["burst", "poisson", "closed"]
    # closed: seconds between an answer and the next turn of the same conversation
    think_s: float = 0.0


class PromptKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sort of prompt in a workload; `share` is its weight among the others."""

    kind: Literal["question", "passages"]
    share: float = 1.0
    # file in datasets/texts/ that stands before each question
    system: str | None = None
    # how many paragraphs of datasets/texts/harbour.txt, from and to
    passages: tuple[int, int] = (1, 1)
    turns: int = 1


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked, and in which rhythm. `load` and `num_requests` are what it takes when nobody says otherwise."""

    title: str
    about: str
    arrivals: Arrivals
    load: float
    num_requests: int
    # The length of each answer, drawn evenly from this range. Answers do not end earlier, so that every engine has the
    # same work, and no engine is fast for being curt.
    max_tokens: tuple[int, int]
    prompts: tuple[PromptKind, ...]
    name: str = ""

    @property
    def load_unit(self) -> str:
        return LOADS[self.arrivals.kind]

    @property
    def is_open(self) -> bool:
        """Whether requests come whatever the engine does."""
        return self.arrivals.kind != "closed"


def workloads() -> dict[str, Workload]:
    """The workloads that come with llmlab, by name.

    >>> sorted(workloads())
    ['burst', 'chat_turns', 'closed_loop', 'long_prompts', 'mixed', 'poisson', 'shared_system_prompt']
    """
    return {path.stem: read_workload(path) for path in sorted(shipped("workloads").glob("*.json"))}


def workload(which: str | Path | Workload) -> Workload:
    """A workload by its name, or from a JSON file of the same form.

    Raises: RequestError for an unknown name, or a file that is no workload.
    """
    if isinstance(which, Workload):
        return which
    if str(which).endswith(".json"):
        return read_workload(Path(which))
    known = workloads()
    name = str(which).replace("-", "_").replace(" ", "_")
    if name not in known:
        raise RequestError(unknown("workload", str(which), known))
    return known[name]


def read_workload(path: Path) -> Workload:
    """Raises: RequestError with what is wrong in the file."""
    try:
        read = msgspec.json.decode(path.read_bytes(), type=Workload)
    except (OSError, msgspec.DecodeError) as error:
        raise RequestError(f"{path} is no workload: {error}. Compare it with datasets/workloads/mixed.json.") from None
    found = msgspec.structs.replace(read, name=read.name or path.stem)
    if (wrong := _wrong(found)) is not None:
        raise RequestError(f"{path}: {wrong}")
    return found


def _wrong(w: Workload) -> str | None:
    """What no plan can be made of, as a sentence."""
    if not w.load > 0 or w.num_requests < 1:
        return f"load is {w.load:g} and num_requests is {w.num_requests}; both must be above 0."
    if not 1 <= w.max_tokens[0] <= w.max_tokens[1]:
        return f"max_tokens is {list(w.max_tokens)}; give [fewest, most], 1 or more."
    if not w.prompts or not all(kind.share > 0 and kind.turns >= 1 for kind in w.prompts):
        return "prompts needs at least one kind, each with a share above 0 and 1 or more turns."
    if w.is_open and any(kind.turns > 1 for kind in w.prompts):
        return 'a next turn has to wait for the answer before it: conversations need {"kind": "closed"} arrivals.'
    return None
