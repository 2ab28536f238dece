"""The names a user means by {name}, @name and VAR: what stands in the notebook, not what IPython put there itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def user_names(shell: InteractiveShell, local_ns: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Variables of the notebook, `_` and Out among them; then those of the function that a line stands in."""
    hidden = shell.user_ns_hidden
    mine = {
        name: value
        for name, value in shell.user_ns.items()
        if name.startswith("_") or name == "Out" or hidden.get(name, hidden) is not value
    }
    return mine | dict(local_ns if local_ns is not None and local_ns is not shell.user_ns else {})
