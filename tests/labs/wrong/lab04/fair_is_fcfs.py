"""Order of arrival."""

# ruff: noqa: F821  (it stands below the reference)

LEFT = 75
SAYS = "Q6 counters decide: step {}: admissions follow the order of arrival, whoever sent them"


class FairPolicy(ChunkedPrefill):
    pass
