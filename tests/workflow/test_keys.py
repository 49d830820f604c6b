"""Keys of a server that is already there: they reach it, and stand in no file of ours."""

import os
import subprocess

from tests.unit.test_inference_readiness import azure, serving
from tests.workflow.campaign import INFERENCE, ROOT
from tests.workflow.test_faults import Job


def test_a_key_reaches_the_server_and_stands_in_no_file(tmp_path):
    with serving(azure) as server:
        engine = {
            "kind": "openai", "model": "m", "url": f"{server.url}/openai/deployments/d",
            "headers": {"api-key": {"env": "AZURE_KEY"}}, "query": {"api-version": "2024-06-01"},
        }  # fmt: skip
        suite = {**INFERENCE, "engine": engine, "axes": {"clients": [1]}, "output_tokens": 4, "repetitions": 1}
        job = Job(tmp_path, suite)
        environment = {**os.environ, "AZURE_KEY": "s3cret"}
        result = subprocess.run(job.command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert (result.returncode, job.status()) == (0, "ok"), result.stderr
    record = job.store.read_cases()[0]
    assert record.facts["server_addresses"] == [server.url.removeprefix("http://")]
    (ready,) = job.store.read_record().invocations[0].facts["servers_ready"]
    assert (ready["requests_sent"], ready["address"]) == (1, server.url.removeprefix("http://"))
    assert all(b"api-key: s3cret" in head for head in server.heads)
    assert job.store.read_raw(record.case, 0)["retried"].tolist() == [False] * record.raw.rows
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if b"s3cret" in path.read_bytes()] == []
    assert "s3cret" not in result.stdout + result.stderr
