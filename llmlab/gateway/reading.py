"""read_config(): a YAML file -> Config. What is wrong with it is told with its line.

This file must not know HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from llmlab.errors import LlmlabError, unknown
from llmlab.gateway.config import Backend, ClientKey, Config, Model, Oidc, Price, Rule
from llmlab.language import tr
from llmlab.remote.address import has_secret, parts_of

# where a part stands: ("models", "chat", "rules", 0)
Place = tuple[str | int, ...]
PartT = TypeVar("PartT")

_WITH_PATH = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
# what somebody may take for the place of a key
_SECRETS = ("api_key", "key", "token", "password", "secret")
# of an environment variable
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ConfigError(LlmlabError):
    """The file is not what it should be; `line` is its line, counted from 1."""

    def __init__(self, name: str, line: int | None, message: str) -> None:
        where = name if line is None else tr("{name}, line {line}", name=name, line=line)
        super().__init__(f"{where}: {message}")
        self.line = line


def read_config(path: str | Path) -> Config:
    """Raises: ConfigError with the line and what would do."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        text = tr("It cannot be read ({error}). docs/hybrid.md has one to begin with.", error=error.strerror)
        raise ConfigError(str(file), None, text) from None
    except UnicodeDecodeError:
        raise ConfigError(str(file), None, tr("It is no text in UTF-8. Save it as one.")) from None
    return parse_config(text, file.name)


def parse_config(text: str, name: str = "config.yaml") -> Config:
    """The same from a text. Raises: ConfigError."""
    source = _Source(text, name)
    given = source.value
    for section, kind in (("backends", Backend), ("models", Model), ("keys", ClientKey)):
        parts = given.get(section)
        if isinstance(parts, dict):  # one by one: an error names its part then
            given[section] = {part: source.converted((section, part), kind, parts[part]) for part in parts}
    if given.get("oidc") is not None:
        given["oidc"] = source.converted(("oidc",), Oidc, given["oidc"])
    config = source.converted((), Config, given)
    for at, message in _contradictions(config):
        raise source.error(at, message)
    return config


class _Source:
    """The text of a configuration: its value, and the line of each of its parts."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._lines: dict[Place, int] = {}
        try:
            self.value = self._read(text)
        except RecursionError:
            raise ConfigError(name, None, tr("It is nested too deep, or contains itself.")) from None

    def _read(self, text: str) -> dict[str, Any]:
        name = self._name
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = None if error.problem_mark is None else error.problem_mark.line + 1
            raise ConfigError(name, line, tr("This is no YAML: {problem}.", problem=error.problem)) from None
        except yaml.YAMLError as error:
            raise ConfigError(name, None, tr("This is no YAML: {problem}.", problem=error)) from None
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(name, 1, tr("A configuration has `backends:` and `models:`. docs/hybrid.md has one."))
        value: dict[str, Any] = self._plain(node, ())
        return value

    def error(self, at: Place, message: str) -> ConfigError:
        """An error at this part, or at the nearest one above it that has a line."""
        while at not in self._lines:
            at = at[:-1]
        place = ".".join(map(str, at))
        return ConfigError(self._name, self._lines[at], f"{place}: {message}" if place else message)

    def converted(self, at: Place, kind: type[PartT], value: Any) -> PartT:
        """Raises: ConfigError."""
        try:
            return msgspec.convert(value, kind, from_attributes=True)
        except msgspec.ValidationError as error:
            match = _WITH_PATH.fullmatch(str(error))
            message, inside = (match[1], match[2]) if match else (str(error), "")
            steps = tuple(step[1] or int(step[2]) for step in _STEP.finditer(inside))
            if (field := _UNKNOWN_FIELD.fullmatch(message)) is None:
                raise self.error((*at, *steps), f"{message}.") from None
            raise self.error((*at, *steps, field[1]), _of_unknown(field[1], _fields(kind, steps))) from None

    def _plain(self, node: yaml.Node, at: Place) -> Any:
        """What the node says, in Python. Keys are texts, as they stand."""
        self._lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*at, number)) for number, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self._value(node, at)
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(at, tr("A name of what follows is a text, not a list or a mapping."))
            self._lines[(*at, str(key.value))] = key.start_mark.line + 1
            if key.value in found:
                raise self.error((*at, key.value), tr("It is there twice. Leave one of them out."))
            found[str(key.value)] = self._plain(item, (*at, str(key.value)))
        return found

    def _value(self, node: yaml.Node, at: Place) -> Any:
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (yaml.YAMLError, ValueError, AttributeError):  # YAML's own reader trusts a tag, such as !!int
            text = tr("It is not what its tag {tag} says, or there is no such tag. Leave the tag out.", tag=node.tag)
            raise self.error(at, text) from None


def _of_unknown(name: str, known: tuple[str, ...]) -> str:
    if name in _SECRETS:
        return tr(
            "Keys never stand in this file: put it into an environment variable, and name the variable "
            "(`api_key_env` of a backend, `token_env` of a key)."
        )
    return unknown("field", name, known)


def _fields(kind: Any, steps: Place) -> tuple[str, ...]:
    """The names that may stand at a place inside a part."""
    if steps:  # price of a backend, rules of a model
        kind = {"price": Price, "rules": Rule}.get(str(steps[0]), kind)
    return tuple(kind.__struct_fields__)


def _contradictions(config: Config) -> Iterator[tuple[Place, str]]:
    """What is well formed and cannot be meant."""
    for name, backend in config.backends.items():
        if (wrong := _wrong_url(backend.url)) is not None:
            yield ("backends", name, "url"), wrong
        if backend.api_key_env is not None and not _NAME.fullmatch(backend.api_key_env):
            yield ("backends", name, "api_key_env"), _not_a_name()
    for name, model in config.models.items():
        yield from _of_model(name, model, config)
    for name, key in config.keys.items():
        if not _NAME.fullmatch(key.token_env):
            yield ("keys", name, "token_env"), _not_a_name()
        for model_name in key.models or ():
            if model_name not in config.models:
                yield ("keys", name, "models"), unknown("model", model_name, config.models)
    if not config.keys and config.oidc is None:
        yield (), tr("Nobody could ask: give it `keys:` (a name and its `token_env`), or `oidc:`.")


def _of_model(name: str, model: Model, config: Config) -> Iterator[tuple[Place, str]]:
    at: Place = ("models", name)
    for backend in model.backends:
        if backend not in config.backends:
            yield (*at, "backends", backend), unknown("backend", backend, config.backends)
        elif model.prefer == "price" and config.backends[backend].price is None:
            yield (
                (*at, "prefer"),
                tr("It goes by price, and {name} has none. Give it one (0 is one).", name=backend),
            )
    for number, rule in enumerate(model.rules):
        for used in rule.names:
            if used not in model.backends:
                yield (*at, "rules", number, "use"), unknown("backend", used, model.backends)
        for key in rule.keys or ():
            if key not in config.keys:
                yield (*at, "rules", number, "keys"), unknown("key", key, config.keys)
        if rule.prompt_tokens_over is None and rule.prompt_tokens_up_to is None and rule.keys is None:
            yield (
                (*at, "rules", number),
                tr("It has no condition: `prompt_tokens_over`, `prompt_tokens_up_to` or `keys`."),
            )


def _not_a_name() -> str:
    """The message must not repeat what stands there."""
    return tr("It is the name of an environment variable, and not the key itself: letters, digits and _.")


def _wrong_url(url: str) -> str | None:
    """What is wrong with the address of a backend; the message must not repeat a password."""
    if has_secret(url):
        return tr("A password in a URL would stand in logs. Put it into an environment variable: `api_key_env`.")
    if parts_of(url) is None:
        return tr("{url!r} is no URL of a server. For example: http://127.0.0.1:8000", url=url)
    return None
