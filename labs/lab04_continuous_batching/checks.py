"""Lab 4, continuous batching: what is asked, how it is checked, and what each known mistake is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

from llmlab.errors import BrokenContract, PlanRefused
from llmlab.labs.description import Check, CheckFailed, Figure, Lab, Names, Prediction, Question
from llmlab.labs.pictures_timeline import Column, timeline_picture
from llmlab.labs.reflection import reflection_question
from llmlab.labs.serving import CellCount, Job, Serving
from llmlab.metrics import (
    empty_seats,
    longest_gap,
    num_preemptions,
    recomputed_tokens,
    steps_to_first_token,
    throughput_tps,
)
from llmlab.scheduling.contracts import Policy, RequestView, SchedulerState
from llmlab.scheduling.plan_check import check_plan, check_victim
from llmlab.scheduling.policies import ChunkedPrefill, Fcfs, StaticBatching

Plan = dict[str, int]
# What is wrong with a plan, or nothing.
Rule = Callable[[SchedulerState, Plan], str | None]


class Room(NamedTuple):
    """What a run has to its disposal."""

    token_budget: int
    max_num_seqs: int = 8
    kv_tokens: int = 4000
    max_steps: int = 2000

    def serving(self, jobs: Sequence[Job], policy: Policy) -> Serving:
        pool = CellCount(self.kv_tokens)
        return Serving(jobs, pool, policy, token_budget=self.token_budget, max_num_seqs=self.max_num_seqs)


class Followed:
    """A student's policy; each of its plans is looked at before the scheduler sees it."""

    def __init__(self, policy: Any, rules: Sequence[Rule] = ()) -> None:
        self.policy, self.rules = policy, rules
        self.decisions: list[tuple[SchedulerState, Plan]] = []
        self.victims: list[tuple[int, str]] = []

    def schedule(self, state: SchedulerState) -> Plan:
        plan = self.policy.schedule(state)
        if not isinstance(plan, dict):
            kind = type(plan).__name__
            raise CheckFailed(f"step {state.step}: schedule() gave {kind}, expected a dict: request_id -> num_tokens")
        self.decisions.append((state, dict(plan)))
        check_plan(plan, state)
        for rule in self.rules:
            if sentence := rule(state, plan):
                raise CheckFailed(f"step {state.step}: {sentence}")
        return plan

    def victim(self, state: SchedulerState) -> str:
        name = self.policy.victim(state)
        self.victims.append((state.step, str(name)))
        check_victim(name, state)
        if len(state.running) > 1 and name == state.running[0].request_id:
            raise CheckFailed(
                f"step {state.step}: {name}, the request that runs longest, was preempted: nobody ever finishes if the "
                "oldest can lose its place"
            )
        return str(name)


def serve(policy: Any, ours: Policy, jobs: Sequence[Job], room: Room, rules: Sequence[Rule] = ()) -> Serving:
    """The run under a student's policy. Raises: CheckFailed, with the picture beside a run under ours."""
    followed = Followed(policy, rules)
    serving = room.serving(jobs, followed)
    try:
        serving.run(max_steps=room.max_steps)
    except (CheckFailed, BrokenContract) as error:
        raise CheckFailed(str(error), picture_of(serving, followed, ours, room, str(error))) from None
    return serving


def picture_of(serving: Serving, followed: Followed, ours: Policy, room: Room, sentence: str) -> Any:
    """The steps of a run, the one that was refused among them, beside the same steps under our policy."""
    yours = columns_of(serving)
    if followed.decisions and followed.decisions[-1][0].step == len(yours):
        yours.append(planned(followed))
    expected = room.serving(list(serving.jobs.values()), ours)
    with suppress(PlanRefused):  # it is not at its end
        expected.run(max_steps=len(yours))
    return timeline_picture(yours, columns_of(expected), token_budget=room.token_budget, sentence=sentence)


def columns_of(serving: Serving) -> list[Column]:
    return [
        Column({row.request_id: (row.phase, row.num_tokens) for row in s.scheduled}, list(s.waiting), list(s.preempted))
        for s in serving.steps
    ]


def planned(followed: Followed) -> Column:
    """The last plan, which did not come to run."""
    state, plan = followed.decisions[-1]
    phases = {r.request_id: r.phase for r in (*state.running, *state.waiting)}
    lost = [name for step, name in followed.victims if step == state.step]
    granted = {str(name): n if isinstance(n, int) else 0 for name, n in plan.items() if name not in lost}
    shares = {name: (phases.get(name, "prefill"), num_tokens) for name, num_tokens in granted.items()}
    return Column(shares, [r.request_id for r in state.waiting if r.request_id not in plan], lost)


# ---- rules: each names the mistake that breaks it


def ids(requests: Sequence[RequestView]) -> list[str]:
    return [request.request_id for request in requests]


def admitted_by(state: SchedulerState, plan: Plan) -> list[str]:
    """In the order of the plan."""
    waiting = ids(state.waiting)
    return [name for name in plan if name in waiting]


def left_waiting(state: SchedulerState, plan: Plan) -> list[RequestView]:
    return [request for request in state.waiting if request.request_id not in plan]


def budget_left(state: SchedulerState, plan: Plan) -> int:
    return state.token_budget - sum(plan.values())


def num_seats_left(state: SchedulerState, plan: Plan) -> int:
    return state.max_num_seqs - len(state.running) - len(admitted_by(state, plan))


def first_come_first_served(state: SchedulerState, plan: Plan) -> str | None:
    admitted = admitted_by(state, plan)
    arrived = ids(state.waiting)[: len(admitted)]
    return f"admitted {admitted}, arrived {arrived}: first come, first served" if admitted != arrived else None


def batch_stays_closed(state: SchedulerState, plan: Plan) -> str | None:
    joined = admitted_by(state, plan)
    if not state.running or not joined:
        return None
    running = ids(state.running)
    return f"{joined} joined while {running} were running: a static batch is closed until its last request ends"


def batch_starts_full(state: SchedulerState, plan: Plan) -> str | None:
    rest = left_waiting(state, plan)
    if state.running or not rest or not num_seats_left(state, plan):
        return None
    if rest[0].num_uncomputed_tokens > budget_left(state, plan):
        return None
    num_taken = len(admitted_by(state, plan))
    return (
        f"the batch was closed with {num_taken} of {state.max_num_seqs} seats though {len(state.waiting)} requests "
        "waited"
    )


def everybody_goes_on(state: SchedulerState, plan: Plan) -> str | None:
    left = budget_left(state, plan)
    behind = [r for r in state.running if plan.get(r.request_id, 0) < r.num_uncomputed_tokens]
    if not behind or left < behind[0].num_uncomputed_tokens - plan.get(behind[0].request_id, 0):
        return None
    return f"{ids(behind)} run and did not get their uncomputed tokens though {left} of the budget were left"


def seats_are_filled(state: SchedulerState, plan: Plan) -> str | None:
    rest = left_waiting(state, plan)
    if not rest or not num_seats_left(state, plan) or rest[0].num_uncomputed_tokens > budget_left(state, plan):
        return None
    num_taken = state.max_num_seqs - num_seats_left(state, plan)
    return f"{len(rest)} requests wait though only {num_taken} of {state.max_num_seqs} seats were taken"


def prompts_are_whole(state: SchedulerState, plan: Plan) -> str | None:
    for request in state.waiting:
        num_tokens, whole = plan.get(request.request_id), request.num_uncomputed_tokens
        if num_tokens is not None and num_tokens < whole:
            return f"{request.request_id} was given {num_tokens} of its {whole} prompt tokens: whole prompts here"
    return None


def decodes_come_first(state: SchedulerState, plan: Plan) -> str | None:
    decodes = [r for r in state.running if r.phase == "decode"]
    stalled = [r for r in ids(decodes) if r not in plan]
    if not stalled or (len(decodes) > state.token_budget and sum(plan.values()) == state.token_budget):
        return None
    return f"{stalled} were decoding and got no token: decodes come first, prefill takes what is left of the budget"


def budget_is_used(state: SchedulerState, plan: Plan) -> str | None:
    left = budget_left(state, plan)
    of_budget = f"{left} of {state.token_budget} tokens were left"
    for request in (*state.running, *state.waiting):
        name, num_tokens = request.request_id, plan.get(request.request_id, 0)
        if left and num_tokens < request.num_uncomputed_tokens and (num_tokens or request in state.running):
            return f"{of_budget} though {name} had more prompt to compute"
    rest, num_seats = left_waiting(state, plan), num_seats_left(state, plan)
    if left and rest and num_seats:
        return f"{of_budget} and {num_seats} of {state.max_num_seqs} seats though {rest[0].request_id} waits"
    return None


def as_ours(ours: Policy) -> Rule:
    """What no other rule has a name for. A plan follows from the state alone, unless there are too many decodes."""

    def rule(state: SchedulerState, plan: Plan) -> str | None:
        expected = ours.schedule(state)
        if len(state.running) > state.token_budget or expected == plan:
            return None
        name = next(name for name in (*expected, *plan) if expected.get(name) != plan.get(name))
        return f"{name} was given {plan.get(name, 0)} tokens, expected {expected.get(name, 0)}"

    return rule


# ---- requests

LONG = (70, 110)


def requests_of(seed: int, *, prompt: tuple[int, int] = (5, 30), long: tuple[int, int] | None = LONG) -> list[Job]:
    """24 requests: a few at once, a burst later, the others between; every fourth with a long prompt."""
    rng = random.Random(f"lab04 {seed}")
    arrivals = [0, 0, 0, *[6] * 11, *(rng.randint(1, 40) for _ in range(10))]
    names = [f"r{i}" for i in range(len(arrivals))]
    rng.shuffle(names)
    return [
        Job(name, tokens(rng, *(long if long and i % 4 == 2 else prompt)), rng.randint(4, 24), arrival)
        for i, (name, arrival) in enumerate(zip(names, arrivals, strict=True))
    ]


def tokens(rng: random.Random, least: int, most: int) -> tuple[int, ...]:
    return tuple(rng.choices(range(900), k=rng.randint(least, most)))


# ---- Q2


def static_batches(names: Names, seed: int) -> None:
    rules = (first_come_first_served, batch_stays_closed, batch_starts_full, everybody_goes_on)
    for room in (Room(2000), Room(2000, max_num_seqs=3), Room(120)):
        serve(names["StaticBatching"](), StaticBatching(), requests_of(seed), room, rules)


# ---- Q3

FEWER = 0.9
SMALL_BUDGET = Room(48)


def short_requests(seed: int) -> list[Job]:
    """No prompt is longer than a small budget."""
    return requests_of(seed, prompt=(5, 40), long=None)


def continuous_batches(names: Names, seed: int) -> None:
    jobs, room = requests_of(seed), Room(2000)
    rules = (first_come_first_served, seats_are_filled, everybody_goes_on, as_ours(Fcfs()))
    mine = serve(names["ContinuousBatching"](), Fcfs(), jobs, room, rules)
    static = serve(StaticBatching(), StaticBatching(), jobs, room)
    if len(mine.steps) > FEWER * len(static.steps):
        raise CheckFailed(f"{len(mine.steps)} steps, static batching takes {len(static.steps)}: where is the gain?")
    serve(names["ContinuousBatching"](), Fcfs(), jobs, Room(2000, max_num_seqs=3), rules)
    serve(names["ContinuousBatching"](), Fcfs(), short_requests(seed), SMALL_BUDGET, (first_come_first_served,))


def whole_prompts_in_the_budget(names: Names, seed: int) -> None:
    for room in (SMALL_BUDGET, Room(64)):
        serve(names["ContinuousBatching"](), Fcfs(), short_requests(seed), room, (prompts_are_whole, everybody_goes_on))


# ---- Q4

CHUNKED_RULES: tuple[Rule, ...] = (decodes_come_first, budget_is_used, first_come_first_served)


def chunks_fill_the_budget(names: Names, seed: int) -> None:
    rules = (*CHUNKED_RULES, as_ours(ChunkedPrefill()))
    for room in (Room(32), Room(32, max_num_seqs=3)):
        serve(names["ChunkedPrefill"](), ChunkedPrefill(), requests_of(seed), room, rules)


def gap_is_short(names: Names, seed: int) -> None:
    jobs = requests_of(seed)
    rules = (*CHUNKED_RULES, as_ours(ChunkedPrefill()))
    mine = serve(names["ChunkedPrefill"](), ChunkedPrefill(), jobs, Room(32), rules)
    gap = longest_gap(mine.trace)
    if gap is None or gap.num_tokens > 32:
        raise CheckFailed(
            f"the longest gap of a running answer holds {gap and gap.num_tokens} tokens, the budget is 32"
        )
    serve(names["ChunkedPrefill"](), ChunkedPrefill(), jobs, Room(4), rules)


# ---- Q5

ROOMS = tuple(Room(32, kv_tokens=num_cells) for num_cells in (70, 110, 160, 240))


class OurPlans:
    """Our schedule with the victims of a student: what is wrong in his schedule costs nothing here."""

    def __init__(self, policy: Any) -> None:
        self.schedule, self.victim = ChunkedPrefill().schedule, policy.victim


def everybody_finishes(names: Names, seed: int) -> None:
    serve(OurPlans(names["ChunkedPrefill"]()), ChunkedPrefill(), crowd(seed), Room(32, kv_tokens=90))
    oldest_is_safe(names["ChunkedPrefill"](), seed)


def whatever_the_room(names: Names, seed: int) -> None:
    for i, room in enumerate(ROOMS):
        serve(OurPlans(names["ChunkedPrefill"]()), ChunkedPrefill(), crowd(seed + i), room)
    oldest_is_safe(names["ChunkedPrefill"](), seed)


def oldest_is_safe(policy: Any, seed: int) -> None:
    """Whatever else is special about the request that runs longest."""
    rng = random.Random(f"lab04 oldest {seed}")
    for special in ("arrival_step", "num_prompt_tokens", "num_output_tokens", "num_computed_tokens", "num_preemptions"):
        for value in (0, 1000):
            running = [
                RequestView(f"r{i}", "", rng.randint(1, 9), 0, rng.randint(40, 80), rng.randint(1, 9), 40, 1)
                for i in range(4)
            ]
            running[0] = replace(running[0], **{special: value})
            Followed(policy).victim(SchedulerState(20, 32, 8, 0, (), tuple(running)))


def crowd(seed: int) -> list[Job]:
    """Requests that together want more KV room than there is, none of them alone."""
    rng = random.Random(f"lab04 crowd {seed}")
    return [Job(f"r{i}", tokens(rng, 5, 30), rng.randint(12, 40), rng.randint(0, 20)) for i in range(20)]


# ---- Q6


class Fair(ChunkedPrefill):
    """The reference, and what is like it but for one mistake: what is counted, and whether who was away has credit."""

    def __init__(self, *, counts: str = "tokens", has_credit: bool = False) -> None:
        self.counts, self.has_credit = counts, has_credit
        self.served: dict[str, int] = {}
        self.present: set[str] = set()

    def arrive(self, state: SchedulerState) -> None:
        here = {r.user for r in (*state.running, *state.waiting)}
        least = min((self.served[user] for user in here & self.present), default=0)
        for user in here - self.present:
            own = self.served.get(user, 0)
            self.served[user] = own if self.has_credit else max(own, least)
        self.present = here

    def charge(self, request: RequestView, num_tokens: int) -> None:
        is_admitted = request.num_computed_tokens == 0
        amount = {
            "tokens": num_tokens,
            "prompts": 0 if request.phase == "decode" else num_tokens,
            "whole prompts": request.num_prompt_tokens if is_admitted else num_tokens * (request.phase == "decode"),
            "requests": int(is_admitted and num_tokens > 0),
            "arrivals": 0,
        }
        self.served[request.user] += amount[self.counts]

    def schedule(self, state: SchedulerState) -> Plan:
        self.arrive(state)
        plan = super().schedule(replace(state, waiting=()))
        for request in state.running:
            self.charge(request, plan.get(request.request_id, 0))
        left, waiting = budget_left(state, plan), list(state.waiting)
        while left and waiting and num_seats_left(state, plan):
            request = self.next(waiting)
            waiting.remove(request)
            plan[request.request_id] = min(request.num_uncomputed_tokens, left)
            left -= plan[request.request_id]
            self.charge(request, plan[request.request_id])
        return plan

    def next(self, waiting: Sequence[RequestView]) -> RequestView:
        return min(waiting, key=lambda request: self.served[request.user])


# sentence -> the policy that makes this mistake
FAIR_MISTAKES: dict[str, Callable[[], Fair]] = {
    "admissions follow the order of arrival, whoever sent them": lambda: Fair(counts="arrivals"),
    "a user who was away came back with an old, low counter: start at max(own, min over those present)": lambda: Fair(
        has_credit=True
    ),
    "decode tokens are not charged: served += num_tokens at every grant": lambda: Fair(counts="prompts"),
    "a prompt is charged as a whole at its admission: charge what each grant gives": lambda: Fair(
        counts="whole prompts"
    ),
    "requests are counted, not tokens: a user with long prompts gets more": lambda: Fair(counts="requests"),
}
NEXT_IS = "the next one is the earliest request of the user with the smallest counter"


class FairRule:
    """Counts along with the plans of a student: who has been served how much, and was each admission the right one?"""

    def __init__(self) -> None:
        self.ours = Fair()

    def __call__(self, state: SchedulerState, plan: Plan) -> str | None:
        ours = self.ours
        ours.arrive(state)
        for request in state.running:
            ours.charge(request, plan.get(request.request_id, 0))
        waiting = {request.request_id: request for request in state.waiting}
        for name in admitted_by(state, plan):
            request, right = waiting[name], ours.next(list(waiting.values()))
            if request is not right:
                first = f"{name} of user {request.user}{self._served(request.user)} was admitted before"
                if request.user == right.user:
                    return f"{first} {right.request_id} of the same user, which came earlier"
                return f"{first} user {right.user}{self._served(right.user)}"
            del waiting[name]
            ours.charge(request, plan[name])
        return None

    def _served(self, user: str) -> str:
        return f" (served {self.ours.served[user]} tokens)"


@contextmanager
def on_ours(policy_class: type) -> Iterator[None]:
    """Our schedule and victim in the ChunkedPrefill that a class inherits: what is wrong there costs nothing here."""
    base = next((c for c in policy_class.__mro__[1:] if c.__name__ == "ChunkedPrefill"), None)
    if base is None:
        yield
        return
    with patch.multiple(base, create=True, schedule=ChunkedPrefill.schedule, victim=ChunkedPrefill.victim):
        yield


def serve_fairly(names: Names, jobs: Sequence[Job], room: Room) -> Serving:
    """The run under a student's policy, every admission counted along."""
    policy_class = names["FairPolicy"]
    with on_ours(policy_class):
        followed = Followed(policy_class(), (FairRule(), decodes_come_first, budget_is_used))
        serving = room.serving(jobs, followed)
        try:
            serving.run(max_steps=room.max_steps)
        except (CheckFailed, BrokenContract) as error:
            reason = str(error)
            if "was admitted before user" in reason:
                reason = f"{reason}: {cause_of(policy_class, jobs, room)}"
            raise CheckFailed(reason, picture_of(serving, followed, Fair(), room, reason)) from None
    return serving


def cause_of(policy_class: type, jobs: Sequence[Job], room: Room) -> str:
    """The sentence of the known mistake that admits everybody in the same order."""
    mine = Followed(policy_class())
    with suppress(Exception):  # whatever else it does wrong, its order so far counts
        room.serving(jobs, mine).run()
    for sentence, make in FAIR_MISTAKES.items():
        other = Followed(make())
        room.serving(jobs, other).run()
        if admissions(mine) == admissions(other):
            return sentence
    return NEXT_IS


def admissions(followed: Followed) -> list[tuple[int, str]]:
    return [(state.step, name) for state, plan in followed.decisions for name in admitted_by(state, plan)]


LEAST_GAIN = 0.6
# Their budgets, and the prompts of the user who sends most: in the last one most are computed in several steps.
FAIR_RUNS = ((Room(32, 4), (20, 60)), (Room(48, 4), (20, 60)), (Room(64, 4), (20, 60)), (Room(32, 4), (80, 140)))
FAIR_ROOM = Room(32, 4)


def counters_decide(names: Names, seed: int) -> None:
    """User a sends 20 requests with long prompts, user b 4 at step 6, user c 8 at step 25."""
    for room, prompt in FAIR_RUNS:
        rng = random.Random(f"lab04 fair {seed} {room.token_budget} {prompt}")
        jobs = [Job(f"a{i}", tokens(rng, *prompt), rng.randint(3, 9), 0, "a") for i in range(20)]
        jobs += [Job(f"b{i}", tokens(rng, 5, 12), rng.randint(12, 26), 6, "b") for i in range(4)]
        jobs += [Job(f"c{i}", tokens(rng, 2, 30), rng.choice((1, 1, 8)), 25, "c") for i in range(8)]
        fair = serve_fairly(names, jobs, room)
        fcfs = room.serving(jobs, ChunkedPrefill())
        fcfs.run()
        share = mean_ttft_steps(fair.trace, "b") / mean_ttft_steps(fcfs.trace, "b")
        if share >= LEAST_GAIN:
            raise CheckFailed(
                f"user b waits {share:.2f} times as long as with first come, first served, expected < {LEAST_GAIN}"
            )


def no_credit(names: Names, seed: int) -> None:
    """Answers of one token, so that prompts are all there is to count. User d is away, and comes back at step 12."""
    # The users are not those of the other checks: what a policy wrongly keeps of them is the matter of the last one.
    rng = random.Random(f"lab04 credit {seed}")
    jobs = [Job(f"g{i}", tokens(rng, 20, 40), 1, 0, "g") for i in range(30)]
    jobs += [Job(f"d{i}", tokens(rng, 4, 10), 1, 0 if i < 2 else 12, "d") for i in range(14)]
    serve_fairly(names, jobs, FAIR_ROOM)


def second_run_is_fresh(names: Names, seed: int) -> None:
    rng = random.Random(f"lab04 fresh {seed}")
    jobs = [Job(f"e{i}", tokens(rng, 20, 40), rng.randint(4, 12), 0, "e") for i in range(8)]
    jobs += [Job(f"f{i}", tokens(rng, 5, 20), rng.randint(4, 12), 0, "f") for i in range(6)]
    runs = []
    with on_ours(names["FairPolicy"]):
        for _ in range(2):
            followed = Followed(names["FairPolicy"]())
            FAIR_ROOM.serving(jobs, followed).run()
            runs.append(admissions(followed))
    if runs[0] != runs[1]:
        raise CheckFailed(
            "two runs of the same requests differ: the policy keeps state outside the instance (class attribute or "
            "module variable)"
        )


def mean_ttft_steps(trace: Any, user: str | None = None) -> float:
    """Mean steps to the first token, of all requests or of those of one user."""
    wanted = {r.request_id for r in trace.request_records if user in (None, r.user)}
    steps = [n for name, n in steps_to_first_token(trace).items() if name in wanted]
    return sum(steps) / len(steps)


# ---- what runs in the notebook show


def empty_share(trace: Any) -> float:
    return round(empty_seats(trace) or 0.0, 3)


def gap_tokens(trace: Any) -> float:
    gap = longest_gap(trace)
    return float(gap.num_tokens) if gap else 0.0


def gap_and_wait(trace: Any) -> list[float]:
    return [gap_tokens(trace), round(mean_ttft_steps(trace), 1)]


def lost_places(trace: Any) -> list[float]:
    return [num_preemptions(trace) or 0, float(recomputed_tokens(trace) or 0)]


def share_of_wait(traces: Any) -> float:
    """`traces`: first come, first served; fair."""
    fcfs, fair = traces
    return round(mean_ttft_steps(fair, "b") / mean_ttft_steps(fcfs, "b"), 2)


def sound(variable: str, says: Callable[[Any], str]) -> Callable[[Names], str]:
    """A sentence about a real run: its trace breaks no rule, and this is what it shows."""

    def observe(names: Names) -> str:
        if variable not in names:
            return f"run the cell that fills `{variable}`, and check again: what does your policy do on a real engine?"
        found = names[variable]
        for trace in found if isinstance(found, tuple) else (found,):
            if broken := trace.validate():
                raise CheckFailed(f"the run in `{variable}` breaks a rule: {broken[0]}")
        return says(found)

    return observe


def steps_and_seats(trace: Any) -> str:
    return (
        f"{len(trace.request_records)} real requests took {len(trace.step_records)} steps; {empty_share(trace):.0%} of "
        "the seats stayed empty while somebody waited."
    )


def gap_and_steps(trace: Any) -> str:
    gap = longest_gap(trace)
    took = f" ({gap.gap_s * 1000:.0f} ms)" if gap and gap.gap_s else ""
    return (
        f"{len(trace.step_records)} steps; the longest gap of a running answer holds {gap_tokens(trace):.0f} tokens of "
        f"work{took}; the first token came after {mean_ttft_steps(trace):.1f} steps on average."
    )


def preemptions(trace: Any) -> str:
    num_lost, num_tokens = lost_places(trace)
    return f"{num_lost} times a request lost its place, {num_tokens:.0f} tokens were computed again; all finished."


def waits(traces: Any) -> str:
    fcfs, fair = (mean_ttft_steps(trace, "b") for trace in traces)
    of_a = [mean_ttft_steps(trace, "a") for trace in traces]
    return (
        f"user b waited {fcfs:.1f} steps for a first token, now {fair:.1f}; user a waited {of_a[0]:.1f}, now "
        f"{of_a[1]:.1f}."
    )


def gap_s(trace: Any) -> float | None:
    gap = longest_gap(trace)
    return gap.gap_s if gap else None


def waits_of_users(traces: Any) -> list[float]:
    return [mean_ttft_steps(trace, user) for trace in traces for user in "ab"]


RUNS = ("q1", "q2", "q3", "q4")

LAB = Lab(
    title="Lab 4: continuous batching",
    minutes=90,
    engines=("llamacpp", "torch"),
    forbidden=("llmlab.scheduling.policies", "llmlab.scheduling.scheduler", "llmlab.labs.serving"),
    questions=(
        Question(
            "Q1",
            "look at a static batch",
            prediction=Prediction(
                "static batching, 14 requests, 8 seats: in what share of the seats does nobody sit while others wait?",
                "q1",
                empty_share,
                "a seat stays empty from the end of its request to the end of the longest one in the batch.",
                "share",
            ),
        ),
        Question(
            "Q2",
            "static batching",
            ("StaticBatching",),
            (Check("a closed batch", 10, static_batches),),
            (
                "When may a waiting request enter? What does state.running say then?",
                "Nothing runs: take the first max_num_seqs that wait. Something runs: plan only what runs.",
                "for request in state.running or state.waiting[: state.max_num_seqs]: ...",
            ),
            observe=sound("q2", steps_and_seats),
        ),
        Question(
            "Q3",
            "continuous batching",
            ("ContinuousBatching",),
            (
                Check("fills a seat in the next step", 15, continuous_batches),
                Check("whole prompts in the budget", 5, whole_prompts_in_the_budget, is_hidden=True),
            ),
            (
                "Who is allowed to enter in this step?",
                "seats = max_num_seqs - len(running): with 8 seats and 5 who run, the first 3 that wait may enter.",
                "The first one that does not fit into the budget ends the admissions: break, not continue.",
            ),
            Prediction(
                "whole prompts: how many tokens does the engine compute between two tokens of a running answer, at "
                "most, when a prompt of 240 comes in?",
                "q3",
                gap_tokens,
                "all prompts that come in are computed in one step, as a whole, and everybody who runs waits for it.",
            ),
            observe=sound("q3", gap_and_steps),
        ),
        Question(
            "Q4",
            "chunked prefill",
            ("ChunkedPrefill",),
            (
                Check("the budget is used, no decode waits", 15, chunks_fill_the_budget),
                Check("a short gap, a tiny budget", 10, gap_is_short, is_hidden=True),
            ),
            (
                "Who suffers when a prompt takes the whole budget?",
                "Decodes first, 1 token each. With 5 of them and a budget of 32 there are 27 tokens left for prompts.",
                'sorted(state.running, key=lambda r: r.phase != "decode"), then min(r.num_uncomputed_tokens, left)',
            ),
            Prediction(
                "a budget of 32: the longest gap in tokens, and the mean number of steps to the first token?",
                "q4",
                gap_and_wait,
                "no step is larger than the budget; a long prompt takes several steps, and who comes after it waits.",
            ),
            observe=sound("q4", gap_and_steps),
        ),
        Question(
            "Q5",
            "preemption",
            ("ChunkedPrefill",),
            (
                Check("everybody finishes", 10, everybody_finishes),
                Check("whatever the room", 5, whatever_the_room, is_hidden=True),
            ),
            (
                "Who can always finish, whatever happens to the others?",
                "state.running[0] runs longest: it must keep its place. Who came in last?",
                "return state.running[-1].request_id",
            ),
            Prediction(
                "8 requests of 16 prompt tokens, answers of 40, 256 cells: how often does one lose its place, and how "
                "many tokens are computed again?",
                "q5",
                lost_places,
                "what a victim had computed is gone: its prompt and its own answer so far are prefilled again.",
            ),
            observe=sound("q5", preemptions),
        ),
        Question(
            "Q6",
            "fairness",
            ("FairPolicy",),
            (
                Check("counters decide", 15, counters_decide),
                Check("no credit for being away", 10, no_credit, is_hidden=True),
                Check("a second run is fresh", 5, second_run_is_fresh, is_hidden=True),
            ),
            (
                "Count tokens, not requests. When do tokens flow to a user?",
                "Charge at the grant, decodes too: served[user] += num_tokens for everything that is in the plan.",
                "A user who was not present in the last step: served[user] = max(own, min over those who were).",
            ),
            Prediction(
                "user a sends 20 requests, user b 4 at step 6: how long does b wait, as a share of first come, first "
                "served?",
                "q6",
                share_of_wait,
                "b enters as soon as a has had as much; a pays for it with later first tokens of its own.",
                "share",
            ),
            observe=sound("q6", waits),
        ),
        reflection_question("Q7", "which policy for a chat", "which for a nightly batch"),
    ),
    figures=(
        *(Figure("the steps of a run", run, lambda trace: len(trace.step_records)) for run in RUNS),
        *(Figure("tokens a second of a run", run, throughput_tps) for run in RUNS),
        *(Figure("the longest gap of a run, in tokens or in ms", run, gap_tokens) for run in (*RUNS, "recorded")),
        *(Figure("the longest gap of a run, in tokens or in ms", run, gap_s, "s") for run in (*RUNS, "recorded")),
        *(Figure("the mean number of steps to the first token", run, mean_ttft_steps) for run in RUNS),
        *(
            Figure("the share of seats that stayed empty while others waited", run, empty_share, "share")
            for run in RUNS
        ),
        Figure("the steps that each user waits for first tokens", "q6", waits_of_users),
    ),
)
