"""Engines with the embedded model in float32, one after the other, for the tests of one module."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "engines"))
