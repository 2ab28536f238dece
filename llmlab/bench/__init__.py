"""How an engine does under load: one named workload, one or more engines, a sweep of loads, one result.

>>> import llmlab
>>> result = llmlab.bench([a, b], workload="poisson", sweep=[1, 2, 4], slo={"ttft": 1.0})     # doctest: +SKIP
>>> result.table(), result.knee("a"), result.to_html("load.html")                            # doctest: +SKIP

Reading order: workloads (what is asked), plan (who asks what, and when), drive (asking it of an engine), meters (what
the machine spends meanwhile), schedule (whether requests came when they should), slo, measurement (one run in figures),
result (all of them), knee, sweep (bench() itself), progress; curve and page: how it looks.
"""

from llmlab.bench.knee import Knee
from llmlab.bench.measurement import Measurement
from llmlab.bench.result import Bench
from llmlab.bench.slo import Slo
from llmlab.bench.sweep import bench
from llmlab.bench.workloads import Workload, workload, workloads

__all__ = ["Bench", "Knee", "Measurement", "Slo", "Workload", "bench", "workload", "workloads"]
