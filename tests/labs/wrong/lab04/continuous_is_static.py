"""Admits only when nothing runs."""

LEFT = 85
SAYS = "Q3 fills a seat in the next step: step {} of 8 seats were taken"


class ContinuousBatching:
    def schedule(self, state):
        plan, left = {}, state.token_budget
        for request in state.running or state.waiting[: state.max_num_seqs]:
            if request.num_uncomputed_tokens > left:
                break
            plan[request.request_id] = request.num_uncomputed_tokens
            left -= plan[request.request_id]
        return plan
