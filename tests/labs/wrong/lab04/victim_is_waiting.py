"""Names a request that holds nothing."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q5 everybody finishes: step {}, which is not running (running: ["


class ChunkedPrefill(ChunkedPrefill):
    def victim(self, state):
        return (state.waiting or state.running)[-1].request_id
