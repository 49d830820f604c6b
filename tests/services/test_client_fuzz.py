"""Generated requests: whatever fits the OpenAPI document, or a suite's schema, gets an answer that is no 5xx.

`AIFBENCH_EXAMPLES=1500` makes more than 10 000 requests; the default keeps the suite short.
"""

import json
import os
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from aifbench.services.client.menu import inlined, suite_schema
from aifbench.services.client.reasons import CODES
from tests.services.checkout import checkout
from tests.services.live import Live
from tests.services.test_client_live import end_all

EXAMPLES = int(os.environ.get("AIFBENCH_EXAMPLES", "60"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
QUIET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    checkout(folder / "project")
    with Live(folder, "client", tcp=0) as server:
        yield server
        end_all(server)


@pytest.fixture(scope="module")
def document(live):
    return schemathesis.openapi.from_dict(live.get("/openapi.json").json())


def address(live):
    return "http://127.0.0.1:" + live.said().split("127.0.0.1:")[1].split("/")[0]


def headers(live):
    return {"Authorization": f"Bearer {live.token()}"}


def expect_an_answer(status, body):
    if status >= 400 and b'"status":"ko"' in body:
        reason = json.loads(body)["reason"]
        assert CODES[reason["code"]].status == status
        assert reason["message"]
        assert "\n" not in reason["message"]


def ask(document, live, judge):
    """Ask each operation of a document with generated requests, those that fit it, and hand the answers to `judge`."""
    for operation in (found.ok() for found in document.get_all_operations()):

        @QUIET
        @given(operation.as_strategy())
        def one(case):
            answer = case.call(base_url=address(live), headers=headers(live), timeout=120)
            assert answer.status_code < 500, f"{case.as_curl_command()}\n{live.said()[-4000:]}"
            expect_an_answer(answer.status_code, answer.content)
            judge(case, answer)

        one()


def test_every_operation_of_the_document(document, live):
    asked = set()

    def judge(case, answer):
        asked.add((case.method, case.operation.path))
        if answer.status_code not in {400, 413, 429}:  # of the guard, before any route
            case.validate_response(answer, checks=CHECKS)

    ask(document, live, judge)
    assert {("POST", "/api/v1/runs"), ("POST", "/api/v1/runs:validate"), ("GET", "/api/v1/runs/{id}")} <= asked


@pytest.fixture(scope="module")
def suites(live):
    """The operation that validates, its body told apart by benchmark: a preset, and a suite that fits its schema."""
    found = live.get("/openapi.json").json()
    bodies = []
    for benchmark in ("retrieval", "inference", "storage"):
        suite = dict(suite_schema(benchmark))
        definitions = suite.pop("$defs")
        suite = inlined({**suite, "required": []}, definitions)
        suite["properties"].pop("benchmark")
        properties = {"preset": {"const": f"{benchmark}-quick"}, "config": suite}
        bodies.append(
            {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
        )
    path = "/api/v1/runs:validate"
    operation = found["paths"][path]
    operation["post"]["requestBody"]["content"]["application/json"]["schema"] = {"oneOf": bodies}
    operation["post"]["parameters"] = []
    return schemathesis.openapi.from_dict({**found, "paths": {path: operation}})


def test_every_configuration_that_fits_the_schema_is_ok_or_ko(suites, live):
    codes = Counter()

    def judge(_case, answer):
        reason = answer.json().get("reason", {})
        codes[reason.get("code", "ok")] += 1
        assert answer.status_code == 200 or reason["field"], reason

    ask(suites, live, judge)
    print(dict(codes))
    assert set(codes) <= {"ok", "invalid_config", "over_limit", "invalid_request", "unknown_benchmark", "image_missing"}
    assert codes["invalid_config"]
