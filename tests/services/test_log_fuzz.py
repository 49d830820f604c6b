"""Generated requests to the log service: what fits its OpenAPI document, and what does not, gets no 5xx.

`AIFBENCH_EXAMPLES=1500` makes more than 10 000 requests; the default keeps the suite short.
"""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from aifbench.services.log.statements import SCHEMA, checked
from aifbench.services.problems import Refused
from tests.services.live import Live

EXAMPLES = int(os.environ.get("AIFBENCH_EXAMPLES", "60"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
QUIET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*SCHEMA["properties"], "x"]), inner),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with Live(tmp_path_factory.mktemp("fuzz"), "log", tcp=0) as server:
        yield server


@pytest.fixture(scope="module")
def document(live):
    return schemathesis.openapi.from_dict(live.get("/openapi.json").json())


def test_every_operation_of_the_document(document, live):
    base = "http://127.0.0.1:" + live.said().split("127.0.0.1:")[1].split("/")[0]
    headers = {"Authorization": f"Bearer {live.token()}"}
    asked = set()
    for operation in (found.ok() for found in document.get_all_operations()):
        if operation.path == "/api/v1/log/stream":  # has no end
            continue

        @QUIET
        @given(operation.as_strategy())
        def one(case):
            answer = case.call(base_url=base, headers=headers, timeout=60)
            asked.add((case.method, case.operation.path, answer.status_code))
            case.validate_response(answer, checks=CHECKS)

        one()
    assert {
        ("PUT", "/api/v1/log/configs/{name}", 422),  # times that are past, mostly
        ("POST", "/api/v1/log", 200),
        ("POST", "/api/v1/log:batch", 200),
        ("GET", "/api/v1/log", 200),
        ("GET", "/api/v1/log/status", 200),
    } <= asked
    assert "Traceback" not in live.said()


@QUIET
@given(st.lists(JSON, max_size=3))
def test_any_json_is_checked_or_refused(values):
    found = outcome(values)
    if isinstance(found, Refused):
        assert found.status == 422
        assert "\n" not in found.message
    else:
        assert all(isinstance(record["msg"], str) and record["level"] in {0, 1, 2} for record in found)


def outcome(values):
    try:
        return list(checked(values, 0.0, 4096))
    except Refused as refused:
        return refused
