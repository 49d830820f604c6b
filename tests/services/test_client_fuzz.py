"""Generated requests to the client: whatever fits the OpenAPI document, or a suite's schema, is ok or ko."""

import json
from collections import Counter

import pytest
import schemathesis

from aifbench.registry import benchmarks
from aifbench.services.client.menu import inlined, suite_schema
from aifbench.services.client.reasons import CODES
from tests.services.checkout import checkout
from tests.services.fuzz import ask, conforms
from tests.services.live import Live
from tests.services.test_client_live import end_all


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


def expect_an_answer(status, body):
    if status >= 400 and b'"status":"ko"' in body:
        reason = json.loads(body)["reason"]
        assert CODES[reason["code"]].status == status
        assert reason["message"]
        assert "\n" not in reason["message"]


def test_every_operation_of_the_document(document, live):
    asked = set()

    def judge(case, answer):
        asked.add((case.method, case.operation.path))
        expect_an_answer(answer.status_code, answer.content)
        conforms(case, answer)

    ask(document, live, judge)
    assert {("POST", "/api/v1/runs"), ("POST", "/api/v1/runs:validate"), ("GET", "/api/v1/runs/{id}")} <= asked


@pytest.fixture(scope="module")
def suites(live):
    """The operation that validates, its body told apart by benchmark: a preset, and a suite that fits its schema.

    Or two of these as the services of one launch.
    """
    found = live.get("/openapi.json").json()
    bodies = []
    for benchmark in benchmarks():
        suite = dict(suite_schema(benchmark))
        definitions = suite.pop("$defs")
        suite = inlined({**suite, "required": []}, definitions)
        suite["properties"].pop("benchmark")
        properties = {"preset": {"const": f"{benchmark}-quick"}, "config": suite}
        bodies.append(
            {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
        )
    several = {"type": "array", "items": {"oneOf": list(bodies)}, "minItems": 2, "maxItems": 2}
    bodies.append(
        {"type": "object", "properties": {"services": several}, "required": ["services"], "additionalProperties": False}
    )
    path = "/api/v1/runs:validate"
    operation = found["paths"][path]
    operation["post"]["requestBody"]["content"]["application/json"]["schema"] = {"oneOf": bodies}
    operation["post"]["parameters"] = []
    return schemathesis.openapi.from_dict({**found, "paths": {path: operation}})


def test_every_configuration_that_fits_the_schema_is_ok_or_ko(suites, live):
    codes, several = Counter(), Counter()

    def judge(case, answer):
        reason = answer.json().get("reason", {})
        expect_an_answer(answer.status_code, answer.content)
        codes[reason.get("code", "ok")] += 1
        assert answer.status_code == 200 or reason["field"], reason
        if isinstance(case.body, dict) and isinstance(case.body.get("services"), list) and reason:
            several[reason["field"].partition(".")[0]] += 1

    ask(suites, live, judge)
    print(dict(codes), dict(several))
    assert set(several) <= {"services[0]", "services[1]", "node_hours"}
    assert several
    assert set(codes) <= {"ok", "invalid_config", "over_limit", "invalid_request", "unknown_benchmark", "image_missing"}
    assert codes["invalid_config"]
