"""Log configurations by an injected clock: what is accepted, what holds, when it ends, what survives."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from aifbench.log.levels import read_rules
from aifbench.services.log.configs import MOST_CONFIGS, Configs, read_logging_file, settings_of
from aifbench.services.problems import Refused

NOW = datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()
"""Half an hour before the clocks of Luxembourg go back."""


class Clock:
    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def configs(tmp_path, clock):
    return Configs(tmp_path / ".services" / "log-configs.json", clock)


def at(seconds):
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


def body(level=0, seconds=60.0, **match):
    return settings_of({"logLevel": level, "expires_at": at(seconds), "match": match})


def level(configs, **fields):
    return configs.threshold(fields).level


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"expires_at": "2026-11-27T18:00:00"}, "expires_at", "has no time zone"),
        ({"expires_at": 1795802400}, "expires_at", "must be a text with date, time and zone"),
        ({"expires_at": "tomorrow"}, "expires_at", "Input should be a valid datetime"),
        ({"level": 1}, "level", "is not a key"),
        ({"match": {"user": "x"}}, "match.user", "is not a key"),
        ({"match": {"run": ""}}, "match.run", "at least 1 character"),
        ({"match": {"run": "x" * 129}}, "match.run", "at most 128 characters"),
    ],
)
def test_what_cannot_be_a_configuration_is_refused_with_its_field(change, field, message):
    with pytest.raises(Refused) as refused:
        settings_of({"logLevel": 1, "expires_at": at(60), **change})
    assert (refused.value.code, refused.value.field) == ("invalid_config", field)
    assert message in refused.value.message
    assert refused.value.hint


LEVELS = "0: info and above, 1: warnings and errors, 2: errors"
NO_LEVELS = ["debug", "1", "", 3, -1, 10**18, True, False, None, 1.0, 0.5, [], {"a": 1}, "x" * 5000]


@pytest.mark.parametrize("value", NO_LEVELS)
def test_what_is_no_level_is_answered_with_what_the_levels_mean(tmp_path, value):
    with pytest.raises(Refused) as refused:
        settings_of({"logLevel": value, "expires_at": at(60)})
    assert (refused.value.field, refused.value.hint) == ("logLevel", LEVELS)
    shown = json.dumps(value)[:60]
    assert refused.value.message == f"{shown} is no level"
    file = tmp_path / "logging.yaml"
    file.write_text(f"configs: [{{name: x, logLevel: {json.dumps(value)}, expires_at: {at(60)}}}]")
    with pytest.raises(ValueError, match="no level") as broken:
        read_logging_file(file)
    assert str(broken.value) == f"logging.yaml: configs.0.logLevel: {shown} is no level ({LEVELS})"


def test_a_missing_level_is_told_what_may_stand_there():
    with pytest.raises(Refused) as refused:
        settings_of({"expires_at": at(60)})
    assert (refused.value.message, refused.value.hint) == ("is missing", LEVELS)


@pytest.mark.parametrize("value", [None, [], "x", 1, {"logLevel": 1}])
def test_what_is_no_object_or_lacks_a_key_is_refused(value):
    with pytest.raises(Refused):
        settings_of(value)


@pytest.mark.parametrize("seconds", [0, -1e-3, -3600])
def test_a_past_time_is_refused(configs, seconds):
    with pytest.raises(Refused) as refused:
        configs.put("x", body(seconds=seconds))
    assert refused.value.field == "expires_at"
    assert "is in the past" in refused.value.message
    assert configs.all == {}


def test_the_most_verbose_valid_one_wins_until_it_ends(configs, clock):
    configs.put("errors", body(2, 100))
    configs.put("debug", body(0, 10, run="ollama-*"))
    configs.put("warnings", body(1, 20, benchmark="inference"))
    assert level(configs, run="ollama-1", benchmark="inference") == 0
    assert level(configs, run="other", benchmark="inference") == 1
    assert level(configs) == 2
    clock.now += 10
    assert [config.name for config in configs.expire()] == ["debug"]
    assert configs.expire() == []
    assert level(configs, run="ollama-1", benchmark="inference") == 1
    clock.now += 90
    assert {config.name for config in configs.expire()} == {"warnings", "errors"}
    found = configs.threshold({"run": "ollama-1"})
    assert (found.level, found.known) == (None, True)
    assert configs.seconds_left() == float("inf")


def test_nothing_is_known_about_others(configs):
    configs.put("x", body(0, 60, service="job"))
    found = configs.threshold({"service": "elsewhere"})
    assert (found.level, found.known) == (None, False)


def test_an_expiry_is_final_when_the_clock_is_set_back(configs, clock):
    configs.put("x", body(0, 10))
    clock.now += 11
    assert len(configs.expire()) == 1
    clock.now -= 3600
    assert configs.expire() == []
    assert level(configs) is None
    assert configs.shown()[0]["state"] == "expired"


def test_a_clock_that_is_set_back_before_the_end_moves_nothing(configs, clock):
    configs.put("x", body(0, 10))
    clock.now -= 7200
    assert configs.seconds_left() == 7210
    assert level(configs) == 0
    clock.now = NOW + 10
    assert len(configs.expire()) == 1


def test_a_clock_that_jumps_ends_all_it_has_passed(configs, clock):
    configs.put("a", body(0, 10))
    configs.put("b", body(1, 86_400))
    clock.now += 7200
    assert [config.name for config in configs.expire()] == ["a"]
    assert configs.seconds_left() == 86_400 - 7200


def test_summer_time_ends_and_nothing_else(configs, clock):
    """02:30 is there twice that night; the zone says which one is meant."""
    configs.put("first", settings_of({"logLevel": 0, "expires_at": "2026-10-25T02:45:00+02:00"}))
    configs.put("second", settings_of({"logLevel": 1, "expires_at": "2026-10-25T02:45:00+01:00"}))
    clock.now = datetime(2026, 10, 25, 0, 45, tzinfo=UTC).timestamp()
    assert [config.name for config in configs.expire()] == ["first"]
    clock.now = datetime(2026, 10, 25, 1, 44, 59, tzinfo=UTC).timestamp()
    assert configs.expire() == []
    clock.now += 1
    assert [config.name for config in configs.expire()] == ["second"]


def test_a_restart_knows_all_and_ends_what_ended_meanwhile(configs, clock, tmp_path):
    configs.put("gone", body(0, 5))
    configs.put("short", body(1, 10))
    configs.put("long", body(2, 1000, run="a-*"))
    clock.now += 6
    configs.expire()
    configs.save()()
    clock.now += 6
    later = Configs(configs.file, clock)
    later.load()
    assert {config["name"]: config["state"] for config in later.shown()} == {
        "gone": "expired",
        "long": "valid",
        "short": "valid",
    }
    assert [config.name for config in later.expire()] == ["short"]
    assert level(later, run="a-1") == 2
    assert later.all["long"] == configs.all["long"]


def test_jobs_read_the_same_rules(configs, clock):
    configs.put("over", body(0, 5))
    configs.put("on", body(1, 10, run="x"))
    clock.now += 6
    configs.expire()
    configs.save()()
    rules = {rule.name: rule for rule in read_rules(configs.file)}
    assert rules["over"].expires == 0.0
    assert (rules["on"].level, rules["on"].expires, rules["on"].match) == (1, NOW + 10, {"run": "x"})


def test_a_broken_store_is_kept_aside_and_told(configs):
    configs.file.parent.mkdir(exist_ok=True)
    configs.file.write_text('{"configs": [{"name": "../x"}]}')
    configs.load()
    assert configs.all == {}
    assert "kept as log-configs.broken" in configs.problem
    assert configs.file.with_suffix(".broken").read_text() == '{"configs": [{"name": "../x"}]}'


def test_put_replaces_and_delete_removes(configs):
    configs.put("x", body(2, 60))
    configs.put("x", body(1, 60))
    assert level(configs) == 1
    configs.delete("x")
    assert level(configs) is None
    with pytest.raises(Refused) as refused:
        configs.delete("x")
    assert refused.value.status == 404


def test_clear_removes_those_that_are_over_and_were_set_by_rest(configs, clock, tmp_path):
    configs.put("brief", settings_of(body(seconds=10)))
    configs.put("long", settings_of(body(seconds=1000, run="a")))
    file = tmp_path / "logging.yaml"
    file.write_text(f"configs: [{{name: filed, logLevel: 0, expires_at: {at(10)}}}]")
    configs.take_file(read_logging_file(file))
    assert configs.clear() == []
    clock.now += 60
    configs.expire()
    assert configs.threshold({"run": "b"}).known
    assert configs.clear() == ["brief"]
    assert list(configs.all) == ["long", "filed"]
    assert configs.clear() == []


def test_more_than_the_most_are_refused(configs):
    for number in range(MOST_CONFIGS):
        configs.put(f"c{number}", body())
    with pytest.raises(Refused) as refused:
        configs.put("one-more", body())
    assert refused.value.code == "over_limit"
    configs.put("c0", body(1))


FILE = """
configs:
  - name: debug
    logLevel: 0
    expires_at: 2026-10-25T03:00:00+01:00
    match: {run: "ollama-*"}
  - {name: old, logLevel: 2, expires_at: "2020-01-01T00:00:00Z"}
"""


def test_the_file_sets_replaces_and_removes_its_own(configs, tmp_path, clock):
    file = tmp_path / "logging.yaml"
    file.write_text(FILE)
    configs.put("mine", body(1, 60))
    configs.put("debug", body(2, 60))
    said = configs.take_file(read_logging_file(file))
    assert len(said) == 2
    assert level(configs, run="ollama-7") == 0
    assert configs.all["old"].ended
    assert configs.take_file(read_logging_file(file)) == []
    with pytest.raises(Refused) as refused:
        configs.put("debug", body(2, 60))
    assert refused.value.code == "set_by_file"
    with pytest.raises(Refused):
        configs.delete("debug")
    file.write_text("configs: []\n")
    assert len(configs.take_file(read_logging_file(file))) == 2
    assert list(configs.all) == ["mine"]


def test_the_end_of_a_configuration_of_the_file_is_final_until_its_time_changes(configs, tmp_path, clock):
    file = tmp_path / "logging.yaml"
    file.write_text(FILE)
    configs.take_file(read_logging_file(file))
    clock.now += 3 * 3600
    assert [config.name for config in configs.expire()] == ["debug"]
    clock.now -= 3 * 3600
    configs.take_file(read_logging_file(file))
    assert configs.all["debug"].ended
    file.write_text(FILE.replace("03:00:00+01:00", "04:00:00+01:00"))
    configs.take_file(read_logging_file(file))
    assert level(configs, run="ollama-7") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("configs: [", "logging.yaml: line 1: not valid YAML"),
        ("configs: 3", "configs = 3: Input should be a valid list"),
        ("config: []", "config: is not a key"),
        ("- a", "needs a mapping at its top"),
        ("configs: [{name: x, logLevel: 1, expires_at: 2030-01-01 00:00:00}]", "has no time zone (give date, time"),
        ("configs: [{name: ../x, logLevel: 1, expires_at: 2030-01-01T00:00:00Z}]", "configs.0.name = '../x'"),
        (
            "configs: [{name: x, logLevel: 1, expires_at: 2030-01-01T00:00:00Z},"
            "{name: x, logLevel: 2, expires_at: 2030-01-01T00:00:00Z}]",
            "the name 'x' is there twice",
        ),
        ("loki: {url: 'file:///etc/passwd'}", "loki.url"),
        ("loki: {url: 'http://user:password@host'}", "loki.url = 'http://***@host'"),
        (
            "loki: {url: 'http://host:99999/push?key=secret'}",
            "loki.url = 'http://host:99999/push?***': port",
        ),
        ("loki: {url: 'http://host:99999'}", "loki.url"),
        ("loki: {url: 'http://host:abc'}", "loki.url"),
        ("loki: {url: 'http://host?tenant=a'}", "loki.url"),
        ("a: &a [x]\nb: [*a, *a]", "a: is not a key"),
        ("!!python/object/apply:os.system [id]", "a tag that is not read here"),
        ("x: " + "[" * 5000, "logging.yaml"),
        ("#" * 70_000, "larger than"),
        ("configs: [{name: x, logLevel: 010}]", "configs[0].logLevel = 010: a number with a leading zero"),
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path, text, message):
    file = tmp_path / "logging.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r".+") as broken:
        read_logging_file(file)
    assert message in str(broken.value)
    assert "\n" not in str(broken.value)


def test_a_missing_or_empty_file_has_nothing(tmp_path):
    assert read_logging_file(tmp_path / "none.yaml").configs == []
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_logging_file(tmp_path / "empty.yaml").configs == []


def test_credentials_that_others_can_read_are_refused(tmp_path):
    secret = tmp_path / "loki"
    secret.write_text("user:password\n")
    secret.chmod(0o644)
    file = tmp_path / "logging.yaml"
    file.write_text(f"loki: {{url: 'http://127.0.0.1:3100', credentials: {secret}}}")
    loki = read_logging_file(file).loki
    with pytest.raises(ValueError, match="others can read it"):
        loki.secret()
    secret.chmod(0o600)
    assert loki.secret().get_secret_value() == "user:password"
    assert "password" not in repr(loki.secret())
    secret.write_text("two\nlines")
    with pytest.raises(ValueError, match="one line"):
        loki.secret()


def test_remaining_time_is_shown(configs, clock):
    configs.put("x", body(0, 90))
    clock.now += 30
    shown = configs.show(configs.all["x"])
    assert shown["remaining_s"] == 60.0
    assert shown["state"] == "valid"
    assert datetime.fromisoformat(shown["expires_at"]) - datetime.fromtimestamp(NOW, UTC) == timedelta(seconds=90)
