"""The solution of lab 4: the definitions of lab.py with their solutions. Made from lab.py."""

from dataclasses import replace

from llmlab.scheduling.contracts import RequestView, SchedulerState


class StaticBatching:
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q2: a closed batch."""
        plan, left = {}, state.token_budget
        for request in state.running or state.waiting[: state.max_num_seqs]:
            if request.num_uncomputed_tokens > left:
                break
            plan[request.request_id] = request.num_uncomputed_tokens
            left -= plan[request.request_id]
        return plan


class ContinuousBatching:
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q3: whole prompts; a free seat is taken in the next step."""
        plan, left = {}, state.token_budget
        num_seats = state.max_num_seqs - len(state.running)
        for request in (*state.running, *state.waiting[:num_seats]):
            if request.num_uncomputed_tokens > left:
                break
            plan[request.request_id] = request.num_uncomputed_tokens
            left -= plan[request.request_id]
        return plan


class ChunkedPrefill:
    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q4: decodes, then unfinished prompts, then admissions."""
        plan, left = {}, state.token_budget
        decodes_first = sorted(state.running, key=lambda request: request.phase != "decode")
        num_seats = state.max_num_seqs - len(state.running)
        for request in (*decodes_first, *state.waiting[:num_seats]):
            if left == 0:
                break
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
        return plan

    def victim(self, state: SchedulerState) -> str:
        """Q5: the id of the running request that loses its place."""
        return state.running[-1].request_id


class FairPolicy(ChunkedPrefill):
    def __init__(self) -> None:
        self.served: dict[str, int] = {}
        self.present: set[str] = set()

    def schedule(self, state: SchedulerState) -> dict[str, int]:
        """Q6: as ChunkedPrefill, but admissions by the counters of the users."""
        here = {request.user for request in (*state.running, *state.waiting)}
        least = min((self.served[user] for user in here & self.present), default=0)
        for user in here - self.present:
            self.served[user] = max(self.served.get(user, 0), least)
        self.present = here
        plan = super().schedule(replace(state, waiting=()))
        for request in state.running:
            self.served[request.user] += plan.get(request.request_id, 0)
        left, waiting = state.token_budget - sum(plan.values()), list(state.waiting)
        for _ in range(state.max_num_seqs - len(state.running)):
            if left == 0 or not waiting:
                break
            request = self.next_of(waiting)
            waiting.remove(request)
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
            self.served[request.user] += plan[request.request_id]
        return plan

    def next_of(self, waiting: list[RequestView]) -> RequestView:
        """The earliest request of the user with the smallest counter: min() takes the first of equals."""
        return min(waiting, key=lambda request: self.served[request.user])


reflection = [
    "For a chat chunked prefill: the longest gap of a running answer held 32 tokens of work and not 281, so that "
    "nobody sees the text stop; fair counters on top when users share it.",
    "Over night nobody looks at gaps, so whole prompts in continuous batching: fewest steps; static batching needed "
    "160 steps and left 74 % of the seats empty while others waited.",
]
