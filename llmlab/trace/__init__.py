"""The record of what an engine did: records, files, checks, tables. Knows no engine."""

from llmlab.trace.recording import Trace
from llmlab.trace.records import (
    SCHEMA,
    BlockDelta,
    Capabilities,
    CellDelta,
    FinishReason,
    Header,
    Incident,
    KvDelta,
    Phase,
    Request,
    ScheduledRequest,
    Step,
    Token,
)
from llmlab.trace.validation import Violation

__all__ = [
    "SCHEMA",
    "BlockDelta",
    "Capabilities",
    "CellDelta",
    "FinishReason",
    "Header",
    "Incident",
    "KvDelta",
    "Phase",
    "Request",
    "ScheduledRequest",
    "Step",
    "Token",
    "Trace",
    "Violation",
]
