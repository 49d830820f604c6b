"""Each tool's rules, by hand.

Four requests of two clients, ms since the first send; d's server counts 8 tokens in its 4 events:
       scheduled  send   events with text    end   tokens
    a          0     0   100 110 120 130     135        4
    b         10    20   140 160 180 200     210        4
    c        125   135   275 305 335 365     370        4
    d        195   210   370 410 450 490     500        8
Send to first event: 100 120 140 160; to last event: 130 180 230 280; to end: 135 190 235 290.
First to last event: 30 60 90 120; by tokens - 1: 10 20 30 120/7.
"""

from typing import Any

import numpy as np
import pytest

from aifbench.inference.rosetta import QUANTITIES, WHOLE_RUN, Row, table, translate
from aifbench.records.store import typed_columns

ORIGIN = 7_000_000_000_000
MS = 1_000_000
A = (0, 0, 0, [100, 110, 120, 130], 135, 4)
B = (1, 10, 20, [140, 160, 180, 200], 210, 4)
C = (0, 125, 135, [275, 305, 335, 365], 370, 4)
D = (1, 195, 210, [370, 410, 450, 490], 500, 8)
Request = tuple[int, int, int, list[int], int, int | None]
TOOLS = ["aifbench", "guidellm", "aiperf", "vLLM bench serve", "llmperf", "MLPerf LoadGen"]


def columns(*requests: Request) -> dict[str, list[Any]]:
    def at(ms: int) -> int:
        return ORIGIN + ms * MS

    n = len(requests)
    absent = (
        "prompt_tokens", "cached_tokens", "server_queue_ms", "server_load_ms", "server_prefill_ms", "server_decode_ms",
    )  # fmt: skip
    return {
        "client": [request[0] for request in requests],
        "scheduled_ns": [at(request[1]) for request in requests],
        "send_ns": [at(request[2]) for request in requests],
        "first_byte_ns": [at(request[3][0]) for request in requests],
        "first_event_ns": [at(request[3][0]) for request in requests],
        "first_token_ns": [at(request[3][0]) for request in requests],
        "first_visible_ns": [at(request[3][0]) for request in requests],
        "token_ns": [[at(ms) for ms in request[3]] for request in requests],
        "end_ns": [at(request[4]) for request in requests],
        "tokens": [request[5] for request in requests],
        "connection_reused": [True] * n,
        "error": [None] * n,
        "answer_sha256": ["a"] * n,
        "reads_with_several_events": [0] * n,
        "round_trip_ns": [None] * n,
        "retransmits": [None] * n,
        **{name: [None] * n for name in absent},
    }


def rows_of(raw: Any) -> dict[tuple[str, str, str], Row]:
    return {(row.tool, row.quantity, row.statistic): row for row in translate(raw)}


def figures(raw: Any) -> dict[tuple[str, str, str], float | None]:
    return {key: row.value for key, row in rows_of(raw).items()}


def changed(before: Any, after: Any) -> set[tuple[str, str]]:
    old, new = figures(before), figures(after)
    same = {key for key, value in old.items() if value is not None and new[key] == pytest.approx(value, rel=1e-9)}
    return {key[:2] for key in old if key not in same and (old[key], new[key]) != (None, None)}


GOLDEN: dict[tuple[str, str], tuple[str, int, list[float | None]]] = {
    # mean, p50 and p99 of time to first token; ours gives no quantile of four values
    ("aifbench", "TTFT"): ("s", 4, [(0.1 + 0.12 + 0.14 + 0.16) / 4, None, None]),
    ("aifbench", "ITL"): ("s", 12, [(3 * 0.01 + 3 * 0.02 + 3 * 0.03 + 3 * 0.04) / 12, None, None]),
    ("aifbench", "TPOT"): ("s", 4, [(0.01 + 0.02 + 0.03 + 0.12 / 7) / 4]),
    ("aifbench", "latency"): ("s", 4, [(0.135 + 0.19 + 0.235 + 0.29) / 4]),
    # window 20 (b sent) to 370 (c ends): a, b and c whole, and 1 of d's 4 events, so 2 of its 8 tokens; 13 events
    ("aifbench", "throughput"): ("tokens/s", 13, [(4 + 4 + 4 + 2) / 0.35]),
    ("aifbench", "throughput per request"): ("tokens/s", 4, [(1 / 0.01 + 1 / 0.02 + 1 / 0.03 + 7 / 0.12) / 4]),
    # nearest rank of 4: p50 is the 2nd, p99 the 4th
    ("guidellm", "TTFT"): ("ms", 4, [(100 + 120 + 140 + 160) / 4, 120, 160]),
    # weights 3 3 3 7: sorted 10 (3) 120/7 (10) 20 (13) 30 (16): half of 16 lies in the 2nd
    ("guidellm", "ITL"): ("ms", 4, [(3 * 10 + 3 * 20 + 3 * 30 + 120) / 16, 120 / 7, 30]),
    # 130/4 = 32.5, 180/4 = 45, 230/4 = 57.5, 280/8 = 35, weights 4 4 4 8: sorted 32.5 (4) 35 (12) 45 (16) 57.5 (20)
    ("guidellm", "TPOT"): ("ms", 4, [(130 + 180 + 230 + 280) / 20, 35, 57.5]),
    ("guidellm", "latency"): ("s", 4, [(0.135 + 0.19 + 0.235 + 0.29) / 4, 0.19, 0.29]),
    # 20 tokens from a's first event at 100 to d's last at 490
    ("guidellm", "throughput"): ("tokens/s", 4, [20 / 0.39]),
    # linear: p50 half way between 2nd and 3rd, p99 97 % of the way from 3rd to 4th
    ("aiperf", "TTFT"): ("ms", 4, [130, 130, 140 + 0.97 * 20]),
    ("aiperf", "ITL"): ("ms", 4, [(10 + 20 + 30 + 120 / 7) / 4, (120 / 7 + 20) / 2, 20 + 0.97 * 10]),
    ("aiperf", "latency"): ("ms", 4, [(130 + 180 + 230 + 280) / 4, 205, 230 + 0.97 * 50]),
    # from 0 to d's last event at 490
    ("aiperf", "throughput"): ("tokens/s", 4, [20 / 0.49]),
    # 1/ITL: 100, 50, 33.3, 58.3
    ("aiperf", "throughput per request"): (
        "tokens/s", 4, [(100 + 50 + 100 / 3 + 175 / 3) / 4, (50 + 175 / 3) / 2, 175 / 3 + 0.97 * 125 / 3],
    ),
    ("vLLM bench serve", "TTFT"): ("ms", 4, [130, 130, 140 + 0.97 * 20]),
    # 3 gaps each of 10 20 30 40: p50 between the 6th (20) and 7th (30), p99 beyond the 11th (40)
    ("vLLM bench serve", "ITL"): ("ms", 12, [25, 25, 40]),
    ("vLLM bench serve", "TPOT"): ("ms", 4, [(10 + 20 + 30 + 120 / 7) / 4, (120 / 7 + 20) / 2, 20 + 0.97 * 10]),
    ("vLLM bench serve", "latency"): ("ms", 4, [205, 205, 230 + 0.97 * 50]),
    # from 0 to d's end at 500
    ("vLLM bench serve", "throughput"): ("tokens/s", 4, [20 / 0.5]),
    ("llmperf", "TTFT"): ("s", 4, [0.13, 0.13, 0.14 + 0.97 * 0.02]),
    # gaps and TTFT add up to 130 180 230 280, by 4 chunks each: 32.5 45 57.5 70
    ("llmperf", "ITL"): ("s", 4, [0.05125, 0.05125, 0.0575 + 0.97 * 0.0125]),
    ("llmperf", "latency"): ("s", 4, [0.2125, 0.2125, 0.235 + 0.97 * 0.055]),
    ("llmperf", "throughput"): ("tokens/s", 4, [20 / 0.5]),
    # 4/0.135 = 29.6, 4/0.19 = 21.1, 4/0.235 = 17.0, 8/0.29 = 27.6
    ("llmperf", "throughput per request"): (
        "tokens/s", 4,
        [
            (4 / 0.135 + 4 / 0.19 + 4 / 0.235 + 8 / 0.29) / 4,
            (4 / 0.19 + 8 / 0.29) / 2,
            8 / 0.29 + 0.97 * (4 / 0.135 - 8 / 0.29),
        ],
    ),
    # first event - scheduled: 100 130 150 175; element 4 x 0.5 = 2 is the 3rd, 4 x 0.99 = 3.96 the 4th
    ("MLPerf LoadGen", "TTFT"): ("ns", 4, [(100e6 + 130e6 + 150e6 + 175e6) / 4, 150e6, 175e6]),
    # (end - first event) / (tokens - 1): 35/3 70/3 95/3 130/7; sorted 35/3 130/7 70/3 95/3
    ("MLPerf LoadGen", "TPOT"): ("ns", 4, [(35 / 3 + 70 / 3 + 95 / 3 + 130 / 7) / 4 * 1e6, 70 / 3 * 1e6, 95 / 3 * 1e6]),
    # end - scheduled: 135 200 245 305
    ("MLPerf LoadGen", "latency"): ("ns", 4, [(135e6 + 200e6 + 245e6 + 305e6) / 4, 245e6, 305e6]),
    # from 0 to the end of d, scheduled last
    ("MLPerf LoadGen", "throughput"): ("tokens/s", 4, [20 / 0.5]),
}  # fmt: skip


@pytest.mark.parametrize(("tool", "quantity"), GOLDEN)
def test_rule_by_hand(tool: str, quantity: str) -> None:
    unit, n, expected = GOLDEN[tool, quantity]
    rows = [row for row in translate(columns(A, B, C, D)) if (row.tool, row.quantity) == (tool, quantity)]
    assert [row.value for row in rows] == [value if value is None else pytest.approx(value) for value in expected]
    assert {(row.unit, row.n) for row in rows} == {(unit, n)}
    assert all(row.metric and row.definition for row in rows)


def test_what_a_tool_lacks_has_a_reason() -> None:
    rows = translate(columns(A, B, C, D))
    lacking = {(row.tool, row.quantity) for row in rows if not row.metric}
    assert lacking == {(tool, quantity) for tool in TOOLS for quantity in QUANTITIES} - set(GOLDEN)
    assert all(row.note for row in rows if row.value is None)


def test_names_are_those_of_each_tool() -> None:
    names = {(row.tool, row.quantity, row.statistic): row.metric for row in translate(columns(A))}
    assert names["vLLM bench serve", "TTFT", "p50"] == "median_ttft_ms"
    assert names["guidellm", "ITL", "p99"] == "inter_token_latency_ms.percentiles.p99"
    assert names["aiperf", "throughput", WHOLE_RUN] == "output_token_throughput"
    assert names["llmperf", "latency", "mean"] == "end_to_end_latency_s.mean"
    assert names["MLPerf LoadGen", "TTFT", "mean"] == "Mean First Token latency (ns)"
    assert names["MLPerf LoadGen", "TTFT", "p99"] == "99.00 percentile first token latency (ns)"


def test_stall_is_in_gaps_and_lost_in_means() -> None:
    # 31 gaps of 20, one of them longer by 500: (31 x 20 + 500) / 31 = 36.1; the 30th of 31 gaps is 20, the last 520
    stamps = [100 + 20 * i + (500 if i >= 16 else 0) for i in range(32)]
    found = figures(columns((0, 0, 0, stamps, 1300, 32)))
    assert found["vLLM bench serve", "ITL", "p99"] == pytest.approx(20 + 0.7 * 500)
    assert found["guidellm", "ITL", "p99"] == pytest.approx(1120 / 31)
    assert found["aiperf", "ITL", "p99"] == pytest.approx(1120 / 31)


def test_early_role_chunk_is_the_first_token_of_one_tool_only() -> None:
    raw = columns(A, B, C, D)
    early = {**raw, "first_event_ns": [stamp + 5 * MS for stamp in raw["send_ns"]]}
    of_vllm = {("vLLM bench serve", quantity) for quantity in ("TTFT", "ITL", "TPOT")}
    assert changed(raw, early) == of_vllm | {("llmperf", "ITL")}
    found = figures(early)
    assert found["vLLM bench serve", "TTFT", "mean"] == pytest.approx(5)
    # one gap more per request, 95 115 135 155; then all are (last event - send - 5) over 4 gaps
    assert found["vLLM bench serve", "ITL", "mean"] == pytest.approx((125 + 175 + 225 + 275) / 16)
    # 125/3, 175/3, 225/3, 275/7
    assert found["vLLM bench serve", "TPOT", "mean"] == pytest.approx((125 / 3 + 175 / 3 + 75 + 275 / 7) / 4)
    # one chunk more: 130/5, 180/5, 230/5, 280/5
    assert found["llmperf", "ITL", "mean"] == pytest.approx((0.026 + 0.036 + 0.046 + 0.056) / 4)


def test_queue_before_send_is_in_one_tool_only() -> None:
    raw = columns(A, B, C, D)
    queued = {**raw, "scheduled_ns": [ORIGIN - 1000 * MS] * 4}
    assert changed(raw, queued) == {("MLPerf LoadGen", quantity) for quantity in ("TTFT", "latency", "throughput")}
    found = figures(queued)
    # first event at 100 140 275 370, 1000 after the schedule
    assert found["MLPerf LoadGen", "TTFT", "mean"] == pytest.approx(1e6 * (4000 + 100 + 140 + 275 + 370) / 4)
    assert found["MLPerf LoadGen", "throughput", WHOLE_RUN] == pytest.approx(20 / 1.5)


def test_loadgen_ends_its_run_with_the_query_scheduled_last() -> None:
    late = (0, 125, 135, [275, 305, 335, 365], 900, 4)
    found = figures(columns(A, B, late, D))
    assert found["MLPerf LoadGen", "throughput", WHOLE_RUN] == pytest.approx(20 / 0.5)
    assert found["llmperf", "throughput", WHOLE_RUN] == pytest.approx(20 / 0.9)


def test_failed_requests_are_left_out_of_all_but_durations() -> None:
    cut_short: Request = (1, -60, -50, [370, 410], 1000, None)
    raw = columns(A, B, C, cut_short)
    raw["error"][3] = "early_close"
    whole, alone = rows_of(raw), rows_of(columns(A, B, C))
    for key, row in whole.items():
        if key[1] != "throughput":
            assert (row.value, row.n) == (pytest.approx(alone[key].value), alone[key].n)
    # 12 tokens: from 100 to 365; from 0 to 365; twice over the failed one, -50 to 1000; from 0 to the end of c
    rates = {tool: whole[tool, "throughput", WHOLE_RUN].value for tool in TOOLS[1:]}
    assert rates == {
        "guidellm": pytest.approx(12 / 0.265),
        "aiperf": pytest.approx(12 / 0.365),
        "vLLM bench serve": pytest.approx(12 / 1.05),
        "llmperf": pytest.approx(12 / 1.05),
        "MLPerf LoadGen": pytest.approx(12 / 0.37),
    }
    assert "adj_" in whole["aiperf", "TTFT", "p99"].note
    assert "adj_" not in alone["aiperf", "TTFT", "p99"].note


def test_without_visible_text_llmperf_has_no_first_token() -> None:
    raw = columns(A, B)
    raw["first_visible_ns"] = [None, ORIGIN + 180 * MS]
    row = rows_of(raw)["llmperf", "TTFT", "mean"]
    assert (row.value, row.n) == (pytest.approx(0.16), 1)
    assert "1 answers without visible text" in row.note
    assert rows_of(raw)["guidellm", "TTFT", "mean"].n == 2


def test_one_token_has_no_time_between_tokens() -> None:
    rows = rows_of(columns((0, 0, 0, [100], 110, 1)))
    for tool, quantity in (("guidellm", "ITL"), ("aiperf", "ITL"), ("vLLM bench serve", "TPOT")):
        row = rows[tool, quantity, "mean"]
        assert (row.value, row.n) == (None, 0)
        assert "no request gives a value" in row.note
    assert rows["guidellm", "TPOT", "mean"].value == pytest.approx(100)


def test_stand_ins_are_named() -> None:
    raw = columns(A, B)
    counted = rows_of(raw)
    assert "server's count stands in for its local tokenizer" in counted["aiperf", "ITL", "mean"].note
    assert "tokenizer" not in counted["vLLM bench serve", "TPOT", "mean"].note
    raw["tokens"] = [None, None]
    uncounted = rows_of(raw)
    assert "token events (the server gives no count)" in uncounted["vLLM bench serve", "TPOT", "mean"].note
    assert "not used before" not in counted["aiperf", "TTFT", "mean"].note
    raw["connection_reused"] = [False, True]
    assert "1 of 2 answers came by a connection not used before" in rows_of(raw)["aiperf", "TTFT", "mean"].note


@pytest.mark.parametrize("requests", [(), (A,)])
def test_nothing_that_succeeded_is_no_figure(requests: tuple[Request, ...]) -> None:
    raw = columns(*requests)
    raw["error"] = ["timeout"] * len(requests)
    rows = translate(raw)
    assert {row.tool for row in rows} == set(TOOLS)
    others = [row for row in rows if (row.tool, row.quantity) != ("aifbench", "throughput")]  # 0 tokens in its window
    assert all(row.value is None and row.note and row.n == 0 for row in others)
    assert "nan" not in table(rows)


def test_columns_as_read_from_a_file_give_the_same() -> None:
    raw = columns(A, B, C, D)
    raw["tokens"][0] = None
    raw["first_visible_ns"][1] = None
    typed = typed_columns(raw)
    assert isinstance(typed["tokens"], np.ndarray)
    assert not changed(raw, typed)


def test_table_puts_the_tools_side_by_side() -> None:
    blocks = table(translate(columns(A, B, C, D))).split("\n\n")
    assert [block.partition("\n")[0] for block in blocks] == [
        *(f"{quantity}, ms" for quantity in QUANTITIES[:4]),
        *(f"{quantity}, tokens/s" for quantity in QUANTITIES[4:]),
    ]
    lines = blocks[0].splitlines()
    assert lines[1].split() == ["mean", "p50", "p99", "n"]
    assert [line.split()[-4:] for line in lines[2:8]] == [
        ["130.000", "-", "-", "4"],
        ["130.000", "120.000", "160.000", "4"],
        ["130.000", "130.000", "159.400", "4"],
        ["130.000", "130.000", "159.400", "4"],
        ["130.000", "130.000", "159.400", "4"],
        ["138.750", "150.000", "175.000", "4"],
    ]
    assert len({len(line) for line in lines[1:8]}) == 1
    assert "mean_ttft_ms, median_ttft_ms, p99_ttft_ms: send to first chunk with choices" in blocks[0]
    assert max(map(len, "\n".join(blocks).splitlines())) <= 120
    assert table([]) == ""
