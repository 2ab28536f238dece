"""Shortest prompt first: long ones are overtaken for ever."""

LEFT = 85
SAYS = "Q3 fills a seat in the next step: step {}: first come, first served"


class ContinuousBatching:
    def schedule(self, state):
        plan, left = {}, state.token_budget
        num_seats = state.max_num_seqs - len(state.running)
        shortest = sorted(state.waiting, key=lambda request: request.num_prompt_tokens)
        for request in (*state.running, *shortest[:num_seats]):
            if request.num_uncomputed_tokens > left:
                break
            plan[request.request_id] = request.num_uncomputed_tokens
            left -= plan[request.request_id]
        return plan
