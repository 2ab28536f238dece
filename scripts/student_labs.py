"""What a wheel carries of the labs: their form for students, without solutions and without hidden checks.

A hook of hatch, run when a wheel is built; a checkout, editable or not, has the labs themselves.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Where llmlab.labs.finding looks for them in an installed package.
PLACE = "llmlab/exercises"


class StudentLabs(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from llmlab.labs.files import for_students

        self._made = Path(tempfile.mkdtemp())
        for checks in sorted(Path(self.root, "labs").glob("lab[0-9][0-9]_*/checks.py")):
            for name, content in for_students(checks.parent).items():
                path = self._made / checks.parent.name / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                build_data["force_include"][str(path)] = f"{PLACE}/{checks.parent.name}/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            shutil.rmtree(self._made)
