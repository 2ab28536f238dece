"""Takes whole prompts until the seats are full, whatever the budget says."""

LEFT = 90
SAYS = "Q2 a closed batch: step {} tokens scheduled, token_budget is 120: over by"


class StaticBatching:
    def schedule(self, state):
        chosen = state.running or state.waiting[: state.max_num_seqs]
        return {request.request_id: request.num_uncomputed_tokens for request in chosen}
