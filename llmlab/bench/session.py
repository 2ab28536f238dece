"""Session: the measurements of one call of bench(), as they come, and what went wrong.

This file must not know sweeps.
"""

from __future__ import annotations

import uuid

from llmlab.bench.drive import Drive
from llmlab.bench.measurement import Measurement, measurement_of
from llmlab.bench.meters import measured
from llmlab.bench.plan import Plan
from llmlab.bench.progress import Watch
from llmlab.bench.slo import Slo
from llmlab.bench.workloads import Workload
from llmlab.engines.handle import EngineHandle
from llmlab.errors import LlmlabError


class Session:
    """Collects measurements. An engine that died is left out from then on; the others go on."""

    def __init__(self, workload: Workload, slo: Slo, watch: Watch) -> None:
        self._workload, self._slo, self._watch = workload, slo, watch
        self._name = uuid.uuid4().hex[:8]
        self.measurements: list[Measurement] = []
        self.problems: list[str] = []

    def warm_up(self, handle: EngineHandle, plan: Plan) -> None:
        """Raises: KeyboardInterrupt when it was stopped."""
        if not plan.talks:
            return
        drive = Drive(handle, plan, salt=f"{self._name}-warm-up")
        try:
            drive.run(self._watch.during(handle.name, "warm-up"))
        except LlmlabError as error:
            self._note(handle, "warm-up", str(error))
        self._watch.finish(plan.num_requests)

    def measure(self, handle: EngineHandle, plan: Plan, load: float, repeat: int) -> None:
        """One more measurement, or one more problem.

        Raises: KeyboardInterrupt when it was stopped; what had come is kept.
        """
        if not handle.alive:
            return
        where = f"{load:g} {self._workload.load_unit}"
        # A salt of its own: each repeat begins with a cold prefix cache, and shares within itself only.
        drive = Drive(handle, plan, salt=f"{self._name}-{repeat}-{load:g}")
        stop: KeyboardInterrupt | None = None
        with measured(handle.pid) as spent:
            try:
                drive.run(self._watch.during(handle.name, where))
            except KeyboardInterrupt as pressed:
                stop = pressed
            except LlmlabError as error:
                self._note(handle, where, str(error))
        for reason in drive.refusals[:1]:
            self._note(handle, where, reason)

        def figures() -> Measurement | None:
            trace = drive.trace
            if not any(step.tokens for step in trace.step_records):
                return None
            return measurement_of(
                trace, spent, engine=handle.name, load=load, repeat=repeat, num_requests=plan.num_requests,
                slo=self._slo, stopped=stop is not None,
            )  # fmt: skip

        try:
            found = figures()
        except KeyboardInterrupt as pressed:  # all had come: what was measured is worth the second look
            found, stop = figures(), pressed
        if found is not None:
            self.measurements.append(found)
        self._watch.finish(plan.num_requests)
        if stop is not None:
            raise stop

    def _note(self, handle: EngineHandle, where: str, what: str) -> None:
        problem = f"{handle.name} at {where}: {what}"
        if problem not in self.problems:
            self.problems.append(problem)
