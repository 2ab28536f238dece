"""Starts only when all seats can be taken: the last requests wait for ever."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 90
SAYS = "Q2 a closed batch: step 0: the batch was closed with 0 of 8 seats though 3 requests waited"


class StaticBatching(StaticBatching):
    def schedule(self, state):
        if not state.running and len(state.waiting) < state.max_num_seqs:
            return {}
        return super().schedule(state)
