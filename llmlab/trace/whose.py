"""Whose a request is, in a trace that shows those of several clients: the record of somebody else's says so.

This file must not know clients or servers.
"""

from __future__ import annotations

from msgspec.structs import replace

from llmlab.trace.records import Request

# The field of a Request, and what it has in somebody else's; what it has in the header of a trace in which the server
# has marked each request: who is looked for there has several connections, or sees the requests of all as his own.
WHOSE, OTHER, TOLD = "whose", "other", "told"


def of_another(request: Request) -> Request:
    """The same record, marked as that of another client than who looks."""
    return replace(request, extra={**request.extra, WHOSE: OTHER})


def is_other(request: Request) -> bool:
    """
    >>> from llmlab.trace.example import two_requests
    >>> first = two_requests().request_records[0]
    >>> is_other(first), is_other(of_another(first))
    (False, True)
    """
    return bool(request.extra.get(WHOSE) == OTHER)
