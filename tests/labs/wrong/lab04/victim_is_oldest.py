"""Preempts the request that runs longest."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = (
    "Q5 everybody finishes: step {}, the request that runs longest, was preempted: nobody ever finishes "
    "if the oldest can lose its place"
)


class ChunkedPrefill(ChunkedPrefill):
    def victim(self, state):
        return state.running[0].request_id
