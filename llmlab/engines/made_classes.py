"""Classes that cannot be written down, since what they inherit from is imported only when somebody asks for them.

vLLM names a class by its module, and another process must find it there: `__getattr__` of a module makes it, and
found_in() puts it in its place. This file must not know vLLM.
"""

from __future__ import annotations

from typing import Any


def found_in(module: dict[str, Any], **made: type[Any]) -> None:
    """From here on these are classes of this module, as if they were written in it. `module`: its globals()."""
    for name, cls in made.items():
        cls.__name__ = cls.__qualname__ = name
        cls.__module__ = module["__name__"]
    module.update(made)
