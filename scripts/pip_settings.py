"""What the user has told pip (indexes, certificate, own wheel folders), said again for uv, which reads none of it.

Standard library only. This file must not know llmlab or its extras.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# pip's key -> uv's variable, and what separates several values there
UV_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", ""),
    "default-timeout": ("UV_HTTP_TIMEOUT", ""),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "no-index": ("UV_NO_INDEX", ""),
}
# later ones win, as in pip
SCOPES = ("global", "install", ":env:")


def pip_settings() -> dict[str, str]:
    """What pip would use here, from its files and the environment: {"find-links": "/home/me/wheels", ...}."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    return parse_config_list(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def parse_config_list(listing: str) -> dict[str, str]:
    """Read the output of `pip config list`; where a key is set twice, the environment wins over a file.

    >>> parse_config_list("global.timeout='9'\\n:env:.timeout='180'")
    {'timeout': '180'}
    """
    found: dict[str, dict[str, str]] = {scope: {} for scope in SCOPES}
    for line in listing.splitlines():
        scope_and_key, _, value = line.partition("=")
        scope, _, key = scope_and_key.rpartition(".")
        if scope in found:
            found[scope][key] = ast.literal_eval(value)
    return {key: value for scope in SCOPES for key, value in found[scope].items()}


def uv_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The same settings as variables for uv.

    >>> uv_environment({"find-links": "/opt/a /opt/b"})
    {'UV_FIND_LINKS': '/opt/a,/opt/b'}
    """
    environment = {}
    for key, (variable, separator) in UV_VARIABLES.items():
        if key in settings:
            environment[variable] = separator.join(settings[key].split()) if separator else settings[key]
    if "UV_INDEX" in environment:
        # uv stops at the first index that knows a name; pip, where the user chose these indexes, compares all of them.
        environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return environment


def own_wheel(distribution: str, settings: Mapping[str, str]) -> Path | None:
    """The newest wheel for this Python in the user's own wheel folders; None when there is none."""
    python_tags = {f"cp{sys.version_info.major}{sys.version_info.minor}", "py3"}
    folders = [Path(folder.removeprefix("file://")) for folder in settings.get("find-links", "").split()]
    wheels = [wheel for folder in folders for wheel in folder.glob(f"{distribution}-*.whl")]
    return max((w for w in wheels if w.stem.split("-")[-3] in python_tags), key=wheel_version, default=None)


def wheel_version(wheel: Path) -> tuple[int, ...]:
    """The numbers of a wheel's version, to compare by.

    >>> wheel_version(Path("torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"))
    (2, 13, 0)
    """
    release = wheel.stem.split("-")[1].partition("+")[0]
    return tuple(int(number) for number in re.findall(r"\d+", release))
