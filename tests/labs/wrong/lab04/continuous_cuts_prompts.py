"""Fills the budget with a piece of the next prompt: chunks, where whole prompts are asked for."""

LEFT = 95
SAYS = "Q3 whole prompts in the budget: step {} prompt tokens: whole prompts here"


class ContinuousBatching:
    def schedule(self, state):
        plan, left = {}, state.token_budget
        num_seats = state.max_num_seqs - len(state.running)
        for request in (*state.running, *state.waiting[:num_seats]):
            if left == 0:
                break
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
        return plan
