"""Decode tokens are free."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 85
SAYS = "Q6 counters decide: step {}: decode tokens are not charged: served += num_tokens at every grant"


class FairPolicy(ChunkedPrefill):
    def __init__(self):
        self.served, self.present = {}, set()

    def schedule(self, state):
        here = {request.user for request in (*state.running, *state.waiting)}
        least = min((self.served[user] for user in here & self.present), default=0)
        for user in here - self.present:
            self.served[user] = max(self.served.get(user, 0), least)
        self.present = here
        plan = super().schedule(replace(state, waiting=()))
        for request in state.running:
            if request.phase != "decode":
                self.served[request.user] += plan.get(request.request_id, 0)
        left, waiting = state.token_budget - sum(plan.values()), list(state.waiting)
        for _ in range(state.max_num_seqs - len(state.running)):
            if left == 0 or not waiting:
                break
            request = min(waiting, key=lambda request: self.served[request.user])
            waiting.remove(request)
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
            self.served[request.user] += plan[request.request_id]
        return plan
