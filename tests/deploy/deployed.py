"""What deploy/ holds, read for its tests: services, units, manifests, and every command line of llmlab in them."""

from __future__ import annotations

import argparse
import configparser
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from traitlets.config import Config

from llmlab import cli

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE_FILE = DEPLOY / "compose" / "compose.yaml"
DOCKERFILE = DEPLOY / "compose" / "Dockerfile"
SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
VALUES = DEPLOY / "helm" / "values.yaml"
TEXTS = [DEPLOY / "README.md", *sorted((DEPLOY / "jupyterhub").glob("*.md"))]


@dataclass(frozen=True)
class CommandLine:
    """`variables`: those that the service has which runs it; None where nobody says."""

    place: str
    words: tuple[str, ...]
    variables: frozenset[str] | None = field(default=None)

    @property
    def named_variables(self) -> set[str]:
        """The environment variables that it names."""
        pairs = zip(self.words, self.words[1:], strict=False)
        return {value for flag, value in pairs if flag.endswith("-env")}


COMPOSE = yaml.safe_load(COMPOSE_FILE.read_text())
# where it stands -> the object
MANIFESTS: dict[str, dict[str, Any]] = {
    f"{file.name}: {found['kind']} {found['metadata']['name']}": found
    for file in sorted((DEPLOY / "helm").glob("*.yaml"))
    if file != VALUES
    for found in yaml.safe_load_all(file.read_text())
}


def names_of(kind: str) -> set[str]:
    return {manifest["metadata"]["name"] for manifest in MANIFESTS.values() if manifest["kind"] == kind}


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each manifest that has some: where it stands, and the container."""
    for place, manifest in MANIFESTS.items():
        yield from ((place, container) for container in (pod_of(manifest) or {}).get("containers", ()))


def pod_of(manifest: dict[str, Any]) -> dict[str, Any] | None:
    return manifest.get("spec", {}).get("template", {}).get("spec")


def unit(file: Path) -> configparser.RawConfigParser:
    """A unit; of what is said several times, the last."""
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#", ";"), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # units tell Type from type
    parser.read_string(file.read_text().replace("\\\n", " "))
    return parser


def gateways() -> Iterator[tuple[str, str]]:
    """Where a configuration of a gateway stands, and its text."""
    for file in (DEPLOY / "compose" / "gateway.yaml", *sorted((DEPLOY / "gateway").glob("*.yaml"))):
        yield str(file.relative_to(DEPLOY)), file.read_text()
    for place, manifest in MANIFESTS.items():
        for text in manifest.get("data", {}).values() if manifest["kind"] == "ConfigMap" else ():
            yield place, text


def command_lines() -> list[CommandLine]:
    """Every `llmlab ...` of deploy/."""
    parts = (_of_compose(), _of_manifests(), _of_units(), _of_hub(), _of_texts())
    return [line for lines in parts for line in lines]


def _of_compose() -> Iterator[CommandLine]:
    for name, service in COMPOSE["services"].items():
        words = service.get("command", [])
        words = shlex.split(words) if isinstance(words, str) else [str(word) for word in words]
        if words[:1] == ["llmlab"]:
            yield CommandLine(f"compose: {name}", tuple(words[1:]), frozenset(service.get("environment", {})))


def _of_manifests() -> Iterator[CommandLine]:
    for place, container in containers():
        words = [*container.get("command", ()), *container.get("args", ())]
        if words[:1] == ["llmlab"]:
            yield CommandLine(place, tuple(words[1:]), frozenset(entry["name"] for entry in container["env"]))


def _of_units() -> Iterator[CommandLine]:
    for file in UNITS:
        program, *words = shlex.split(unit(file)["Service"]["ExecStart"])
        assert Path(program).name == "llmlab", file
        yield CommandLine(file.name, tuple(words), frozenset(re.findall(r"^# (\w+)=", file.read_text(), re.M)))


def _of_hub() -> Iterator[CommandLine]:
    """The class, as the lines for jupyterhub_config.py start it."""
    for service in hub_config(DEPLOY / "jupyterhub" / "jupyterhub_config.py").JupyterHub.services:
        program, *words = service["command"]
        assert program == "llmlab"
        yield CommandLine(f"jupyterhub: {service['name']}", tuple(words))


def hub_config(file: Path) -> Any:
    """What JupyterHub reads from a file of its configuration."""
    config = Config(JupyterHub={"services": [], "load_roles": []})
    here = {"get_config": lambda: config, "load_subconfig": lambda path: None}
    exec(compile(file.read_text(), str(file), "exec"), here)
    return config


def _of_texts() -> Iterator[CommandLine]:
    """Lines of code blocks, with a prompt, a path or sudo before them; a backslash joins two."""
    for file in TEXTS:
        for block in re.findall(r"^```\w*\n(.*?)^```", file.read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                if found := re.match(r"(?:\$ |sudo |(?:\w+=\S+ ))*(?:\S*/)?llmlab (.*)", line.strip()):
                    yield CommandLine(f"{file.name}: {line}", tuple(shlex.split(found[1], comments=True)))


class Understood(Exception):
    """The parser of llmlab has read the line; what follows would run it."""


def parsed(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the command-line parser of llmlab makes of it. Raises: SystemExit when it does not understand."""
    of_parser = argparse.ArgumentParser.parse_known_args

    def stop(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        known, rest = of_parser(self, *args, **kwargs)
        if self.prog == "llmlab":
            assert not rest, f"unknown: {rest}"
            raise Understood(known)
        return known, rest

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    try:
        cli.main(list(words))
    except Understood as understood:
        return understood.args[0]
    raise AssertionError(f"llmlab {shlex.join(words)} was not parsed")
