"""Admits beyond max_num_seqs."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 55
SAYS = "Q3 fills a seat in the next step: step {} sequences would run, max_num_seqs is 8"


class ContinuousBatching:
    def schedule(self, state):
        plan, left = {}, state.token_budget
        for request in (*state.running, *state.waiting):
            if request.num_uncomputed_tokens > left:
                break
            plan[request.request_id] = request.num_uncomputed_tokens
            left -= plan[request.request_id]
        return plan


class ChunkedPrefill(ChunkedPrefill):
    def schedule(self, state):
        plan, left = {}, state.token_budget
        decodes_first = sorted(state.running, key=lambda request: request.phase != "decode")
        for request in (*decodes_first, *state.waiting):
            if left == 0:
                break
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
        return plan
