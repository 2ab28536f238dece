"""bench(): every load of a sweep, on each engine in turn, several times over.

Within one repeat of one load the engines take turns, each alone on the machine, so that a machine that drifts drifts
for all of them. This file must not know how a result looks.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmlab import __version__
from llmlab.bench.plan import Plan, Talk, Turn, plan_of
from llmlab.bench.progress import Progress, Watch
from llmlab.bench.result import Bench, EngineFacts
from llmlab.bench.session import Session
from llmlab.bench.slo import Slo
from llmlab.bench.workloads import Workload
from llmlab.bench.workloads import workload as workload_of
from llmlab.doctor import doctor
from llmlab.engines.handle import EngineHandle
from llmlab.engines.registry import current, named, require_loaded
from llmlab.engines.unloaded import rss_bytes
from llmlab.errors import EngineError, LlmlabError, RequestError

# The answers of the warm-up, in tokens; and what keeps its questions apart from those of the measurement.
WARM_UP_TOKENS, WARM_UP_SEED = 4, 7919
_OF_MACHINE = ("Python", "Processor", "Memory", "GPU")
Engines = EngineHandle | str | Iterable[EngineHandle | str]


def bench(
    engines: Engines | None = None,
    *,
    workload: str | Path | Workload = "poisson",
    sweep: Sequence[float] | float | None = None,
    slo: Slo | Mapping[str, float] | str | None = None,
    repeats: int = 2,
    warm_up: int = 4,
    num_requests: int | None = None,
    seed: int = 0,
    progress: Callable[[Progress], object] | None = None,
) -> Bench:
    """Load one or more engines, and measure what their users would see.

    `engines`: handles or names (None: the current one). `workload`: a name (datasets/workloads/), a JSON file, or a
    Workload. `sweep`: the loads, in what the workload counts: requests a second, requests at once, or users.
    `slo`: limits in seconds, {"ttft": 1, "tpot": 0.1}, of which goodput is made. `warm_up`: requests before the
    measurement, on each engine. `num_requests`: at each load, instead of what the workload says. `progress`: told
    four times a second.

    Stop (Ctrl-C) ends it; what was measured is the result, and says that it was stopped.

    >>> llmlab.bench(["vllm", "llamacpp"], workload="closed_loop", sweep=[1, 2, 4, 8])       # doctest: +SKIP

    Raises: RequestError for a workload, load or limit that cannot be; LlmlabError when nothing could be measured.
    """
    sides, found, limits = _sides(engines), workload_of(workload), Slo.of(slo)
    if repeats < 1 or warm_up < 0:
        raise RequestError(f"repeats is {repeats} and warm_up is {warm_up}; give 1 or more, and 0 or more.")
    loads = _loads(sweep, found)
    plans = {load: plan_of(found, load=load, seed=seed, num_requests=num_requests) for load in loads}
    warm = _warm_up_plan(found, seed, warm_up)
    total = len(sides) * (warm.num_requests + repeats * sum(plan.num_requests for plan in plans.values()))
    session = Session(found, limits, Watch(total, progress))
    started_at, machine, facts = time.time(), _machine(), tuple(map(_facts, sides))
    is_stopped = False
    try:
        for handle in sides:
            session.warm_up(handle, warm)
        for repeat, (load, plan) in itertools.product(range(repeats), plans.items()):
            for handle in sides:
                session.measure(handle, plan, load, repeat)
    except KeyboardInterrupt:
        if not session.measurements:
            raise
        is_stopped = True
    if not session.measurements:
        raise LlmlabError("Nothing was measured. " + " ".join(session.problems))
    return Bench(
        workload=found,
        seed=seed,
        engines=facts,
        measurements=tuple(session.measurements),
        slo=limits,
        machine=machine,
        started_at=started_at,
        is_stopped=is_stopped,
        problems=tuple(session.problems),
    )


def _sides(engines: Engines | None) -> list[EngineHandle]:
    """The engines to load, each idle and running.

    Raises: EngineError or RequestError for one that cannot be measured now.
    """
    given: list[EngineHandle | str] = []
    if engines is None:
        if (here := current()) is None:
            raise EngineError("No engine is loaded. Load one: `llmlab.load('smollm2-135m')`.")
        given = [here]
    else:
        given = [engines] if isinstance(engines, EngineHandle | str) else list(engines)
    sides = [named(each) if isinstance(each, str) else each for each in given]
    if not sides or len({handle.name for handle in sides}) < len(sides):
        raise RequestError(f"bench needs one or more engines, each once; got {[handle.name for handle in sides]}.")
    for handle in sides:
        require_loaded(handle).require_idle()
    return sides


def _loads(sweep: Sequence[float] | float | None, workload: Workload) -> list[float]:
    """The loads in ascending order, each once."""
    if sweep is None:
        return [workload.load]
    loads = [sweep] if isinstance(sweep, int | float) else list(sweep)
    if not loads:
        raise RequestError(f"sweep is empty; give loads in {workload.load_unit}: sweep=[1, 2, 4].")
    return sorted({float(load) for load in loads})


def _warm_up_plan(workload: Workload, seed: int, count: int) -> Plan:
    """Short answers to other questions, at the workload's own load."""
    if count == 0:
        return Plan(())
    load = count if workload.arrivals.kind == "burst" else workload.load
    plan = plan_of(workload, load=load, seed=seed + WARM_UP_SEED, num_requests=count)
    talks = (Talk((Turn(talk.turns[0].text, WARM_UP_TOKENS),), talk.system, 0.0) for talk in plan.talks)
    return replace(plan, talks=tuple(talks))


def _facts(handle: EngineHandle) -> EngineFacts:
    header, memory = handle.header, handle.memory()
    return EngineFacts(
        name=handle.name,
        engine=header.engine,
        version=header.engine_version,
        model=header.model or handle.model,
        quant=header.quant,
        dtype=header.dtype,
        device=header.device,
        num_threads=header.num_threads,
        max_model_len=header.max_model_len,
        max_num_seqs=header.max_num_seqs,
        kv=header.capabilities.kv,
        kv_cache_bytes=memory.get("kv_cache", header.kv_cache_bytes),
        weights_bytes=memory.get("weights"),
        rss_idle_bytes=rss_bytes(handle.pid),
        load_s=handle.load_s,
    )


def _machine() -> dict[str, str]:
    """What the figures were measured on, as `llmlab doctor` tells it."""
    told = {check.name: check.value for check in doctor().checks if check.name in _OF_MACHINE}
    load = {"Load average": f"{os.getloadavg()[0]:.1f} at the start"} if hasattr(os, "getloadavg") else {}
    return {"llmlab": __version__} | told | load
