"""continue, not break: who comes later and is short overtakes a prompt that does not fit into the budget."""

LEFT = 85
SAYS = "Q3 fills a seat in the next step: step {}: first come, first served"


class ContinuousBatching:
    def schedule(self, state):
        plan, left = {}, state.token_budget
        num_seats = state.max_num_seqs - len(state.running)
        for request in (*state.running, *state.waiting):
            is_new = request.num_computed_tokens == 0
            if request.num_uncomputed_tokens > left or (is_new and num_seats == 0):
                continue
            plan[request.request_id] = request.num_uncomputed_tokens
            left -= plan[request.request_id]
            num_seats -= is_new
        return plan
