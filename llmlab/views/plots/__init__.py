"""Charts of a run that has ended, and of a model: static plotly figures, for a notebook, a page or a slide.

    from llmlab.views import plots
    plots.latency(run)          # also kv_use, prefix_hits, tokens_per_step
    plots.roofline("smollm2-135m", peak_flops=1e12, peak_bytes_per_s=5e10)
    plots.stages(pipeline([0.01] * 4, 2))     # of llmlab.engines.pipeline

Each takes whatever has a trace: a Run, a loaded engine, a Result, or the Trace itself. The background is transparent
and the colours do on light and dark paper; theme="light" or theme="dark" is crisper where the paper is known.

Reading order: look (colours, frame, what all share); latencies, over_time, steps, prefixes, stages; work (operations
and bytes of a pass), ceilings (what this machine can do), rooflines.
"""

from llmlab.views.plots.latencies import latency
from llmlab.views.plots.over_time import kv_use
from llmlab.views.plots.prefixes import prefix_hits
from llmlab.views.plots.rooflines import roofline
from llmlab.views.plots.stages import stages
from llmlab.views.plots.steps import tokens_per_step

__all__ = ["kv_use", "latency", "prefix_hits", "roofline", "stages", "tokens_per_step"]
