"""The one with the shortest answer so far, even if it runs longest."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q5 everybody finishes: step {}, the request that runs longest, was preempted: nobody ever finishes if"


class ChunkedPrefill(ChunkedPrefill):
    def victim(self, state):
        return min(state.running, key=lambda request: request.num_output_tokens).request_id
