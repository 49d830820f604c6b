"""Generated requests to the log service, and any JSON to what checks statements."""

import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st

from aifbench.services.log.statements import SCHEMA, checked
from aifbench.services.problems import Refused
from tests.services.fuzz import QUIET, ask, conforms
from tests.services.live import Live

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
    asked = set()

    def judge(case, answer):
        asked.add((case.method, case.operation.path, answer.status_code))
        conforms(case, answer)

    ask(document, live, judge, leave_out={"/api/v1/log/stream"})  # has no end
    assert {
        ("PUT", "/api/v1/log/configs/{name}", 422),  # times that are past, mostly
        ("POST", "/api/v1/log", 200),
        ("POST", "/api/v1/log:batch", 200),
        ("GET", "/api/v1/log", 200),
        ("GET", "/api/v1/log/status", 200),
    } <= asked


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
