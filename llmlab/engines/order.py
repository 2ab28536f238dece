"""What is to be loaded, and the line that loads it again. This file must not know what an engine does."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any, Literal

from llmlab.engines.base import EngineConfig

Isolation = Literal["host", "inline"]
_FLAGS = {"quant": "-q"}


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be loaded: all that load() was asked for."""

    config: EngineConfig
    parts: dict[str, Any]
    isolation: Isolation
    # as `%llm load` takes it
    load_name: str
    lora: str | None
    name: str
    timeout: float

    @property
    def describe(self) -> str:
        return f"The engine {self.name!r} ({' '.join(filter(None, [self.config.model, self.config.quant]))})"

    @property
    def reload_line(self) -> str:
        """What to type to load it again, as a magic and in Python."""
        config = self.config
        given = {
            "quant": config.quant, "dtype": config.dtype, "ctx": config.max_model_len, "seqs": config.max_num_seqs,
            "kv_tokens": config.kv_tokens, "step_tokens": config.token_budget, "block_size": config.block_size,
            "lora": self.lora, "seed": config.seed or None,
        }  # fmt: skip
        given = {name: value for name, value in given.items() if value is not None}
        words = [f"{_FLAGS.get(name) or '--' + name.replace('_', '-')} {value}" for name, value in given.items()]
        words += [f"--opt {_pair_text(name, value)}" for name, value in config.options.items()]
        call = {"engine": config.engine, **given, **({"options": config.options} if config.options else {})}
        arguments = [repr(self.load_name), *(f"{name}={value!r}" for name, value in call.items())]
        line = " ".join(["%llm load", self.load_name, "-e", config.engine, *words])
        return f"`{line}`, or llmlab.load({', '.join(arguments)})"


def _pair_text(name: str, value: Any) -> str:
    """An option as `--opt` takes it."""
    return shlex.quote(f"{name}={value if isinstance(value, str) else json.dumps(value, default=str)}")
