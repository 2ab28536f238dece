"""Which engine to take: what was measured under load, what it costs, how good its answers are, on one page.

>>> result = llmlab.bench([a, b], workload="poisson", sweep=[1, 2, 4], slo="ttft=1")       # doctest: +SKIP
>>> llmlab.report(result, path="choice.html", price=0.9).choice                            # doctest: +SKIP

Reading order: load_times, making (report() itself, what is measured for it), criteria (the figures engines are held
against each other by), choice (which to take, why, and when the other), claims (a widely read comparison, put to the
test), page and markdown (how it looks).
"""

from llmlab.report.choice import Choice
from llmlab.report.making import Report, report

__all__ = ["Choice", "Report", "report"]
