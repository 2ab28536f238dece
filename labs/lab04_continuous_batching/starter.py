"""What a student of lab 4 starts with: the definitions of his notebook. Made from lab.py."""

# ruff: noqa: F401

from dataclasses import replace

from llmlab.scheduling.contracts import RequestView, SchedulerState


class StaticBatching:
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q2: a closed batch."""
        raise NotImplementedError("Q2")  # about 7 lines


class ContinuousBatching:
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q3: whole prompts; a free seat is taken in the next step."""
        raise NotImplementedError("Q3")  # about 8 lines


class ChunkedPrefill:
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q4: decodes, then unfinished prompts, then admissions."""
        raise NotImplementedError("Q4")  # about 10 lines

    def victim(self, state: SchedulerState) -> str:
        """Q5: the id of the running request that loses its place."""
        raise NotImplementedError("Q5")  # about 1 line


class FairPolicy(ChunkedPrefill):
    def __init__(self) -> None:
        self.served: dict[str, int] = {}
        self.present: set[str] = set()

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q6: as ChunkedPrefill, but admissions by the counters of the users."""
        raise NotImplementedError("Q6")  # about 20 lines

    # Methods of your own, if you like.


reflection = ["", ""]
