"""Model folders from the Hugging Face Hub: first the small files, the weights when they are needed.

What is in the Hub's own cache is used without network. This file must not know conversion.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from llmlab.errors import ModelError

_SMALL_FILES = ["*.json", "*.jinja"]
_ALL_FILES = [*_SMALL_FILES, "*.safetensors"]


def cache_folder() -> Path:
    """The Hub's cache. Source: huggingface_hub/constants.py, read here because importing that package takes 0.3 s."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(home).expanduser() / "hub"


def cached_repos() -> dict[str, Path]:
    """Repo id -> newest snapshot folder that holds config and all weights; reads the disk only."""
    found = {}
    for repo in sorted(cache_folder().glob("models--*--*")):
        snapshots = [snapshot for snapshot in repo.glob("snapshots/*") if is_complete(snapshot)]
        if snapshots:
            found["/".join(repo.name.split("--")[1:])] = max(snapshots, key=lambda folder: folder.stat().st_mtime)
    return found


def is_complete(folder: Path) -> bool:
    """True when config.json and every shard of the weights are there."""
    shards = [path.name for path in folder.glob("*.safetensors")]
    # model-00001-of-00003.safetensors says how many there are
    wanted = max((int(match[1]) for name in shards if (match := re.search(r"-of-(\d+)\.", name))), default=1)
    return (folder / "config.json").exists() and len(shards) >= wanted


def small_files(repo_id: str, works_offline: str) -> Path:
    """The snapshot folder with config and tokenizer, without the weights if they are not there yet.

    Raises ModelError when the Hub cannot be reached or has no such model; `works_offline` names what needs no network.
    """
    return cached_repos().get(repo_id) or _download(repo_id, None, _SMALL_FILES, works_offline)


def all_files(repo_id: str, snapshot: Path, works_offline: str) -> Path:
    """That snapshot with its weights, downloaded with a progress bar when they are not there yet."""
    return snapshot if is_complete(snapshot) else _download(repo_id, snapshot.name, _ALL_FILES, works_offline)


def _download(repo_id: str, commit: str | None, patterns: list[str], works_offline: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError:
        raise ModelError(
            f"{repo_id!r} is on the Hugging Face Hub; downloading needs `pip install huggingface-hub`. {works_offline}"
        ) from None
    try:
        return Path(snapshot_download(repo_id, revision=commit, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(
            f"{repo_id!r} asks you to accept its licence: open https://huggingface.co/{repo_id}, accept, run `hf auth"
            " login`, and load it again."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The Hub has no model {repo_id!r} that you may read. Check the spelling, or run `hf auth login`."
            f" {works_offline}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{repo_id!r} is not on this computer and the Hub cannot be reached. Go online once to fetch it."
            f" {works_offline}"
        ) from error
    except OSError as error:  # disk full, connection lost half-way: what arrived is kept and the next try goes on
        raise ModelError(
            f"Downloading {repo_id!r} stopped: {error}. Load it again to go on where it stopped."
        ) from error
