"""Keys of servers: from the environment or the keyring, and never into a text that somebody could read.

This file must not know servers.
"""

from __future__ import annotations

from importlib.util import find_spec

from llmlab.engines import access
from llmlab.errors import EngineError
from llmlab.language import tr

SERVICE = "llmlab"  # under which the keyring has keys, by the URL of the server
HIDDEN = "[key]"


class Key:
    """A secret whose text is seen only by who asks for `secret`. An empty one: the server wants none."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    @property
    def secret(self) -> str:
        return self._secret

    def hide(self, text: str) -> str:
        """The same text without the key: a server may repeat it in what it says.

        >>> Key("sk-1234").hide("Incorrect API key: sk-1234")
        'Incorrect API key: [key]'
        """
        return text.replace(self._secret, HIDDEN) if self._secret else text

    def __bool__(self) -> bool:
        return bool(self._secret)

    def __repr__(self) -> str:
        return f"Key({HIDDEN if self._secret else ''})"

    def __reduce__(self) -> tuple[type[Key], tuple[str]]:
        return Key, ("",)  # a pickle is a file


def key_of(url: str, variable: str | None) -> Key:
    """That of the environment variable, else what the keyring has for this URL, else none.

    Raises: EngineError when the variable is not set, or holds no key.
    """
    if variable is not None:
        name, secret = access.named(variable), access.of_environment(variable)
        if not secret:
            raise EngineError(
                tr("The environment has no variable {name!r}. Set it before the notebook starts.", name=name)
            )
        if not access.is_key(secret):
            raise EngineError(
                tr("What is in the variable {name!r} is no key: it has a space or a sign that none has. Copy it again.",
                   name=name)
            )  # fmt: skip
        return Key(secret)
    if find_spec("keyring") is None:
        return Key("")
    import keyring
    from keyring.errors import KeyringError

    try:
        return Key(keyring.get_password(SERVICE, url) or "")
    except KeyringError:  # a machine without one
        return Key("")
