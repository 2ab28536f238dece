"""Decodes are not charged to the budget."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q4 the budget is used, no decode waits: step {} tokens scheduled, token_budget is 32: over by"


class ChunkedPrefill(ChunkedPrefill):
    def schedule(self, state):
        plan = {r.request_id: 1 for r in state.running if r.phase == "decode"}
        left = state.token_budget
        prompts = [r for r in state.running if r.phase != "decode"]
        for request in (*prompts, *state.waiting[: state.max_num_seqs - len(state.running)]):
            if left == 0:
                break
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
        return plan
