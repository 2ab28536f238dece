"""The last to arrive, who may run longest: earlier ones were preempted and came back behind him."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q5 everybody finishes: step {}, the request that runs longest, was preempted: nobody ever finishes if"


class ChunkedPrefill(ChunkedPrefill):
    def victim(self, state):
        return max(state.running, key=lambda request: request.arrival_step).request_id
