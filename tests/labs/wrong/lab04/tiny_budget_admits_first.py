"""Keeps a token of the budget for an admission in each step: with a tiny budget decodes starve."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q4 the budget is used, no decode waits: step {} were decoding and got no token"


class ChunkedPrefill(ChunkedPrefill):
    def schedule(self, state):
        plan, left = {}, state.token_budget
        decodes_first = sorted(state.running, key=lambda request: request.phase != "decode")
        admissions = state.waiting[: state.max_num_seqs - len(state.running)]
        for request in (*admissions[:1], *decodes_first, *admissions[1:]):
            if left == 0:
                break
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
        return plan
