"""What %llm takes when a line says nothing: `%config LLMLab.name = value`, else LLMLAB_NAME, else the built-in value.

This file must not know verbs or engines.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics
from traitlets import Enum, Float, Integer, TraitError, Unicode, observe

from llmlab.language import tr

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

FORMATS = ("md", "text", "code", "json", "html", "raw")
NAMES = ("default_model", "default_engine", "temperature", "max_tokens", "seed", "system", "format")


class Defaults(Magics):
    """The traits that `%config LLMLab` lists. None: the engine's own default."""

    # an instance is made with its shell
    shell: InteractiveShell

    default_model = Unicode("smollm2-135m", help="model that a prompt loads when no engine is loaded").tag(config=True)
    default_engine = Unicode("auto", help="engine that a prompt loads when no engine is loaded").tag(config=True)
    temperature = Float(None, allow_none=True, help="0 = always the most likely token").tag(config=True)
    max_tokens = Integer(None, allow_none=True, help="the longest answer, in tokens").tag(config=True)
    seed = Integer(None, allow_none=True, help="same seed, same answer").tag(config=True)
    system = Unicode(None, allow_none=True, help="system message").tag(config=True)
    format = Enum(FORMATS, default_value="md", help="how answers are shown").tag(config=True)

    def __init__(self, shell: Any = None, **kwargs: Any) -> None:
        self._configured: set[str] = set()
        super().__init__(shell=shell, **kwargs)

    @observe(*NAMES)
    def _note_config(self, change: Any) -> None:
        self._configured.add(change["name"])

    def default(self, name: str) -> Any:
        """The value of one default."""
        return self._resolve(name)[0]

    def origin(self, name: str) -> str:
        """Who set it: "%config", the environment variable, or "built-in"."""
        return self._resolve(name)[1]

    def _resolve(self, name: str) -> tuple[Any, str]:
        if name in self._configured:
            return getattr(self, name), "%config"
        variable = f"LLMLAB_{name.upper()}"
        if os.environ.get(variable):
            return self._from_environment(name, variable), variable
        return getattr(self, name), tr("built-in")

    def _from_environment(self, name: str, variable: str) -> Any:
        trait: Any = self.traits()[name]
        try:
            return trait.validate(self, trait.from_string(os.environ[variable]))
        except (TraitError, ValueError):
            value = os.environ[variable]
            why = tr(trait.help)
            raise UsageError(
                tr(
                    "{variable} is {value!r}, which is no {name} ({help}).",
                    variable=variable,
                    value=value,
                    name=name,
                    help=why,
                )
            ) from None
