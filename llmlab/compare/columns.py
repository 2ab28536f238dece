"""Column: one engine with one choice of settings, and its answers. The grid: lists among the options make columns.

This file must not know who answers when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from llmlab.engines.base import EngineConfig
from llmlab.engines.handle import EngineHandle
from llmlab.engines.loading import load
from llmlab.engines.prompts import PromptMaker
from llmlab.engines.registry import handles, named, require_loaded
from llmlab.engines.result import Result
from llmlab.engines.run import Run
from llmlab.errors import ModelError, RequestError
from llmlab.models import get

MIN_COLUMNS, MAX_COLUMNS = 2, 16
# Options that another engine must be loaded for.
OF_LOADING = ("quant", "dtype")
# These are lists already: a grid over them is a list of lists.
_LISTS = ("stop", "choice")


@dataclass(eq=False)
class Column:
    """One place in a comparison. `error` says why there are no more answers."""

    handle: EngineHandle
    name: str
    # Of generate(): what this column is asked with.
    options: dict[str, Any] = field(default_factory=dict)
    # The options in which the columns differ.
    chosen: dict[str, Any] = field(default_factory=dict)
    # Of each prompt that it came to, in order: the run, and the place of the prompt in it.
    places: list[tuple[Run, int]] = field(default_factory=list)
    error: str | None = None
    is_stopped: bool = False
    # What the process took when the column was complete, measured; None before.
    rss_bytes: int | None = None
    # Memory of the engine by parts, as it reports them.
    memory: dict[str, int] = field(default_factory=dict)

    def result(self, prompt: int) -> Result | None:
        """The answer to this prompt, as far as it has come; None before the column came to it."""
        if prompt >= len(self.places):
            return None
        run, place = self.places[prompt]
        return run.result_of(place)

    @property
    def results(self) -> list[Result]:
        """Of the prompts that it came to, in their order."""
        return [run.result_of(place) for run, place in list(self.places)]

    @property
    def run(self) -> Run | None:
        """The last one."""
        return self.places[-1][0] if self.places else None

    @property
    def is_over(self) -> bool:
        """It takes no further prompt."""
        return self.is_stopped or self.error is not None

    @property
    def disk_bytes(self) -> int | None:
        """What the weights take on disk; None when there are none to look at."""
        path = Path(self.handle.config.model_path)
        if self.handle.engine == "replay" or not path.exists():
            return None
        files = path.glob("*.safetensors") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files) or None


Engines = Iterable[EngineHandle | str] | EngineHandle | str | None


def columns_of(engines: Engines, options: dict[str, Any]) -> list[Column]:
    """One column for each engine and each point of the grid: [a, b] with temperature=[0, 0.7] are four.

    Raises: RequestError for a wrong number of columns, an unknown name or a setting out of range; what load() raises.
    """
    axes = {name: values for name, value in options.items() if (values := _axis(name, value)) is not None}
    fixed = {name: value for name, value in options.items() if name not in axes}
    of_loading = {name: axes.pop(name) for name in OF_LOADING if name in axes}
    for name in OF_LOADING:
        if name in fixed:
            raise RequestError(f"{name}={fixed[name]!r}: give a list of several, such as {name}=['F16', 'Q8_0'].")
    asked = _handles(engines)
    points, forms = _points(axes), _points(of_loading)
    _check_number(len(asked) * len(points) * len(forms), asked)
    for point in points:
        PromptMaker(0).make([], **fixed, **point)
    places = [(_variant(handle, form), {**form, **point}) for handle in asked for form in forms for point in points]
    names = _names([(handle.name, {**form, **point}) for handle in asked for form in forms for point in points])
    return [
        Column(handle, name, {**fixed, **{k: v for k, v in chosen.items() if k not in OF_LOADING}}, chosen)
        for name, (handle, chosen) in zip(names, places, strict=True)
    ]


def _points(axes: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination; without axes, one with nothing chosen."""
    return [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]


def _axis(name: str, value: Any) -> list[Any] | None:
    """The values of a grid; None for an option that all columns share."""
    if not isinstance(value, list | tuple):
        return None
    if name in _LISTS and not any(isinstance(item, list | tuple) or item is None for item in value):
        return None
    if not value:
        raise RequestError(f"{name}=[] has no value to try. Leave it out, or give at least one.")
    return list(value)


def _handles(engines: Engines) -> list[EngineHandle]:
    """Raises: RequestError when one is not loaded, was unloaded or is paused."""
    if engines is None:
        engines = [handle for handle in handles().values() if handle.alive]
    elif isinstance(engines, str | EngineHandle):
        engines = [engines]
    found = []
    for engine in engines:
        handle = named(engine, RequestError) if isinstance(engine, str) else engine
        require_loaded(handle, RequestError)
        if handle.is_paused:
            raise RequestError(f"{handle.name} is paused: no answer would come. Let it run first: `%llm resume`.")
        found.append(handle)
    return found


def _check_number(num_columns: int, asked: Sequence[EngineHandle]) -> None:
    if MIN_COLUMNS <= num_columns <= MAX_COLUMNS:
        return
    loaded = ", ".join(handle.name for handle in asked) or "none"
    raise RequestError(
        f"A comparison has {MIN_COLUMNS} to {MAX_COLUMNS} columns, and this one has {num_columns} (engines: {loaded}). "
        "Load another engine (`%llm load smollm2-135m -q Q8_0 --as q8`), or try several values: temperature=[0, 0.7]."
    )


def _variant(handle: EngineHandle, wanted: dict[str, Any]) -> EngineHandle:
    """This engine in that quant and dtype: loaded now where it is not, and kept loaded under a name of its own."""
    config = handle.config
    if all(str(getattr(config, name)).lower() == str(value).lower() for name, value in wanted.items()):
        return handle
    name = "-".join([handle.name, *(str(value).lower() for value in wanted.values())])
    known = handles().get(name)
    if known is not None and known.alive:
        return known
    same = {"quant": config.quant, "dtype": config.dtype} | wanted
    loaded = load(
        _load_name(config),
        config.engine,
        name=name,
        quant=same["quant"],
        dtype=same["dtype"],
        ctx=config.max_model_len,
        seqs=config.max_num_seqs,
        kv_tokens=config.kv_tokens,
        step_tokens=config.token_budget,
        block_size=config.block_size,
        lora=config.lora,
        seed=config.seed,
        options=config.options,
    )
    assert isinstance(loaded, EngineHandle)
    return loaded


def _load_name(config: EngineConfig) -> str:
    """What load() takes to find the same model again: its name, or the files that were made of it."""
    try:
        get(config.model)
    except ModelError:
        return config.model_path
    return config.model


def _names(places: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Each column by what tells it from the others: (name of the engine, what was chosen); a number where nothing does.

    >>> _names([("q8", {"temperature": 0}), ("q8", {"temperature": 0.7})]), _names([("a", {}), ("a", {})])
    (['temperature 0', 'temperature 0.7'], ['a', 'a (2)'])
    """
    engines = {engine for engine, _ in places}
    told = []
    for engine, chosen in places:
        settings = [
            _short(value) if name in OF_LOADING else f"{name} {_short(value)}" for name, value in chosen.items()
        ]
        told.append(", ".join([*([engine] if len(engines) > 1 or not settings else []), *settings]))
    earlier = [told[:i].count(name) for i, name in enumerate(told)]
    return [f"{name} ({n + 1})" if n else name for name, n in zip(told, earlier, strict=True)]


def _short(value: object) -> str:
    text = Path(value).name if isinstance(value, str | Path) and "/" in str(value) else str(value)
    return text if len(text) <= 32 else f"{text[:31]}…"
