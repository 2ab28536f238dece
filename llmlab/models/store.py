"""The cache folder, and the one way in which a file enters it: whole, once, whoever asks at the same time.

This file must not know what is built.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from llmlab.errors import ModelError

_PART = ".part"


def root() -> Path:
    """The cache folder: $LLMLAB_CACHE, else the user's cache folder for llmlab (XDG on Linux)."""
    chosen = os.environ.get("LLMLAB_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("llmlab")


def made(path: Path, build: Callable[[Path], object], *, num_bytes: int = 0) -> Path:
    """`path`, built first when it is not there yet.

    `build(part)` makes a file or folder at `part`; it takes the name `path` when it is complete and on disk. A second
    process that wants the same path waits and finds it made. What killed builds left in this folder is removed.
    `num_bytes` is the room that the build needs, 0 when not known.

    Raises ModelError when the disk is full or the folder cannot be written.
    """
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not path.exists():
                _sweep(path.parent, locked=path)
                _refuse_full_disk(path.parent, num_bytes)
                _build(path, build)
    except OSError as error:
        raise _cannot_make(path, error) from error
    return path


def _build(path: Path, build: Callable[[Path], object]) -> None:
    part = path.with_name(path.name + _PART)
    _remove(part)
    try:
        build(part)
        for file in [part, *part.rglob("*")] if part.is_dir() else [part]:
            _to_disk(file)
        part.replace(path)
        _to_disk(path.parent)
    finally:
        _remove(part)


def _locked(path: Path) -> AbstractContextManager[object]:
    """Held by one process at a time; the system frees it when that process ends, however it ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        return lock.acquire(timeout=1)
    except Timeout:
        print(f"Waiting for another process that makes {path.name} ...", file=sys.stderr)
        return lock.acquire()


def _sweep(folder: Path, *, locked: Path) -> None:
    """Removes what killed builds of other paths left: a part whose lock is free has no builder."""
    from filelock import FileLock, Timeout

    for part in folder.glob("*" + _PART):
        path = part.with_name(part.name.removesuffix(_PART))
        if path == locked:
            continue
        try:
            with FileLock(path.with_name(path.name + ".lock"), timeout=0):
                _remove(part)
        except Timeout:
            continue


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_full_disk(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise ModelError(
            f"{folder} has {free / 1e9:.1f} GB free, this model needs {num_bytes / 1e9:.1f} GB. Free some room, or set"
            " LLMLAB_CACHE to a folder on another disk."
        )


def _cannot_make(path: Path, error: OSError) -> ModelError:
    # numpy's tofile reports a full disk by an OSError without errno
    if error.errno in (None, errno.ENOSPC, errno.EDQUOT):
        what = f"The disk is full: {path.parent}. Free some room"
    else:
        what = f"Cannot make {path}: {error}. Check that folder"
    return ModelError(f"{what}, or set LLMLAB_CACHE to a folder with room that you may write.")
