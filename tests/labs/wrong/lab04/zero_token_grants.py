"""Names requests with 0 tokens when the budget is used up."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q4 the budget is used, no decode waits: step 0: {} was given 0 tokens, it has"


class ChunkedPrefill(ChunkedPrefill):
    def schedule(self, state):
        plan, left = {}, state.token_budget
        decodes_first = sorted(state.running, key=lambda request: request.phase != "decode")
        for request in (*decodes_first, *state.waiting[: state.max_num_seqs - len(state.running)]):
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
        return plan
