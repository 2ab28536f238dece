"""New requests get the budget before prompts that are half computed."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q4 the budget is used, no decode waits: step {} tokens, expected"


class ChunkedPrefill(ChunkedPrefill):
    def schedule(self, state):
        plan, left = {}, state.token_budget
        decodes = [request for request in state.running if request.phase == "decode"]
        prompts = [request for request in state.running if request.phase != "decode"]
        for request in (*decodes, *state.waiting[: state.max_num_seqs - len(state.running)], *prompts):
            if left == 0:
                break
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
        return plan
