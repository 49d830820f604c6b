"""Generated requests to a running server: what its OpenAPI document allows, and what it does not, gets no 5xx.

`AIFBENCH_EXAMPLES=1500` makes more than 10 000 requests; the default keeps the suite short.
"""

import os

from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
QUIET = settings(
    max_examples=int(os.environ.get("AIFBENCH_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


def ask(document, live, judge, leave_out=()):
    """Ask each operation of a document with generated requests, and hand each case and its answer to `judge`."""
    base = "http://127.0.0.1:" + live.said().split("127.0.0.1:")[1].split("/")[0]
    headers = {"Authorization": f"Bearer {live.token()}"}
    asked = 0
    for operation in (found.ok() for found in document.get_all_operations()):
        if operation.path in leave_out:
            continue

        @QUIET
        @given(operation.as_strategy())
        def one(case):
            nonlocal asked
            asked += 1
            answer = case.call(base_url=base, headers=headers, timeout=120)
            assert answer.status_code < 500, f"{case.as_curl_command()}\n{live.said()[-4000:]}"
            judge(case, answer)

        one()
    print(f"{asked} generated requests")
    assert "Traceback" not in live.said()


def conforms(case, answer):
    """Check an answer against the document, unless the guard gave it before any route."""
    if answer.status_code not in {400, 413, 429}:
        case.validate_response(answer, checks=CHECKS)
