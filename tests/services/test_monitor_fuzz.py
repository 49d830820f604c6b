"""Generated requests to the monitor, over batches in several states."""

import pytest
import schemathesis

from tests.services.batches import Batch
from tests.services.fuzz import ask, conforms
from tests.services.live import Live

STREAMS = {"/api/v1/stream"}
"""Have no end."""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with Live(tmp_path_factory.mktemp("fuzz"), "monitor", tcp=0) as server:
        for number in range(3):
            batch = Batch(server.results, name=f"storage-x-{number:08x}").start()
            for i in range(5):
                batch.sample(float(i), records=i)
            batch.log("said")
            if number:
                batch.end()
        yield server


def test_every_operation_of_the_document(live):
    document = schemathesis.openapi.from_dict(live.get("/openapi.json").json())
    asked = set()

    def judge(case, answer):
        asked.add((case.method, case.operation.path))
        conforms(case, answer)

    ask(document, live, judge, leave_out=STREAMS)
    jobs = "/api/v1/jobs"
    assert {("GET", f"{jobs}{rest}") for rest in ("", "/{id}", "/{id}/samples", "/{id}/log")} <= asked


def test_a_job_that_is_there_answers_any_question(live):
    (name, *_) = [row["id"] for row in live.get("/api/v1/jobs?state=all").json()["jobs"]]
    found = live.get("/openapi.json").json()
    of_a_job = {path: item for path, item in found["paths"].items() if "{id}" in path}
    for item in of_a_job.values():
        for parameter in item["get"]["parameters"]:
            if parameter["name"] == "id":
                parameter["schema"] = {"const": name}
    answers = set()

    def judge(case, answer):
        answers.add(answer.status_code)
        conforms(case, answer)

    ask(schemathesis.openapi.from_dict({**found, "paths": of_a_job}), live, judge)
    assert 200 in answers
