"""A job's own log: one line per statement, and the log service's configurations about it."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from aifbench.log import writer as module
from aifbench.log.levels import FILE, Rule, read_rules, threshold
from aifbench.log.writer import ERROR, INFO, WARNING, BatchLog


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The results folder, in which a job looks for a changed configuration each time."""
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    (tmp_path / "results" / "laptop" / "batches" / "chat").mkdir(parents=True)
    return tmp_path / "results"


@pytest.fixture
def log(results):
    opened = BatchLog(results / "laptop" / "batches" / "chat" / "log.jsonl", "inference", "chat")
    yield opened
    opened._file.close()


def configure(results, *configs):
    entries = []
    for level, seconds, match, *rest in configs:
        expires = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        ended = bool(rest)
        entries.append(
            {"name": f"c{len(entries)}", "logLevel": level, "expires_at": expires, "match": match, "ended": ended}
        )
    (results / FILE).parent.mkdir(exist_ok=True)
    (results / FILE).write_text(json.dumps({"configs": entries}))


def lines(results):
    text = (results / "laptop" / "batches" / "chat" / "log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def said(results):
    return [line["msg"] for line in lines(results) if "written from here" not in line["msg"]]


def test_without_a_configuration_everything_is_written(results, log):
    for level in (INFO, WARNING, ERROR):
        log.write(level, f"level {level}", "0123")
    assert [(line["level"], line["msg"], line["case"]) for line in lines(results)] == [
        (0, "level 0", "0123"),
        (1, "level 1", "0123"),
        (2, "level 2", "0123"),
    ]


def test_one_line_whatever_the_message_holds(results, log):
    hostile = "a\nb\r\x1b[31mred\x7f\x9b32m\u202egnp\u2028\ufeff\u2066 ü"
    log.write(INFO, hostile)
    raw = (results / "laptop" / "batches" / "chat" / "log.jsonl").read_bytes()
    assert raw.count(b"\n") == 1
    assert all(char.isprintable() for char in raw.decode().rstrip("\n"))
    assert json.loads(raw)["msg"] == hostile
    assert "ü" in raw.decode()


def test_the_most_verbose_valid_configuration_counts(results, log):
    configure(results, (2, 60, {}), (1, 60, {"benchmark": "inf*"}), (0, 60, {"run": "other-*"}))
    log.write(INFO, "info")
    log.write(WARNING, "warning")
    assert said(results) == ["warning"]
    configure(results, (2, 60, {}), (0, 60, {"service": "job", "batch": "chat"}))
    log.write(INFO, "now")
    assert said(results) == ["warning", "1 statement(s) below 'warning' were held back", "now"]


def test_when_all_are_over_errors_remain(results, log):
    configure(results, (0, 0.15, {}))
    log.write(INFO, "valid")
    time.sleep(0.2)
    log.write(INFO, "too late")
    log.write(WARNING, "too late")
    log.write(ERROR, "an error is never lost")
    assert said(results) == ["valid", "an error is never lost"]
    assert [line["msg"] for line in lines(results) if "written from here" in line["msg"]] == [
        "written from here on: error (log configuration 'c0' is over)"
    ]
    log.close()
    assert said(results)[-1] == "2 statement(s) below 'error' were held back"


def test_expiry_is_honoured_before_the_file_is_looked_at_again(results, log, monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 1000.0)
    configure(results, (0, 0.1, {}))
    log.write(INFO, "valid")
    time.sleep(0.15)
    log.write(INFO, "too late")
    assert said(results) == ["valid"]


def test_an_ended_configuration_stays_over_when_the_clock_goes_back(results, log):
    configure(results, (0, 3600, {}, "ended"))
    log.write(INFO, "no")
    assert said(results) == []


def test_configurations_about_others_change_nothing(results, log):
    configure(results, (2, 60, {"run": "another"}), (2, -60, {"benchmark": "storage"}))
    log.write(INFO, "info")
    assert said(results) == ["info"]


def test_a_broken_file_keeps_the_last_good_one_and_its_end_gives_all_back(results, log):
    configure(results, (1, 60, {}))
    log.write(INFO, "off")
    (results / FILE).write_text('{"configs": [{"name"')
    log.write(INFO, "still off")
    log.write(WARNING, "on")
    assert said(results) == ["on"]
    (results / FILE).unlink()
    log.write(INFO, "all again")
    assert said(results)[-1] == "all again"


def test_a_log_elsewhere_looks_for_nothing(tmp_path):
    configure(tmp_path, (2, 60, {}))
    log = BatchLog(tmp_path / "log.jsonl", "inference", "chat")
    log.write(INFO, "info")
    log.close()
    assert json.loads((tmp_path / "log.jsonl").read_text())["msg"] == "info"


def test_threshold_names_the_rule_and_the_next_end():
    rules = [Rule("a", 1, 100.0, {}), Rule("b", 0, 50.0, {"run": "x-*"}), Rule("c", 2, 70.0, {"run": "y"})]
    assert threshold(rules, {"run": "x-1"}, 10.0) == threshold(rules[:2], {"run": "x-1"}, 10.0)
    found = threshold(rules, {"run": "x-1"}, 10.0)
    assert (found.level, found.until, found.known, found.name) == (0, 50.0, True, "b")
    found = threshold(rules, {"run": "x-1"}, 50.0)
    assert (found.level, found.until, found.name) == (1, 100.0, "a")
    assert threshold(rules[2:], {"run": "y"}, 70.0).level is None
    assert threshold(rules[2:], {}, 0.0).known is False


def test_rules_of_a_missing_and_of_a_broken_file(tmp_path):
    assert read_rules(tmp_path / "none.json") == []
    for text in (
        "",
        "[]",
        '{"configs": [{}]}',
        '{"configs": [{"name": "a", "logLevel": 0, "expires_at": "x", "match": {}, "ended": false}]}',
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r".+"):
            read_rules(tmp_path / "bad.json")
