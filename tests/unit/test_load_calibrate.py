"""The instrument's own error: the arithmetic by hand, and the truth that the reference server tells."""

import time

import httpx
import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from aifbench.cli import app
from aifbench.load.calibrate import GAP_MS, MARGIN, TOKENS, TTFT_MS, calibrate, exchange_errors, ladder, shape, summary
from aifbench.load.client import Exchange
from aifbench.load.reference_server import Plan, reference_server

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(value: object) -> bytes:
    data = b"data: " + orjson.dumps(value) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(text: str) -> bytes:
    return chunk({"choices": [{"delta": {"content": text}}]})


def test_errors_of_one_answer_by_hand() -> None:
    truth = chunk({"choices": [], "planted": {"received_ns": 1_010, "written_ns": [2_000, 3_000, 4_000]}})
    exchange = Exchange(0, 0, 900, send_ns=1_000, sent_ns=1_005, status=200)
    exchange.pieces = [(1_900, HEAD), (2_030, token("a")), (3_020, token("b")), (4_045, token("c") + truth)]
    errors = exchange_errors(exchange)
    assert errors is not None
    assert errors[0] == (2_030 - 2_000) + (1_005 - 1_000)
    assert errors[1].tolist() == [-10, 25]


def test_a_failed_answer_has_no_error_figures() -> None:
    exchange = Exchange(0, 0, 900, send_ns=1_000, sent_ns=1_005, status=200, error="reset")
    assert exchange_errors(exchange) is None
    exchange = Exchange(0, 0, 900, send_ns=1_000, sent_ns=1_005, status=200)
    exchange.pieces = [(1_900, HEAD), (2_030, token("a"))]
    assert exchange_errors(exchange) is None  # the server never told the truth


@pytest.mark.parametrize(("n", "bound"), [(5, "max"), (20, "p50"), (100, "p90"), (200, "p95"), (1000, "p99")])
def test_bound_is_the_largest_quantile_that_n_supports(n: int, bound: str) -> None:
    figures = summary(-np.arange(n, dtype=np.float64))
    assert figures["bound_quantile"] == bound
    share = 1.0 if bound == "max" else float(bound[1:]) / 100
    assert figures["bound"] == pytest.approx(share * (n - 1))
    assert figures["median"] == -(n - 1) / 2


def test_deadlines_of_a_stall() -> None:
    plan = Plan(ttft_ms=10, gap_ms=2, tokens=4, stall_after=2, stall_ms=100)
    assert list(plan.deadlines_ns()) == [10_000_000, 12_000_000, 114_000_000, 116_000_000]


def test_a_calibration_has_all_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aifbench.load.calibrate.SECONDS", 0.3)
    figures = calibrate(2, seed=1)
    assert figures["failed"] == 0
    assert figures["requests"] == 2 * int(0.3 / 0.016)
    assert figures["gap_error_s"]["n"] == 2 * figures["requests"]
    assert 0 < figures["ttft_error_s"]["bound"] <= figures["ttft_error_s"]["max"]
    assert figures["stamp_source"] in {"kernel", "read"}


def test_answers_are_shaped_for_the_load_that_is_to_be_known() -> None:
    assert shape(4, 0.0) == (TOKENS, GAP_MS)
    tokens, gap_ms = shape(2, 2000.0)
    # each stream: tokens by (first token, gaps, turn-around of 2 ms)
    assert 2 * tokens / (TTFT_MS + (tokens - 1) * gap_ms + 2) * 1e3 == pytest.approx(MARGIN * 2000.0)
    assert shape(1, 1e9)[1] == 0.1  # no faster than this


def test_the_ladder_rises_and_ends_with_what_is_not_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that brings 5 000 events/s at least, and no more than 30 000, is tried at rising loads only."""

    def known(clients: int, seed: int, tokens_per_s: float) -> dict[str, object]:
        came = min(max(MARGIN * tokens_per_s, 5_000.0), 30_000.0)
        return {"tokens_per_s": came, "ttft_error_s": {"bound": 1e-4}}

    monkeypatch.setattr("aifbench.load.calibrate.calibrate", known)
    rungs = [(figures["tokens_per_s"], figures["carried"]) for figures in ladder(64, 1)]
    assert rungs == [(5_000, True), (10_000, True), (20_000, True), (30_000, False)]


@pytest.mark.parametrize("streams", ["0", "2000", "x"])
def test_the_command_refuses_streams_that_make_no_sense(streams: str) -> None:
    answer = CliRunner().invoke(app, ["calibrate", "--streams", streams])
    assert answer.exit_code == 2


def test_the_planted_server_keeps_the_truth_that_it_tells(tmp_path) -> None:
    log = tmp_path / "truth.jsonl"
    messages = [{"role": "user", "content": "hello"}]
    body = {"messages": messages, "planted": {"ttft_ms": 1, "gap_ms": 1, "tokens": 3}}
    told = []
    with reference_server(log) as url, httpx.Client(base_url=url) as client:
        for number in range(2):
            answer = client.post("/v1/chat/completions", json=body, headers={"X-Request-ID": f"r{number}"}).text
            events = [orjson.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
            told.append(events[-1]["planted"])
        client.get("/health")  # an answer without a body has no messages
        end = time.monotonic() + 10
        while log.read_bytes().count(b"\n") < 3 and time.monotonic() < end:  # a line is written after its answer
            time.sleep(0.01)
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert [{"received_ns": line["received_ns"], "written_ns": line["written_ns"]} for line in lines[:2]] == told
    assert [line["request_id"] for line in lines] == ["r0", "r1", None]
    assert [line["messages"] for line in lines] == [messages, messages, None]
    assert [line["connection"] for line in lines] == [0, 0, 0]
