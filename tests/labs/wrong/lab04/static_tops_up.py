"""Admits into a running batch: not static."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q2 a closed batch: step {} were running: a static batch is closed until its last request ends"


class StaticBatching(ContinuousBatching):
    pass
