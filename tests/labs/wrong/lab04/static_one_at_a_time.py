"""A batch of one."""

LEFT = 90
SAYS = "Q2 a closed batch: step 0: the batch was closed with 1 of 8 seats though 3 requests waited"


class StaticBatching:
    def schedule(self, state):
        return {r.request_id: r.num_uncomputed_tokens for r in state.running or state.waiting[:1]}
