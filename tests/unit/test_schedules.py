"""Send times: distributions against their definitions, on long samples with fixed seeds."""

import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from aifbench.load.schedules import Closed, Constant, OnOff, Schedule, arrivals, parse_schedule, read_trace, shards

N = 200_000
ADAPTER = TypeAdapter(Schedule)
POISSON = {"kind": "poisson", "rate": 2}
GAMMAS = [0.5, 2, 2.5, 4]
RAMPS = [(100, 900, 200), (900, 100, 200), (0, 1000, 200), (500, 500, 10)]


def schedule(value):
    return ADAPTER.validate_python(value)


def gamma(burstiness):
    return {"kind": "gamma", "rate": 2, "burstiness": burstiness}


def ramp(first, last, seconds):
    return {"kind": "ramp", "from_rate": first, "to_rate": last, "seconds": seconds}


def times_of(value, seed=1, requests=N):
    return arrivals(schedule(value), requests, seed)


def gaps_of(value, seed=1, requests=N):
    return np.diff(times_of(value, seed, requests), prepend=0.0)


def exponential_cdf(gaps):
    return 1 - np.exp(-gaps)


def gamma_cdf(shape):
    """Regularised lower incomplete gamma function of a whole or half shape, from 1 or 1/2 upwards (DLMF 8.8.5)."""

    def cdf(y):
        start = 1.0 if shape == int(shape) else 0.5
        value = 1 - np.exp(-y) if start == 1 else np.vectorize(math.erf)(np.sqrt(y))
        for a in np.arange(start, shape):
            value = value - y**a * np.exp(-y) / math.gamma(a + 1)
        return value

    return cdf


def ks(sample, cdf):
    """Kolmogorov-Smirnov distance times the square root of n: below 1.63 in 99 % of true samples."""
    at = cdf(np.sort(sample))
    steps = np.arange(sample.size + 1) / sample.size
    return max(np.max(steps[1:] - at), np.max(at - steps[:-1])) * math.sqrt(sample.size)


def dispersion(times, window):
    """Variance over mean of the counts in windows of `window` seconds."""
    counts = np.bincount((times / window).astype(int))[:-1]
    return counts.var(ddof=1) / counts.mean()


def counts_in(times, edges):
    return np.diff(np.searchsorted(times, edges))


def test_gaps_of_poisson_are_exponential():
    gaps = gaps_of(POISSON) * 2
    assert ks(gaps, exponential_cdf) < 1.63
    assert ks(gaps * 1.02, exponential_cdf) > 1.63


@pytest.mark.parametrize("burstiness", GAMMAS)
def test_gaps_of_gamma_have_its_distribution(burstiness):
    gaps = gaps_of(gamma(burstiness)) * 2
    assert ks(gaps * burstiness, gamma_cdf(burstiness)) < 1.63
    assert ks(gaps, exponential_cdf) > 10
    assert gaps.var() == pytest.approx(1 / burstiness, rel=0.03)


def test_burstiness_one_is_poisson():
    assert ks(gaps_of(gamma(1)) * 2, exponential_cdf) < 1.63


@pytest.mark.parametrize("value", [POISSON, *map(gamma, GAMMAS)])
def test_counts_in_long_windows_are_dispersed_as_asked(value):
    assert dispersion(times_of(value), window=25) == pytest.approx(1 / value.get("burstiness", 1), rel=0.1)


@pytest.mark.parametrize("value", [POISSON, *map(gamma, GAMMAS)])
def test_gaps_do_not_depend_on_each_other_at_any_lag(value):
    gaps = gaps_of(value) - gaps_of(value).mean()
    spectrum = np.abs(np.fft.rfft(gaps, 2 * N)) ** 2
    correlation = np.fft.irfft(spectrum)[1 : N // 2] / (gaps @ gaps)
    assert abs(correlation[0]) < 0.01
    assert np.abs(correlation).max() < 0.02


@pytest.mark.parametrize("value", [POISSON, *map(gamma, GAMMAS)])
def test_realised_rate_is_close_to_the_asked_one_and_not_scaled_to_it(value):
    rates = np.array([1_000_000 / times_of(value, seed, 1_000_000)[-1] for seed in range(3)])
    assert np.abs(rates / 2 - 1).max() < 0.005
    assert np.unique(rates).size == 3


@pytest.mark.parametrize("value", [POISSON, *map(gamma, GAMMAS)])
def test_no_gap_comes_again_in_a_stream_or_in_another(value):
    gaps = np.concatenate([gaps_of(value, seed, 5_000) for seed in range(4)])
    assert np.unique(gaps).size == gaps.size


def test_streams_of_different_seeds_are_uncorrelated():
    gaps = np.array([gaps_of(POISSON, seed) for seed in range(8)])
    assert np.abs(np.corrcoef(gaps)[np.triu_indices(8, 1)]).max() < 0.01
    counts = [np.bincount(times_of(POISSON, seed).astype(int), minlength=90_000)[:90_000] for seed in range(8)]
    assert np.abs(np.corrcoef(counts)[np.triu_indices(8, 1)]).max() < 0.015


def test_other_draws_from_the_same_seed_are_uncorrelated_with_the_times():
    others = np.random.default_rng(1).standard_exponential(N)
    assert abs(np.corrcoef(gaps_of(POISSON), others)[0, 1]) < 0.01


@pytest.mark.parametrize(
    "value",
    [
        POISSON,
        gamma(0.5),
        ramp(1, 8, 60),
        {"kind": "step", "rates": [1, 0, 4], "seconds": 30},
        {"kind": "on-off", "rate": 4, "on_s": 10, "off_s": 20},
        {"kind": "constant", "rate": 3},
    ],
)
def test_times_follow_from_settings_and_seed_and_a_longer_load_begins_like_a_shorter_one(value):
    times = times_of(value, 5, 2_000)
    assert times.dtype == np.float64
    assert times[0] >= 0
    assert (np.diff(times) >= 0).all()
    assert np.array_equal(times, times_of(value, 5, 2_000))
    assert np.array_equal(times[:700], times_of(value, 5, 700))
    assert times_of(value, 5, 0).size == 0
    assert np.array_equal(times, times_of(value, 6, 2_000)) == (value["kind"] == "constant")


def test_constant_is_exact():
    assert times_of({"kind": "constant", "rate": 4}, requests=5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert times_of({"kind": "constant", "rate": "6/min"}, requests=3).tolist() == [0, 10, 20]
    assert times_of({"kind": "constant", "rate": 3})[-1] == (N - 1) / 3


def expected_on_ramp(t, first, last, seconds):
    inside = np.minimum(t, seconds)
    return first * inside + (last - first) * inside**2 / (2 * seconds) + last * np.maximum(t - seconds, 0)


@pytest.mark.parametrize(("first", "last", "seconds"), RAMPS)
def test_ramp_has_the_asked_rate_in_each_interval(first, last, seconds):
    times = times_of(ramp(first, last, seconds))
    edges = np.linspace(0, min(1.5 * seconds, times[-1]), 31)
    expected = np.diff(expected_on_ramp(edges, first, last, seconds))
    assert np.abs((counts_in(times, edges) - expected) / np.sqrt(expected)).max() < 4
    assert ks(np.diff(expected_on_ramp(times, first, last, seconds), prepend=0), exponential_cdf) < 1.63


@pytest.mark.parametrize("value", [ramp(1e6, 1e-6, 60), ramp(1e3, 1e-6, 60), ramp(0, 1e-6, 60), ramp(1e-6, 1e6, 60)])
def test_steep_ramps_are_computed_without_a_fault(value):
    with np.errstate(invalid="raise", divide="raise", over="raise"):
        assert np.isfinite(times_of(value)).all()


class LastBit:
    """A generator of gaps that are as small as the sum of all gaps can show."""

    def standard_exponential(self, requests):
        return np.array([1e5] + [np.spacing(1e5)] * (requests - 1))


def test_rounding_does_not_swap_times(monkeypatch):
    assert np.diff(schedule(ramp(1, 8, 60_000)).times(1_000, LastBit())).min() < 0
    monkeypatch.setattr(np.random, "default_rng", lambda _: LastBit())
    assert np.diff(times_of(ramp(1, 8, 60_000), requests=1_000)).min() >= 0


def test_step_has_the_asked_rate_in_each_step_and_keeps_the_last():
    rates = [50, 0, 800, 100, 400]
    times = times_of({"kind": "step", "rates": rates, "seconds": 100})
    assert times[-1] > 600
    expected = 100 * np.array([*rates, 400])
    counts = counts_in(times, np.arange(0, 700, 100))
    assert counts[1] == 0
    assert (np.abs(counts - expected) <= 4 * np.sqrt(expected)).all()
    before = np.concatenate([[0], np.cumsum(expected)])
    unit = np.interp(times[times < 600], np.arange(0, 700, 100), before)
    assert ks(np.diff(unit, prepend=0), exponential_cdf) < 1.63


def test_on_off_sends_at_its_rate_while_on_and_nothing_while_off():
    value = {"kind": "on-off", "rate": 40, "on_s": 10, "off_s": 20}
    times = times_of(value)
    period, within = np.divmod(times, 30)
    assert within.max() < 10
    assert times[0] < 1
    counts = np.bincount(period.astype(int))[:-1]
    assert np.abs(counts - 400).max() < 5 * 20
    assert np.abs(np.histogram(within, 10)[0] / (N / 10) - 1).max() < 4 / math.sqrt(N / 10)
    assert ks(np.diff(period * 10 + within, prepend=0) * 40, exponential_cdf) < 1.63
    assert schedule(value).mean_rate == pytest.approx(40 / 3)
    assert N / times[-1] == pytest.approx(40 / 3, rel=0.01)


def test_closed_has_no_arrivals():
    with pytest.raises(ValueError, match="closed schedule has no arrivals"):
        arrivals(Closed(kind="closed"), 10, 1)


def test_a_negative_number_of_requests_is_refused():
    with pytest.raises(ValueError, match="-1 requests"):
        arrivals(Constant(kind="constant", rate=1), -1, 1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("closed", "closed"),
        ({"kind": "closed", "think_s": 0.5}, "closed think 0.5 s"),
        ({"kind": "constant", "rate": 2.5}, "constant 2.5/s"),
        ({"kind": "poisson", "rate": "120/min"}, "poisson 2/s"),
        ({"kind": "gamma", "rate": "2/s", "burstiness": 0.5}, "gamma 2/s burstiness 0.5"),
        ({"kind": "on-off", "rate": "4 / s", "on_s": 10, "off_s": 20}, "on-off 4/s on 10 s off 20 s"),
        ({"kind": "ramp", "from_rate": 1, "to_rate": "8/s", "seconds": 60}, "ramp 1 to 8/s in 60 s"),
        ({"kind": "step", "rates": [1, "2/s", "240/min"], "seconds": 30}, "step 1, 2, 4/s each 30 s"),
        ({"kind": "trace", "file": "traces/chat.jsonl"}, "trace chat.jsonl"),
    ],
)
def test_each_kind_is_read_and_shown_and_survives_json(value, shown):
    found = schedule(value)
    assert found.shown == shown
    assert ADAPTER.validate_json(ADAPTER.dump_json(found)) == found
    assert schedule(found) == found
    assert len({found, schedule(value)}) == 1


def test_only_the_word_closed_stands_for_a_schedule():
    assert parse_schedule("closed") == Closed(kind="closed", think_s=0)
    assert parse_schedule("poisson") == "poisson"
    assert {"const": "closed", "type": "string"} in ADAPTER.json_schema()["anyOf"]


KINDS = "needs the word closed, or a mapping with a `kind`: closed, constant, poisson, gamma, on-off, ramp"
RATE = "not a rate; allowed: requests per second, or a number with /s or /min"


@pytest.mark.parametrize(
    ("value", "key", "message"),
    [
        ("poisson", (), KINDS),
        (None, (), KINDS),
        ({"rate": 2}, (), KINDS),
        ({"kind": "gama", "rate": 2}, (), KINDS),
        ({"kind": "poisson"}, ("rate",), "Field required"),
        ({**POISSON, "burstiness": 1}, ("burstiness",), "Extra inputs"),
        ({"kind": "poisson", "rate": "2"}, ("rate",), RATE),
        ({"kind": "poisson", "rate": "2/h"}, ("rate",), RATE),
        ({"kind": "poisson", "rate": "-2/s"}, ("rate",), RATE),
        ({"kind": "poisson", "rate": True}, ("rate",), RATE),
        ({"kind": "poisson", "rate": [2]}, ("rate",), RATE),
        ({"kind": "poisson", "rate": 0}, ("rate",), "greater than"),
        ({"kind": "poisson", "rate": "0/s"}, ("rate",), "greater than"),
        ({"kind": "poisson", "rate": math.inf}, ("rate",), "less than"),
        ({"kind": "poisson", "rate": math.nan}, ("rate",), "than"),
        (gamma(0), ("burstiness",), "greater than"),
        (gamma("0.5"), ("burstiness",), "valid number"),
        ({"kind": "closed", "think_s": -1}, ("think_s",), "greater than"),
        ({"kind": "closed", "think_s": True}, ("think_s",), "finite number"),
        ({"kind": "on-off", "rate": 1, "on_s": 0, "off_s": 1}, ("on_s",), "greater than 0"),
        ({"kind": "on-off", "rate": 1, "on_s": 1}, ("off_s",), "Field required"),
        (ramp(1, 0, 60), ("to_rate",), "greater than"),
        (ramp(-1, 1, 60), ("from_rate",), "greater than"),
        (ramp(1, 2, "1 min"), ("seconds",), "finite number"),
        ({"kind": "step", "rates": [], "seconds": 1}, ("rates",), "at least 1 item"),
        ({"kind": "step", "rates": [1, "x"], "seconds": 1}, ("rates", 1), RATE),
        ({"kind": "step", "rates": [1, 0], "seconds": 1}, ("rates",), "the last rate stays"),
        ({"kind": "trace", "file": ""}, ("file",), "at least 1 character"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(value, key, message):
    with pytest.raises(ValidationError) as caught:
        schedule(value)
    (error,) = caught.value.errors()
    assert tuple(part for part in error["loc"] if not str(part).startswith("[")) == key
    assert message in error["msg"]
    assert "\n" not in error["msg"]


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        OnOff(kind="on-off", rate=1, on_s=1, off_s=1).rate = 2


@pytest.fixture
def trace(tmp_path: Path):
    def write(content):
        path = tmp_path / "trace"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        "timestamp\n10\n10.5\n10.5\n12\n",
        "id,timestamp\r\na,10\r\nb,10.5\r\n\r\nc,10.5\r\nd,12",
        '\ufefftimestamp_ms ,prompt\n10000,"two\nlines"\n10500,\n10500,\n12000,x\n',
        "timestamp\n-2\n-1.5\n-1.5\n0\n",
        '{"timestamp": 10000, "input_length": 5, "output_length": 2, "hash_ids": [1, 2]}\n'
        '{"timestamp": 10500.0}\n\n{"timestamp": 10500}\n{"timestamp": 12000, "more": null}',
    ],
)
def test_a_trace_is_read_in_seconds_from_its_first_request(trace, content):
    times = read_trace(trace(content))
    assert times.dtype == np.float64
    assert times.tolist() == [0, 0.5, 0.5, 2]


def test_milliseconds_become_the_nearest_seconds(trace):
    assert read_trace(trace("timestamp_ms\n0\n27482\n30535\n")).tolist() == [0, 27.482, 30.535]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: needs one column named timestamp"),
        ("time,id\n1,2\n", "line 1: needs one column named timestamp"),
        ("\ntimestamp,timestamp_ms\n1,1000\n", "line 2: needs one column named timestamp"),
        ("timestamp\n", "has no requests"),
        ("timestamp\n1\nsoon\n", "line 3: timestamp 'soon' is not a number"),
        ("timestamp\n1\nnan\n", "line 3: timestamp 'nan' is not a number"),
        ("id,timestamp_ms\na,1\nb,\n", "line 3: timestamp_ms '' is not a number"),
        ("id,timestamp\na,1\nb\n", "line 3: has no timestamp"),
        ("timestamp\n1\n3\n2.5\n", "line 4: time 2.5 comes after 3, times must not decrease"),
        ('timestamp,text\n1,"open\n2,x\n', "line 3: not CSV"),
        (b"timestamp\n1\n\xff\n", "line 3: not UTF-8"),
        ('{"timestamp": 1}\n{"timestamp": 2\n', "line 2: not JSON"),
        ('{"timestamp": 1}\n[2]\n', "line 2: has no timestamp"),
        ('{"timestamp": 1}\n{"input_length": 2}\n', "line 2: has no timestamp"),
        ('{"timestamp": 1}\n{"timestamp": "2"}\n', "line 2: timestamp '2' is not a number"),
        ('{"timestamp": 1}\n{"timestamp": true}\n', "line 2: timestamp True is not a number"),
        ('{"timestamp": 2}\n{"timestamp": 1}\n', "line 2: time 1 comes after 2, times must not decrease"),
    ],
)
def test_a_wrong_trace_names_file_line_and_fault(trace, content, message):
    path = trace(content)
    with pytest.raises(ValueError, match="trace: ") as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_trace_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"none\.csv: no such file"):
        read_trace(tmp_path / "none.csv")


def test_arrivals_of_a_trace_are_its_first_times():
    chat, times = schedule({"kind": "trace", "file": "chat.csv"}), np.array([0, 0.5, 2])
    assert arrivals(chat, 2, 1, times).tolist() == [0, 0.5]
    assert arrivals(chat, 3, 2, times).tolist() == [0, 0.5, 2]
    with pytest.raises(ValueError, match=r"trace chat\.csv: has 3 requests, 4 are asked for"):
        arrivals(chat, 4, 1, times)
    with pytest.raises(ValueError, match="have not been read"):
        arrivals(chat, 1, 1)


@pytest.mark.parametrize(("requests", "count"), [(10, 1), (10, 3), (9, 3), (2, 5), (0, 2)])
def test_shards_hold_each_request_once_and_in_order(requests, count):
    times = times_of(POISSON, requests=requests)
    parts = shards(times, count)
    assert len(parts) == count
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(requests))
    assert [part.tolist() for part in parts] == [list(range(first, requests, count)) for first in range(count)]


def test_shards_need_a_process():
    with pytest.raises(ValueError, match="0 load processes"):
        shards(np.zeros(3), 0)
