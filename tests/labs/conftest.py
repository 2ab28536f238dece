"""The wrong solutions are read, not collected: each stands below the reference."""

from __future__ import annotations

collect_ignore_glob = ["wrong/*"]
