"""Prompts take the budget first: decodes stall."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = (
    "Q4 the budget is used, no decode waits: step {} were decoding and got no token: decodes come first, prefill takes"
)


class ChunkedPrefill(ChunkedPrefill):
    def schedule(self, state):
        plan, left = {}, state.token_budget
        prompts_first = sorted(state.running, key=lambda request: request.phase == "decode")
        for request in (*prompts_first, *state.waiting[: state.max_num_seqs - len(state.running)]):
            if left == 0:
                break
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
        return plan
