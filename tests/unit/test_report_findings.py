from dataclasses import replace

import pytest

from aifbench.analysis.cases import Value
from aifbench.analysis.findings import NBSP, ratio
from aifbench.analysis.numbers import number
from aifbench.checks.kinds import NOISY
from aifbench.report.findings import findings, headline, machine_notes, trust, verdict
from aifbench.report.load import load
from tests.fixtures.results import HALF, inference, loads, retrieval, storage, write_results

UNLIMITED = float("inf")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "laptop"
    write_results(folder)
    return load(folder)


def told(results, benchmark):
    """The sentences, with the spaces that keep a name and its value on one line made plain."""
    return [finding.text.replace(NBSP, " ") for finding in findings(results)[benchmark]]


def value(mean, half):
    return Value(mean, "1/s", 5, mean - half, mean + half)


def written(folder, cases):
    write_results(folder, list(cases))
    return load(folder)


def test_fastest_index_at_the_target_against_exact_search(found):
    # 12 000 and 1 000 queries/s: 12 times, between 12 (1 - h) / (1 + h) and 12 (1 + h) / (1 - h) with h = 1.963 %.
    low, high = 12 * (1 - HALF) / (1 + HALF), 12 * (1 + HALF) / (1 - HALF)
    assert (f"{low:.1f}", f"{high:.1f}") == ("11.5", "12.5")
    rate = number(12000, 12000 * HALF, "queries/s")
    assert told(found, "retrieval")[0] == (
        f"HNSW32 (efSearch 64) reaches recall@10 0.9700 ± 0 at {rate}, "
        "12.0× (11.5–12.5) the rate of exact search (k 10, clients 1)."
    )


def test_a_faster_index_below_the_target_is_not_chosen(found):
    assert all("IVF" not in text for text in told(found, "retrieval")[:1])


def test_no_index_at_the_target(tmp_path):
    cases = [case for case in retrieval() if case.params["index"] == "Flat" or case.params["search"].get("nprobe") == 8]
    texts = told(written(tmp_path / "r", cases), "retrieval")
    assert texts[0] == (
        "No approximate index reaches recall@10 of 0.95; the closest is IVF1024,Flat (nprobe 8) with 0.8600 ± 0."
    )


def test_effect_of_clients_and_k_name_the_same_index(found):
    texts = told(found, "retrieval")
    assert texts[1].startswith("From 1 to 2 concurrent clients, HNSW32 (efSearch 64) answers 1.80× (1.73–1.87)")
    assert texts[2].startswith("From k = 1 to 100, HNSW32 (efSearch 64) takes 2.20× (2.12–2.29) the execution time")


def test_first_token_and_knee(found):
    texts = told(found, "inference")
    assert "160.0 ± 3.1 ms with 8, 4.00× (3.85–4.16) as long (prompt short)" in texts[0]
    # The line through 1 and 2 clients (100 and 190) meets the one through 4 and 8 (320 and 325) at 2 ** 1.81 = 3.5.
    assert texts[1].startswith("Throughput has its knee at 3.5 clients (3.")
    assert "With 4 clients all streams together reached 320.0 ± 6.3 tokens/s (prompt short)." in texts[1]


def test_no_knee_is_an_answer(tmp_path):
    cases = [case for case in inference() if case.params["clients"] <= 4]
    texts = told(written(tmp_path / "r", cases), "inference")
    assert texts[1] == (
        "No knee is found up to 4 clients: 3 loads cannot tell, 4 are needed. "
        "There all streams together reached 320.0 ± 6.3 tokens/s (prompt short)."
    )


def test_knees_of_clients_and_rates_and_the_limit_of_a_search(tmp_path):
    """The server of `loads` is full from 6 clients and from 12 requests/s on, and the search found 6 clients."""
    sentences = findings(written(tmp_path / "r", loads()))["inference"]
    texts = {finding.figure: finding.text.replace(NBSP, " ") for finding in sentences}
    assert texts["inference_latency_throughput"].startswith("Throughput has its knee at 6.0 clients (5.")
    assert "a doubling brings 2.00× before it and 1.00× beyond it" in texts["inference_latency_throughput"]
    assert texts["inference_latency_rate"].startswith("Throughput has its knee at 12.0 requests/s (11.")
    assert texts["inference_search"] == (
        "Up to 6.00 ± 0.12 clients, 95 % of the requests have a time to first token of at most 0.3 s."
    )


def test_a_search_without_a_limit_says_so(tmp_path):
    (case,) = [case for case in loads() if "find" in case.params]
    case.metrics["clients_under_slo"] = None
    results = written(tmp_path / "r", [case])
    results.cases[0].metrics["clients_under_slo"] = Value(None, "1", 0, reason="no limit up to 16")
    assert told(results, "inference") == [
        "The search for the most clients at which 95 % of the requests have a time to first token of at most 0.3 s "
        "ended with: no limit up to 16."
    ]


def test_the_load_of_a_search_is_no_axis_of_other_sentences(tmp_path):
    searches = [case for case in loads() if "find" in case.params]
    other = [replace(case, params={**case.params, "clients": 64}) for case in searches]
    assert len(told(written(tmp_path / "r", [*searches, *other]), "inference")) == 1


def test_ratio_of_noisy_values_is_no_difference():
    assert not ratio(value(140, 410), value(38, 104)).differs
    assert ratio(value(140, 410), value(38, 104)).high == UNLIMITED
    assert ratio(value(100, 1), value(10, 20)).differs
    assert ratio(Value(1.0, "s", 1), value(1, 0.1)) is None
    apart = ratio(value(30, 3), value(10, 1))
    assert (apart.value, apart.low, apart.high) == (3, pytest.approx(27 / 11), pytest.approx(33 / 9))


def test_storage_speaks_of_the_device_and_not_of_memory(found):
    texts = told(found, "storage")
    assert "reading from cold is fastest at 1\u202f920 ± 38 MiB/s (block size 1MiB, mode direct, clients 2)" in texts[0]
    assert texts[1].startswith("Blocks of 1MiB instead of 64KiB give 3.00× (2.88–3.12) the write bandwidth")
    assert "memory answers, not the device" in texts[2]


def test_invalid_failed_and_missing_cases_say_nothing(tmp_path):
    cases = [*storage(), *inference()]
    for case in cases:
        case.state = "invalid"
    results = written(tmp_path / "r", cases)
    assert findings(results) == {"storage": [], "inference": []}
    assert verdict(results) == "No: none of the 20 cases is valid (20 invalid)."


def test_headline_takes_the_first_of_each_benchmark_in_turn(found):
    chosen = headline(findings(found))
    assert [benchmark for benchmark, _ in chosen] == ["retrieval"] * 2 + ["inference"] * 2 + ["storage"] * 2
    assert all(finding.figure.startswith(f"{benchmark}_") for benchmark, finding in chosen)


def test_each_number_of_a_sentence_leads_to_a_case(found):
    known = {case.id for case in found.cases}
    for sentences in findings(found).values():
        for finding in sentences:
            links = [part for part in finding.parts if part.case]
            assert links
            assert {part.case for part in links} <= known


def test_trust(found):
    lines = ["".join(part.text for part in line) for line in trust(found)]
    assert verdict(found).startswith("59 of 62 cases passed every check. The others (1 invalid, 1 failed, 1 missing)")
    assert lines[0] == "Each valid case stands on 5 repetitions, each in a fresh process."
    assert "± 2.0 % of it in the median" in lines[1]
    # 100 ns of 7.8 us: warm reads of 64 KiB by two clients at 8 000 MiB/s.
    assert "errs by at most 1.3 % (read latency p50" in lines[2]
    assert lines[3].startswith("Cautions: 21 of 59 valid cases bear one; most often: other guests took 3.1%")
    assert machine_notes(found) == [
        "virtual: cores may be shared with others, and disks cached by the host",
        "measured by sources with uncommitted changes",
        "no container: libraries are those of the machine",
    ]


def test_cases_beside_other_work_are_not_called_good(tmp_path):
    cases = [case for case in storage() if case.state == "valid"]
    for case in cases[: len(cases) // 2]:
        case.notes = [NOISY.caution(noisy=5, repetitions=5, limit_cores=0.2, cores=1.4)]
    text = verdict(written(tmp_path / "r", cases))
    said = f"all {len(cases)} cases passed every check, but beside {len(cases) // 2} of them"
    assert text.startswith(f"With care: {said}")


def test_badly_repeatable_numbers_are_not_called_good(found):
    wide = [Value(1.0, "s", 3, -1.5, 3.5)] * 2
    for case, metric in zip(found.cases, wide, strict=False):
        case.metrics["execution_time_s"] = metric
    results = type(found)(**{**vars(found), "cases": found.cases[:2]})
    assert verdict(results) == (
        "All 2 cases passed every check, but they repeat badly: their main numbers carry ± 250 % in the median. "
        "Read them as orders of magnitude."
    )
