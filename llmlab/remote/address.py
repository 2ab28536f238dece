"""The address of a server: what is one, and what would give a secret away.

This file must not know servers.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def parts_of(url: str) -> SplitResult | None:
    """None for what is no http or https URL with a host, or has a port that none is.

    >>> parts_of("http://[::1]:8000").hostname, parts_of("http://host:99999"), parts_of("http://[::1"), parts_of("ftp://x")
    ('::1', None, None, None)
    """
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if is_one and not any(character.isspace() for character in url) else None


def base_of(url: str) -> str:
    """What stands in front of every route: clients of OpenAI's are given it with a /v1.

    >>> base_of("http://host:8000/v1/"), base_of("http://host:8000")
    ('http://host:8000', 'http://host:8000')
    """
    return url.rstrip("/").removesuffix("/v1")


def has_secret(url: str) -> bool:
    """It has a user, a password or parameters in it, or may: such a text is not to be repeated."""
    return "@" in url or "?" in url
