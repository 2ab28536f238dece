"""Runs that a lab's notebook makes, recorded: for a computer on which no engine can be installed.

They are files in the folder recorded/ of the lab; labs/record.py makes them. This file must not know any lab.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.errors import LlmlabError, unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmlab.engines.run import Run


def recorded(name: str, *, speed: float = 1.0) -> Run | NDArray[Any]:
    """A run of the lab that was started, played again as it was on another computer; of some only an array was kept.

    `speed`: 2 = twice as fast, 0 = without waiting. Raises: LlmlabError for an unknown name.
    """
    from llmlab.labs.work import current_work

    files = _files(current_work().lab.folder)
    if name not in files:
        raise LlmlabError(unknown("recorded run", name, files))
    return _array(files[name]) if files[name].suffix == ".npy" else _played(files[name], speed)


def recorded_elsewhere(value: object) -> bool:
    """Is it a run that was played again, or are there some in this list?"""
    if isinstance(value, list | tuple):
        return any(map(recorded_elsewhere, value))
    return getattr(getattr(value, "engine", None), "engine", None) == "replay"


def _files(folder: Path) -> dict[str, Path]:
    return {path.name.partition(".")[0]: path for path in sorted((folder / "recorded").glob("*"))}


def _array(path: Path) -> NDArray[Any]:
    """Logits are kept as float16, less their largest: the softmax is the same."""
    import numpy as np

    array: NDArray[Any] = np.load(path)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _played(path: Path, speed: float) -> Run:
    import llmlab

    with llmlab.load(str(path), engine="replay", isolation="inline", options={"speed": speed}) as engine:
        run: Run = engine.replay()
        run.wait()
        _ = run.trace  # while there is an engine to cut it out of
    return run
