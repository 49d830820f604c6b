"""What a user says about a server that is already there: one line for each fault, and no secret in it."""

from pathlib import Path

import pytest

from aifbench.campaign.config import check_config
from aifbench.core.errors import ConfigError
from aifbench.engines.base import Ask, target_of
from aifbench.engines.ollama import OllamaAdapter
from aifbench.engines.openai import OpenAIAdapter
from aifbench.engines.settings import Ollama, OpenAI, variables
from aifbench.inference.params import InferenceParams

SYSTEM = {"name": "here"}


def line(**engine: object) -> str:
    """Return the one line with which a campaign with this engine is refused."""
    suite = {"name": "s", "benchmark": "inference", "engine": {"kind": "openai", "model": "m", **engine}}
    with pytest.raises(ConfigError) as caught:
        check_config({"campaign": "c", "system": SYSTEM, "suites": [suite]}, [Path("c.yaml")])
    return str(caught.value).removeprefix("c.yaml: suites[0].")


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"url": "http://h:99999"}, "engine.url = 'http://h:99999': port '99999' is no number from 1 to 65535"),
        (
            {"url": "http://h/v1?api-version=1"},
            "engine.url = 'http://h/v1?***': what follows the `?` goes into the engine's `query: {api-version: …}`",
        ),
        (
            {"url": "http://me:s3cret@h"},
            "engine.url = 'http://***@h': a user or a key does not belong into a file: "
            "name a variable in api_key_env or headers",
        ),
        (
            {"url": "http://h/v1/chat/completions/"},
            "engine.url = 'http://h/v1/chat/completions/': is the address of one endpoint; give its base: http://h/v1",
        ),
        (
            {"kind": "ollama", "url": "http://h:1/api/generate"},
            "engine.url = 'http://h:1/api/generate': is the address of one endpoint; give its base: http://h:1",
        ),
        (
            {"url": "http://h:1/api/chat"},
            "engine.url = 'http://h:1/api/chat': is an address of Ollama's own API (kind: ollama); "
            "this kind needs a base such as http://host:8000/v1",
        ),
        (
            {"kind": "ollama", "url": "http://h:1/v1"},
            "engine.url = 'http://h:1/v1': is an address of OpenAI's API (kind: openai); "
            "this kind needs a base such as http://host:11434",
        ),
        (
            {"url": "http://h", "headers": {"api-key": "s3cret"}},
            "engine.headers.api-key: a secret does not belong into a file: give {env: NAME}, and set that variable",
        ),
        ({"url": "http://h", "query": {"code": "s3cret"}}, "engine.query.code: a secret does not belong into a file"),
        ({"url": "http://h", "headers": {"X-Team": 3}}, "engine.headers.X-Team: needs text in quotes, or {env: NAME}"),
        ({"url": "http://h", "query": {"v": None}}, "engine.query.v: needs text in quotes, or {env: NAME}"),
        ({"url": "http://h", "query": {"v": {"env": "s3-cret"}}}, "engine.query.v: needs {env: NAME}, with the name"),
        ({"url": "http://h", "query": {"v": {"env": "A", "b": 1}}}, "engine.query.v: needs {env: NAME}"),
        ({"url": "http://h", "headers": {"X-Team": "a\r\nEvil: 1"}}, "engine.headers.X-Team: has control characters"),
        ({"url": "http://h", "headers": {"X-Team": "ü"}}, "engine.headers.X-Team: needs printable ASCII"),
        ({"url": "http://h", "headers": {"X Team": "a"}}, "engine.headers: 'X Team' is no name of a header"),
        ({"url": "http://h", "headers": {"X:": "a"}}, "engine.headers: 'X:' is no name of a header"),
        ({"url": "http://h", "headers": {"": "a"}}, "engine.headers: '' is no name"),
        ({"url": "http://h", "headers": {"Host": "a"}}, "engine.headers.Host: is set for each request"),
        ({"url": "http://h", "headers": {"content-length": "1"}}, "engine.headers.content-length: is set"),
        ({"url": "http://h", "headers": {"Transfer-Encoding": "chunked"}}, "engine.headers.Transfer-Encoding: is set"),
        ({"url": "http://h", "headers": {"X-A": "1", "x-a": "2"}}, "engine.headers: a header stands twice"),
        (
            {"url": "http://h", "api_key_env": "K", "headers": {"authorization": {"env": "K"}}},
            "engine.headers.Authorization: is set by api_key_env already",
        ),
        ({"url": "http://h", "api_key_env": "s3cret key"}, "engine.api_key_env: is no name of an environment variable"),
        ({"url": "http://h", "ca_file": "ca.pem"}, "engine.ca_file = 'ca.pem': goes with a url that begins with https"),
        (
            {"kind": "ollama", "query": {"v": "1"}},
            "engine.query: goes with the `url` of a server that is already there",
        ),
        ({"url": "http://h", "extra": {"stream": False}}, "engine.extra.stream: must stay true"),
        ({"url": "http://h", "extra": {"stream": None}}, "engine.extra.stream: must stay true"),
        ({"url": "http://h", "extra": {"messages": None}}, "engine.extra.messages: holds the prompt"),
    ],
)
def test_each_fault_is_one_line_that_names_the_key(engine: dict[str, object], said: str) -> None:
    found = line(**engine)
    assert found.startswith(said)
    assert "s3" not in found


def test_values_of_variables_are_sent_and_stand_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "s3cret")
    monkeypatch.setenv("GATEWAY", "g4te/way")
    engine = {
        "kind": "openai", "model": "m", "url": "http://h/openai/deployments/d",
        "headers": {"api-key": {"env": "AZURE_KEY"}, "X-Team": "b 7"},
        "query": {"api-version": "2024-06-01", "sig": {"env": "GATEWAY"}},
    }  # fmt: skip
    params = InferenceParams.model_validate({"engine": engine, "prompt_text": "x"})
    assert params.secrets() == ("AZURE_KEY", "GATEWAY")
    assert isinstance(params.engine, OpenAI)
    adapter = OpenAIAdapter(params.engine.url, params.engine)
    head = adapter.request(Ask("Hi", 8, 0.0, 7)).split(b"\r\n\r\n")[0]
    path = b"POST /openai/deployments/d/chat/completions?api-version=2024-06-01&sig=g4te%2Fway HTTP/1.1"
    assert head.startswith(path)
    assert {b"api-key: s3cret", b"X-Team: b 7"} <= set(head.split(b"\r\n"))
    for text in (repr(params), params.model_dump_json(), repr(adapter.target), str(params.identity())):
        assert "s3cret" not in text
        assert "g4te" not in text
    assert adapter.words("no such key: s3cret (g4te/way, g4te%2Fway)\x1b[2J\nx") == (
        "no such key: *** (***, ***)\\x1b[2J x"
    )


def test_ollama_behind_a_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "Bearer s3cret")
    engine = {"kind": "ollama", "url": "https://gate/ollama", "headers": {"Authorization": {"env": "KEY"}}}
    settings = Ollama.model_validate({**engine, "query": {"tenant": "a b"}})
    head = OllamaAdapter(str(settings.url), settings).request(Ask("Hi", 8, 0.0, 7)).split(b"\r\n\r\n")[0]
    assert head.startswith(b"POST /ollama/api/generate?tenant=a%20b HTTP/1.1\r\n")
    assert b"Authorization: Bearer s3cret" in head


def test_settings_that_are_not_given_change_no_id() -> None:
    """The identities of engines before there were headers, query and ca_file."""
    url = {"kind": "openai", "url": "http://h:8000/v1", "model": "m"}
    for engine in ({**url, "api_key_env": "K", "extra": {"ignore_eos": True}}, url, {"kind": "ollama", "model": "m"}):
        params = InferenceParams.model_validate({"engine": engine, "prompt_text": "x"})
        assert params.identity()["engine"] == {name: value for name, value in engine.items() if name != ""}
    settings = OpenAI.model_validate({**url, "headers": {}, "query": {}, "ca_file": None})
    assert settings.model_dump(mode="json", exclude_defaults=True) == url


def test_variables_are_found_in_plain_data() -> None:
    engine = {"api_key_env": "A", "headers": {"x": {"env": "B"}, "y": "text"}, "query": {"z": {"env": "C"}}}
    assert variables(engine) == {"api_key_env": "A", "headers.x": "B", "query.z": "C"}
    assert variables({"api_key_env": None, "headers": ["odd"], "query": {"z": {"env": 3}}}) == {}


def test_certificates_are_read_by_the_batch() -> None:
    engine = {"kind": "openai", "url": "https://h", "model": "m", "ca_file": "certs/ca.pem"}
    params = InferenceParams.model_validate({"engine": engine, "prompt_text": "x"})
    assert params.reads() == (Path("certs/ca.pem"),)
    assert isinstance(params.engine, OpenAI)
    assert target_of(params.engine.url, params.engine).ca_file == Path("certs/ca.pem")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_length_that_is_asked_for_is_the_one_that_the_case_says(name: str) -> None:
    url = {"kind": "openai", "url": "http://h", "model": "m"}
    for extra, output_tokens in (({name: 64}, 64), ({"max_tokens": None, name: 64}, 64), ({name: None}, 5), ({}, 5)):
        point = {
            "engine": OpenAI.model_validate({**url, "extra": extra}),
            "prompt": "a b",
            "output_tokens": output_tokens,
        }
        assert len(InferenceParams.resolve(point, [])) == 1
    point = {"engine": OpenAI.model_validate({**url, "extra": {name: 64}}), "prompt": "a b", "output_tokens": 16}
    with pytest.raises(ConfigError) as caught:
        InferenceParams.resolve(point, [])
    assert str(caught.value) == (
        f"engine.extra.{name} = 64: the answers are to have output_tokens = 16: give both the same number"
    )
