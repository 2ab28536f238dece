"""A user who was away comes back with an old, low counter."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q6 counters decide: step {}: a user who was away came back with an old, low counter: start at "
    "max(own, min over those present)"
)


class FairPolicy(ChunkedPrefill):
    def __init__(self):
        self.served, self.present = {}, set()

    def schedule(self, state):
        here = {request.user for request in (*state.running, *state.waiting)}
        for user in here:
            self.served.setdefault(user, 0)
        plan = super().schedule(replace(state, waiting=()))
        for request in state.running:
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
