"""The `gguf` package, without what it imports where that is installed and nobody here uses.

It imports mistral_common for a tokenizer. vLLM brings that along, it imports jsonschema, and JupyterLab's jsonschema
compiles 38 grammars at its import: 5 s of every first load in a notebook. This file must not know models.
"""

from __future__ import annotations

import sys
from contextlib import suppress

_UNUSED = "mistral_common"

_is_held_back = "gguf" not in sys.modules and _UNUSED not in sys.modules
if _is_held_back:
    sys.modules[_UNUSED] = None  # type: ignore[assignment]  # an ImportError, which gguf expects
try:
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, quants
finally:
    if _is_held_back:
        with suppress(KeyError):
            del sys.modules[_UNUSED]

__all__ = ["GGMLQuantizationType", "GGUFValueType", "GGUFWriter", "quants"]
