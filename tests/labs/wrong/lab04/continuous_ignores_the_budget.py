"""Admits whole prompts as long as there are seats, whatever the budget says."""

LEFT = 80
SAYS = "Q3 fills a seat in the next step: step {} tokens scheduled, token_budget is 48: over by"


class ContinuousBatching:
    def schedule(self, state):
        num_seats = state.max_num_seqs - len(state.running)
        return {r.request_id: r.num_uncomputed_tokens for r in (*state.running, *state.waiting[:num_seats])}
