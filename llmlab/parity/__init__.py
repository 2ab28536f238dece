"""Do two engines compute the same? Held against each other before anybody compares their answers.

>>> import llmlab
>>> llmlab.parity(a, b).ok                                       # doctest: +SKIP
True
>>> llmlab.first_divergence(a, q4, "Why is the sky blue?").cause   # doctest: +SKIP

Reading order: probes (what is asked), distances (how far two distributions are apart, and how far they may be),
settings (what both sides say of themselves), divergence (the first token that differs), causes (why, tested one by
one), manifest (all of it), check (how it is made), page (how it looks).
"""

from llmlab.parity.causes import Cause
from llmlab.parity.check import parity
from llmlab.parity.divergence import Divergence, first_divergence
from llmlab.parity.manifest import Manifest, Row
from llmlab.parity.probes import PROBES, Probe

__all__ = ["PROBES", "Cause", "Divergence", "Manifest", "Probe", "Row", "first_divergence", "parity"]
