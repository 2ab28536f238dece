"""Who gets in where this machine listens: what a token looks like, and which addresses only this machine reaches."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from collections.abc import Mapping

# 8 or more plain characters without spaces.
TOKEN = re.compile(r"[!-~]{8,}")
# What variables are called by custom; a key mostly looks otherwise.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
# What can be sent as a key.
_KEY = re.compile(r"[!-~]+")


def new_token() -> str:
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def of_environment(variable: str, environment: Mapping[str, str] = os.environ) -> str:
    """The secret in that variable, "" where there is none. A line end that came along from a file is no part of it."""
    return environment.get(variable, "").strip()


def is_key(text: str) -> bool:
    """Whether it can be sent as one: an HTTP client would refuse it otherwise, and repeat it."""
    return _KEY.fullmatch(text) is not None


def named(variable: str) -> str:
    """The name of a variable as an error repeats it. What may be a key, typed in place of the name, is cut.

    >>> named("MY_KEY"), named("sk-1234")
    ('MY_KEY', 'sk-…')
    """
    return variable if _VARIABLE.fullmatch(variable) else f"{variable[:3]}…"
