"""Metrics and verdict of one repetition, by hand.

Two clients, two requests each, times in ms since the first send:
    client 0: send 0, tokens 100 110 120 130, end 130;   send 130, tokens 230 240 250 260, end 260
    client 1: send 20, tokens 140 160 180 200, end 200;  send 200, tokens 300 320 340 360, end 360
Steady window: 20 (client 1 begins) to 260 (client 0 ends).
"""

import copy
from pathlib import Path
from typing import Any

import pytest

from aifbench.checks.load import steady_window
from aifbench.core.benchmark import Raw
from aifbench.core.records import CaseRecord, Metric, Validity
from aifbench.inference.metrics import Requests, evaluate
from aifbench.inference.params import InferenceParams
from aifbench.records.store import BatchStore, plain_columns
from aifbench.registry import sentence
from tests.fixtures.notes import said

ORIGIN = 7_000_000_000_000
MS = 1_000_000
ROWS = [  # client, send, tokens, end
    (0, 0, [100, 110, 120, 130], 130),
    (0, 130, [230, 240, 250, 260], 260),
    (1, 20, [140, 160, 180, 200], 200),
    (1, 200, [300, 320, 340, 360], 360),
]
FACTS: dict[str, Any] = {
    "calibration": {"ttft_error_s": {"bound": 0.0002}, "gap_error_s": {"bound": 0.0001}, "tokens_per_s": 1e4},
    "fixes_length": True,
    "server_states_before": [None],
    "server_states_after": [None],
    "warmup_requests": 2,
    "warmup_failed": 0,
    "clock_offset_start_ns": 5,
    "clock_offset_end_ns": 6,
    "error_messages": {},
}
PARAMS = InferenceParams(prompt_text="x", clients=2, requests=2, output_tokens=4)


def at(ms: float | None) -> int | None:
    return None if ms is None else ORIGIN + int(ms * MS)


def raw() -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "client": [row[0] for row in ROWS],
        "scheduled_ns": [at(row[1]) for row in ROWS],
        "send_ns": [at(row[1]) for row in ROWS],
        "first_byte_ns": [at(row[1] + 10) for row in ROWS],
        "first_event_ns": [at(row[1] + 20) for row in ROWS],
        "first_token_ns": [at(row[2][0]) for row in ROWS],
        "first_visible_ns": [at(row[2][1]) for row in ROWS],
        "end_ns": [at(row[3]) for row in ROWS],
        "token_ns": [[at(ms) for ms in row[2]] for row in ROWS],
        "tokens": [4] * 4,
        "prompt_tokens": [50] * 4,
        "cached_tokens": [49] * 4,
        "error": [None] * 4,
        "answer_sha256": ["a", "a", "b", "a"],
        "reads_with_several_events": [0] * 4,
        "round_trip_ns": [None] * 4,
        "retransmits": [None] * 4,
        "server_queue_ms": [None] * 4,
        "server_load_ms": [None] * 4,
        "server_prefill_ms": [90.0, 90.0, 110.0, 90.0],
        "server_decode_ms": [30.0, 30.0, 60.0, 60.0],
    }
    return columns


def run(
    changes: dict[str, Any] | None = None, facts: dict[str, Any] | None = None, params: InferenceParams = PARAMS
) -> tuple[dict[str, Metric], Validity]:
    return evaluate(params, {**raw(), **(changes or {})}, {**FACTS, **(facts or {})})


def test_contract_outputs() -> None:
    metrics, validity = run()
    assert validity.valid
    ttft = metrics["time_to_first_token_s"]
    assert (ttft.value, ttft.unit, ttft.n, ttft.instrument) == (
        pytest.approx((0.1 + 0.1 + 0.12 + 0.1) / 4),
        "s",
        4,
        0.0002,
    )
    rate = metrics["tokens_generated_per_second"]
    assert (rate.value, rate.unit, rate.n) == (pytest.approx((100 + 100 + 50 + 50) / 4), "tokens/s", 4)
    # d(rate) = rate x (error of the span / span): 100 x 0.1/30 twice, 50 x 0.1/60 twice
    assert rate.instrument == pytest.approx((2 * 100 * 0.1 / 30 + 2 * 50 * 0.1 / 60) / 4)


def test_steady_window_and_what_is_in_it() -> None:
    requests = Requests.of(raw())
    window = steady_window(requests.clients, requests.columns["send"], requests.columns["end"])
    assert (window.start_s, window.end_s) == pytest.approx((0.02, 0.26))
    metrics, _ = run()
    aggregate = metrics["tokens_generated_per_second_aggregate"]
    assert aggregate.n == 12  # 8 of client 0; 4 of client 1, whose second answer begins at 300
    assert aggregate.value == pytest.approx(12 / 0.24)
    assert metrics["concurrency_achieved"].value == pytest.approx(2.0)


def test_gaps_and_whole_requests() -> None:
    metrics, _ = run()
    assert metrics["inter_token_latency_mean_s"].value == pytest.approx(0.015)
    assert metrics["inter_token_latency_max_s"].value == pytest.approx(0.02)
    assert metrics["inter_token_latency_max_s"].n == 12
    assert metrics["inter_token_latency_p50_s"].value is None  # 12 gaps do not carry a median
    assert metrics["time_per_output_token_s"].value == pytest.approx(0.015)
    assert metrics["end_to_end_latency_s"].value == pytest.approx((0.13 + 0.13 + 0.18 + 0.16) / 4)
    assert metrics["makespan_s"].value == pytest.approx(0.36)
    assert metrics["requests_per_second"].value == pytest.approx(4 / 0.36)
    assert metrics["success_rate"].value == 1.0
    assert metrics["distinct_answers"].value == 2


def test_first_byte_event_token_and_visible_token_are_four_things() -> None:
    metrics, _ = run()
    ttft = metrics["time_to_first_token_s"].value
    assert metrics["time_to_first_byte_s"].value == pytest.approx(0.010)
    assert metrics["time_to_first_event_s"].value == pytest.approx(0.020)
    assert metrics["time_to_first_visible_token_s"].value == pytest.approx(ttft + (10 + 10 + 20 + 20) / 4e3)
    assert metrics["time_to_first_token_from_schedule_s"].value == pytest.approx(ttft)


def test_a_stall_is_in_the_gaps_and_is_counted() -> None:
    stamps = [[100 + 10 * i + (500 if i >= 16 else 0) for i in range(32)]] * 4
    changes = {"token_ns": [[at(row[1] + ms) for ms in line] for row, line in zip(ROWS, stamps, strict=True)]}
    metrics, _ = run(changes)
    assert metrics["inter_token_stalls"].value == 4
    assert metrics["inter_token_latency_max_s"].value == pytest.approx(0.51)
    assert metrics["inter_token_latency_p50_s"].value == pytest.approx(0.01)
    assert metrics["inter_token_latency_p999_s"].value is None  # 124 gaps do not carry it


def open_load(lag_ms: float = 0.0, **values: Any) -> tuple[dict[str, Metric], Validity]:
    """The requests of ROWS as arrivals at 0, 20, 130 and 200 ms that were sent `lag_ms` late."""
    late = {"scheduled_ns": [at(row[1] - lag_ms) for row in ROWS]}
    given = {"schedule": {"kind": "poisson", "rate": 20}, "requests": 4, **values}
    return run(late, params=InferenceParams.model_validate({**PARAMS.model_dump(), **given}))


def test_an_open_load_is_judged_by_its_lag_and_not_by_littles_law() -> None:
    metrics, validity = open_load(lag_ms=0.5)
    assert validity.valid, said(validity.reasons)
    assert metrics["schedule_lag_max_s"].value == pytest.approx(0.0005)
    assert metrics["time_to_first_token_from_schedule_s"].value == pytest.approx(0.105 + 0.0005)
    assert metrics["end_to_end_latency_from_schedule_s"].value == pytest.approx(0.15 + 0.0005)
    # in flight between the first send, 0, and the last, 200: 130 + 70 of client 0, 180 of client 1
    assert metrics["concurrency_achieved"].value == pytest.approx((130 + 70 + 180) / 200)
    _, validity = open_load(lag_ms=1.2)  # 1 % of a time to first token of 105 ms is 1.05 ms
    assert "sent up to 1.2 ms late (p99; limit 1.05 ms)" in said(validity.reasons)[0]


def test_an_open_load_that_piles_up_is_a_caution() -> None:
    forever = {"end_ns": [at(10_000)] * 40, "error": [None] * 40}
    columns = {name: (values * 10) for name, values in raw().items()} | forever
    columns |= {name: [at(10 * i) for i in range(40)] for name in ("scheduled_ns", "send_ns")}
    params = InferenceParams.model_validate(
        {**PARAMS.model_dump(), "schedule": {"kind": "constant", "rate": 100}, "requests": 40}
    )
    _, validity = evaluate(params, columns, FACTS)
    assert any("20 requests were under way in the middle" in note for note in said(validity.notes)), validity.notes


@pytest.mark.parametrize(("think_s", "told"), [(0.05, True), (0.0, False)])
def test_a_think_time_has_a_schedule_that_lag_is_judged_by(think_s: float, told: bool) -> None:
    params = InferenceParams.model_validate({**PARAMS.model_dump(), "schedule": {"kind": "closed", "think_s": think_s}})
    _, validity = run({"scheduled_ns": [at(row[1] - 1.2) for row in ROWS]}, params=params)
    assert any("sent up to 1.2 ms late" in reason for reason in said(validity.reasons)) == told


def test_think_time_is_part_of_littles_law() -> None:
    thinking = InferenceParams.model_validate({**PARAMS.model_dump(), "schedule": {"kind": "closed", "think_s": 0.05}})
    _, validity = run(params=thinking)
    assert "Little's law does not hold" in said(validity.reasons)[0]


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        ({"time_to_first_token_s": 0.11}, 3),
        ({"time_per_output_token_s": 0.015}, 2),
        ({"end_to_end_latency_s": 0.17}, 3),
        ({"time_to_first_token_s": 0.11, "time_per_output_token_s": 0.015}, 2),
        ({"time_to_first_token_s": 0.01}, 0),
    ],
)
def test_goodput_is_what_keeps_every_bound(slo: dict[str, float], kept: int) -> None:
    metrics, _ = run(params=InferenceParams.model_validate({**PARAMS.model_dump(), "slo": slo}))
    assert metrics["goodput_share"].value == kept / 4
    assert metrics["goodput_requests_per_second"].value == pytest.approx(kept / 0.36)
    assert metrics["goodput_share"].n == 4


def test_goodput_counts_failures_and_needs_an_slo() -> None:
    assert run()[0]["goodput_share"].value is None
    within = InferenceParams.model_validate({**PARAMS.model_dump(), "slo": {"end_to_end_latency_s": 10}})
    metrics, _ = run({"error": ["reset", None, None, None]}, params=within)
    assert metrics["goodput_share"].value == 3 / 4


def test_beyond_the_calibrated_load_the_error_is_not_known() -> None:
    many = {"token_ns": [[at(row[1] + ms) for ms in range(100, 130)] for row in ROWS]}
    calibration = {**FACTS["calibration"], "tokens_per_s": 500.0}
    # 120 events between 100 and 329 ms
    _, validity = run(many, {"calibration": {**calibration, "tokens_per_s": 119 / 0.229}})
    assert not [reason for reason in said(validity.reasons) if "calibrated" in reason]
    _, validity = run(many, {"calibration": {**calibration, "tokens_per_s": 400.0}})
    assert "520 token events/s arrived, but the client is calibrated up to 400/s only" in said(validity.reasons)


def test_server_beside_ours() -> None:
    metrics, _ = run()
    assert metrics["server_tokens_per_second"].value == pytest.approx((100 + 100 + 50 + 50) / 4)
    assert metrics["server_time_to_first_token_s"].value == pytest.approx(0.095)
    assert metrics["server_time_to_first_token_s"].method == "server's prefill, mean"
    assert metrics["time_to_first_token_residual_s"].value == pytest.approx(0.105 - 0.095)
    assert metrics["prefill_tokens_per_second"].value == pytest.approx((3 / 0.09 + 1 / 0.11) / 4)


def test_all_parts_that_the_server_tells_are_added() -> None:
    metrics, _ = run({"server_queue_ms": [5.0] * 4, "server_load_ms": [1.0] * 4})
    assert metrics["server_time_to_first_token_s"].value == pytest.approx(0.101)
    assert metrics["server_time_to_first_token_s"].method == "server's queue + load + prefill, mean"


def test_time_that_no_clock_of_the_server_has_is_flagged() -> None:
    _, validity = run()  # 105 ms at the client, 95 by the server
    (note,) = said(validity.notes)
    assert note.startswith("10 ms, 10% of the time to first token, stand in none")
    _, validity = run({"server_prefill_ms": [104.0] * 4})
    assert said(validity.notes) == []
    _, validity = run({"server_prefill_ms": [125.0] * 4})
    assert "20 ms, 19% of the time to first token, more than the client waited" in said(validity.notes)[0]


def test_a_search_reports_its_limit_and_the_figures_at_it() -> None:
    slo = {"time_to_first_token_s": 0.11}
    case = InferenceParams.model_validate({**PARAMS.model_dump(), "clients": 4, "find": "clients", "slo": slo})
    two, both = raw(), {}
    four = {name: values * 2 for name, values in raw().items()} | {"client": [0, 0, 1, 1, 2, 2, 3, 3]}
    for name in two:
        both[name] = two[name] + four[name]
    both["probe"] = [2.0] * 4 + [4.0] * 8
    # 3 of 4 requests keep 110 ms: enough for a share of 0.7 at 2 clients; at 4 one more of them is made late.
    late = both["first_token_ns"]
    late[4] = late[5] = late[4] + 500 * MS
    metrics, _ = evaluate(case.model_copy(update={"find_share": 0.7}), both, FACTS)
    limit = metrics["clients_under_slo"]
    assert (limit.value, limit.n, limit.instrument) == (2.0, 2, 2.0)
    assert metrics["rate_under_slo"].value is None
    assert metrics["time_to_first_token_s"].n == 4
    metrics, _ = evaluate(case.model_copy(update={"find_share": 0.9}), both, FACTS)
    assert sentence(metrics["clients_under_slo"].reason) == "not even 2 keeps it"
    metrics, _ = evaluate(case.model_copy(update={"find_share": 0.1}), both, FACTS)
    assert sentence(metrics["clients_under_slo"].reason) == "no limit up to 4"
    assert metrics["time_to_first_token_s"].n == 8


def test_silent_server_leaves_its_figures_absent() -> None:
    none = [None] * 4
    names = ("server_prefill_ms", "server_decode_ms", "cached_tokens", "prompt_tokens")
    metrics, validity = run(dict.fromkeys(names, none))
    for name in (
        "server_tokens_per_second", "server_time_to_first_token_s", "time_to_first_token_residual_s",
        "prefill_tokens_per_second",
    ):  # fmt: skip
        assert metrics[name].value is None
        assert sentence(metrics[name].reason) == "the server does not tell it"
    assert validity.valid
    assert "cache mode warm-same not confirmed" in said(validity.notes)[0]


def failed(error: str, row: int = 3) -> dict[str, Any]:
    changes = raw()
    for name, values in changes.items():
        if name not in {"client", "scheduled_ns", "send_ns", "end_ns", "reads_with_several_events"}:
            values[row] = None
    changes["error"][row] = error
    changes["token_ns"][row] = []
    return changes


def test_failures_stay_in_the_denominator() -> None:
    metrics, validity = run(failed("timeout"), {"error_messages": {"timeout": "nothing came"}})
    assert (metrics["success_rate"].value, metrics["success_rate"].n) == (0.75, 4)
    assert metrics["time_to_first_token_s"].n == 3
    assert metrics["requests_per_second"].value == pytest.approx(3 / 0.36)
    assert said(validity.reasons) == ["1 of 4 requests failed: 1 timeout"]
    assert "timeout: nothing came" in said(validity.notes)


def test_an_answer_that_broke_off_is_in_no_rate() -> None:
    changes = raw()
    changes["error"][3] = "early_close"
    metrics, validity = run(changes)
    assert metrics["tokens_generated_per_second"].n == 3
    assert said(validity.reasons) == ["1 of 4 requests failed: 1 early_close"]


def test_all_failed_is_absent_with_reasons() -> None:
    changes = raw()
    for name in changes:
        if name not in {"client", "scheduled_ns"}:
            changes[name] = [None] * 4
    changes["error"], changes["token_ns"] = ["connect"] * 4, [[], [], [], []]
    metrics, validity = run(changes)
    assert metrics["success_rate"].value == 0.0
    others = {name: metric for name, metric in metrics.items() if name != "success_rate"}
    assert all(metric.value is None and metric.reason for metric in others.values())
    assert said(validity.reasons)[0] == "4 of 4 requests failed: 4 connect"


def test_without_a_success_there_is_no_rate_of_all_streams() -> None:
    metrics, _ = run({"error": ["reset"] * 4})  # all were sent and ended, so there is a steady window
    aggregate = metrics["tokens_generated_per_second_aggregate"]
    assert (aggregate.value, sentence(aggregate.reason)) == (None, "no request succeeded")
    assert metrics["success_rate"].value == 0.0


def test_one_client_alone_for_long_breaks_littles_law() -> None:
    changes = raw()
    changes["send_ns"][1] = at(200)  # client 0 does nothing from 130 to 200
    changes["scheduled_ns"][1] = at(130)
    _, validity = run(changes)
    assert len(said(validity.reasons)) == 1
    assert "Little's law" in said(validity.reasons)[0]


def test_clients_that_never_work_together() -> None:
    changes = raw()
    for name in ("send_ns", "end_ns", "first_token_ns"):
        changes[name][2:] = [stamp + 1000 * MS for stamp in changes[name][2:]]
    changes["token_ns"][2:] = [[stamp + 1000 * MS for stamp in row] for row in changes["token_ns"][2:]]
    metrics, validity = run(changes)
    assert "no time in which all clients were at work" in said(validity.reasons)[0]
    assert metrics["tokens_generated_per_second_aggregate"].value is None
    assert metrics["concurrency_achieved"].value is None


def test_client_and_server_must_tell_the_same_speed() -> None:
    assert run({"server_decode_ms": [34.9, 34.9, 64.9, 64.9]})[1].valid
    _, validity = run({"server_decode_ms": [35.1, 35.1, 65.1, 65.1]})
    assert said(validity.reasons) == [
        "first to last token took 0.045 s at the client, 0.0501 s by the server's own clock (tolerance 5%)"
    ]


def test_length_is_a_reason_where_it_was_fixed_and_a_note_elsewhere() -> None:
    params = PARAMS.model_copy(update={"output_tokens": 5})
    _, validity = run(params=params)
    assert "4 of 4 answers do not have the 5 tokens asked for (shortest 4, longest 4)" in said(validity.reasons)[0]
    _, validity = run(facts={"fixes_length": False}, params=params)
    assert validity.valid
    assert "4 of 4 answers" in " ".join(said(validity.notes))


def test_cache_state_must_agree_with_the_mode() -> None:
    _, validity = run({"cached_tokens": [49, 49, 0, 49]})
    assert "cache mode warm-same contradicted: 1 of 4" in said(validity.reasons)[0]
    _, validity = run(params=PARAMS.model_copy(update={"cache": "cold"}))
    assert "cache mode cold contradicted: 4 of 4" in said(validity.reasons)[0]


def test_more_clients_than_slots_is_a_note() -> None:
    params = InferenceParams.model_validate({**PARAMS.model_dump(), "engine": {"kind": "llamacpp", "slots": 1}})
    _, validity = run(params=params)
    assert validity.valid
    assert "2 clients, 1 served at once: times to first token contain a queue" in said(validity.notes)


def test_missing_count_falls_back_to_events_and_says_so() -> None:
    metrics, validity = run({"tokens": [None] * 4})
    assert metrics["tokens_generated_per_second"].value == pytest.approx(75)
    assert "token events (the server gives no count)" in metrics["tokens_generated_per_second"].method
    assert "the server gives no token count: token events are counted instead" in said(validity.notes)


def test_several_tokens_per_event_count_as_the_server_counts() -> None:
    metrics, _ = run({"tokens": [7] * 4, "server_decode_ms": [None] * 4})
    assert metrics["tokens_generated_per_second"].value == pytest.approx((2 * 6 / 0.03 + 2 * 6 / 0.06) / 4)
    assert metrics["tokens_generated_per_second_aggregate"].value == pytest.approx(12 * 7 / 4 / 0.24)


def test_tolerance_of_a_long_answer_is_relative() -> None:
    params = PARAMS.model_copy(update={"clients": 1})
    long = {name: values[:1] for name, values in raw().items()}
    long["token_ns"], long["end_ns"] = [[at(100), at(400), at(700), at(1100)]], [at(1100)]
    assert evaluate(params, {**long, "server_decode_ms": [1050.0]}, FACTS)[1].valid
    assert not evaluate(params, {**long, "server_decode_ms": [1055.0]}, FACTS)[1].valid


def test_wall_clock_step_changes_no_figure_but_is_said() -> None:
    before, _ = run()
    after, validity = run(facts={"clock_offset_end_ns": 3_600_000_000_000})
    assert before == after
    assert validity.valid
    assert "the wall clock stepped by +3600.000 s" in said(validity.notes)[0]


def test_coalesced_reads_and_failed_warmup_are_notes() -> None:
    _, validity = run({"reads_with_several_events": [2, 0, 0, 0]}, {"warmup_failed": 1})
    assert validity.valid
    assert any("2 reads brought several of 16 token events" in note for note in said(validity.notes))
    assert "1 of 2 warm-up requests failed" in said(validity.notes)


def test_the_network_has_its_part_of_the_time_to_first_token() -> None:
    without, _ = run()
    metrics, validity = run({"round_trip_ns": [4_000_000] * 4, "retransmits": [0, 2, 0, 1]})
    assert without["network_round_trip_s"].value is None
    assert metrics["network_round_trip_s"].value == pytest.approx(0.004)
    residual, before = (each["time_to_first_token_residual_s"].value for each in (metrics, without))
    assert residual is not None
    assert before is not None
    assert before - residual == pytest.approx(0.004)
    assert "the client's host sent 3 TCP segments again: the path to the server loses some" in said(validity.notes)


def test_without_calibration_there_is_no_instrument_error() -> None:
    metrics, _ = run(facts={"calibration": None})
    assert {metric.instrument for metric in metrics.values()} == {None}


def test_figures_are_the_same_from_a_worker_and_from_the_file(tmp_path: Path) -> None:
    columns: Raw = failed("timeout")
    store = BatchStore(tmp_path)
    store.create()
    record = CaseRecord(
        benchmark="inference", batch="b", case="c", repetition=0, invocation=0, status="ok", input={}, seed=1,
        started_at="now", t_start_s=0, t_end_s=1, validity=Validity(),
    )  # fmt: skip
    store.append_case(record, plain_columns(copy.deepcopy(columns)))
    fresh = evaluate(PARAMS, columns, FACTS)
    assert evaluate(PARAMS, store.read_raw("c", 0), FACTS) == fresh
    store.compact()
    metrics, validity = evaluate(PARAMS, store.read_raw("c", 0), FACTS)
    assert validity == fresh[1]
    for name, metric in metrics.items():
        assert metric.value == pytest.approx(fresh[0][name].value), name
