"""Who gets in where this machine listens: what a token looks like, and which addresses only this machine reaches."""

from __future__ import annotations

import ipaddress
import re

# 8 or more plain characters without spaces.
TOKEN = re.compile(r"[!-~]{8,}")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
