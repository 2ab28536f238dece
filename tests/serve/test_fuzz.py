"""Whatever comes over HTTP is the client's fault, and no 5xx.

schemathesis makes requests from the server's own description, valid and nearly valid ones: every answer has a status
and a body that the description knows. wild.py spoils good requests in path, headers and body.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from serve_support import MakeServed, Served, wait_until
from wild import Wild

OPERATIONS = [
    ("/v1/completions", "POST", 20), ("/v1/chat/completions", "POST", 20), ("/v1/embeddings", "POST", 10),
    ("/tokenize", "POST", 10), ("/detokenize", "POST", 10), ("/v1/models/{model}", "GET", 10),
]  # fmt: skip
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
# what a request of the fuzzer may cost is bounded by the engine's room: an answer ends after so many tokens
ROOM = {"ctx": 64, "seqs": 64, "step_tokens": 4096, "num_cells": 8192}


def fuzz(
    served: Served, path: str, method: str, num_examples: int, *, seed: int = 0, fields: dict[str, Any] | None = None
) -> None:
    """Half of the examples are valid. `fields`: what a body that is an object is given, to keep answers short."""
    schema = schemathesis.openapi.from_dict(served.http.get("/openapi.json").json())
    operation = schema[path][method]
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @hypothesis.seed(seed)
        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=num_examples // 2, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        )  # fmt: skip
        def ask(case: schemathesis.Case) -> None:
            if fields and isinstance(case.body, dict):
                case.body.update(fields)
            response = case.call(base_url=served.url, headers={"Authorization": f"Bearer {served.token}"}, timeout=60)
            case.validate_response(response, checks=CHECKS)

        ask()


@pytest.mark.slow
def test_no_request_made_from_the_description_fails_the_server(fake: MakeServed):
    echo = fake(**ROOM)
    for path, method, num_examples in OPERATIONS:
        fuzz(echo, path, method, num_examples)
    assert echo.is_idle()
    assert echo.complete("abc", max_tokens=3).json()["choices"][0]["text"] == "abc"


def be_wild(served: Served, count: int, seed: int) -> Counter[int | None]:
    """Send so many wild requests; how often each status came. None: the connection was ended without an answer."""
    return Wild(served.server.port, served.token, seed).statuses(count)


def test_spoiled_requests_are_refused_or_served_and_leave_nothing_behind(fake: MakeServed):
    echo = fake(**ROOM)
    statuses = be_wild(echo, 400, seed=1)
    assert {200, 400, 401, 404, 405} <= statuses.keys()
    assert statuses[200] > 40 and statuses[400] > 100
    assert wait_until(echo.is_idle)
    after = echo.complete("abc", max_tokens=3)
    assert after.status_code == 200 and after.json()["choices"][0]["text"] == "abc", after.text
