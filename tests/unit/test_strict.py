"""Every number that a user can write is a number, finite and of 64 bits, in every model and by every way in."""

import math
from pathlib import Path
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, create_model

from aifbench.campaign.config import CampaignKeys, SuiteKeys, check_config
from aifbench.campaign.plan import make_plan
from aifbench.campaign.presets import PresetKeys
from aifbench.core.errors import ConfigError
from aifbench.core.strict import Strict
from aifbench.core.system import System
from aifbench.registry import benchmarks
from aifbench.services.client.request import parse_request
from aifbench.services.log.configs import LoggingFile
from aifbench.services.problems import Refused

TEXTS = ["1_000", "٣", "+2", "0x10", "1e999", "inf", "nan", "NaN", "infinity", "1:30", "", "true", "2,5"]
SPECIAL = [True, False, math.inf, -math.inf, math.nan, 10**30, -(10**30), *TEXTS]
LENIENT = [" 2", "2 ", "010"]
"""What a size and a rate may look like, but no plain number."""


def parts(annotation):
    """Yield the plain types and models that an annotation is made of."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from parts(get_args(annotation)[0])
    elif origin in {Union, UnionType, list, tuple}:
        for part in get_args(annotation):
            yield from parts(part)
    elif origin is dict:
        yield from parts(get_args(annotation)[1])
    else:
        yield annotation


def models(*roots):
    """Return the models and all that they hold."""
    found, left = [], list(roots)
    while left:
        model = left.pop()
        if model in found:
            continue
        found.append(model)
        for field in model.model_fields.values():
            left += [part for part in parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
    return found


ALL = models(
    CampaignKeys, SuiteKeys, System, PresetKeys, LoggingFile, *(benchmark.params for benchmark in benchmarks().values())
)
FIELDS = [
    pytest.param(model, name, field, id=f"{model.__name__}.{name}")
    for model in ALL
    for name, field in model.model_fields.items()
    if {int, float} & set(parts(field.annotation)) and not field.exclude
]


def test_all_numbers_are_found():
    assert len(ALL) > 20
    assert len(FIELDS) > 60


@pytest.mark.parametrize(("model", "name", "field"), FIELDS)
def test_no_number_becomes_another_in_silence(model, name, field):
    alone = create_model(name, __base__=Strict, **{name: (field.annotation, field)})
    origins = {get_origin(part) for part in (field.annotation, *get_args(field.annotation))}
    has_form = any(isinstance(mark, BeforeValidator) for mark in field.metadata)
    is_whole = float not in set(parts(field.annotation))
    for value in [*SPECIAL, *([] if has_form else LENIENT), *([1e30] if is_whole else [])]:
        wrapped = [value] if origins & {list, tuple} else {"x": value} if dict in origins else value
        with pytest.raises(ValidationError):
            print(value, alone(**{name: wrapped}))


class One(Strict):
    whole: int | None = None
    real: float = 0.0
    many: dict[str, dict[str, int | list[int]]] = Field(default_factory=dict)
    flag: bool = False
    text: str = ""


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"whole": "2"}, "whole", 2),
        ({"whole": 2.0}, "whole", 2),
        ({"whole": "-9223372036854775807"}, "whole", -(2**63) + 1),
        ({"whole": None}, "whole", None),
        ({"real": 3}, "real", 3.0),
        ({"real": "2.5e-3"}, "real", 0.0025),
        ({"many": {"a": {"b": [1, 2.0, "3"], "c": 4}}}, "many", {"a": {"b": [1, 2, 3], "c": 4}}),
        ({"flag": True}, "flag", True),
        ({"text": "1_000"}, "text", "1_000"),
    ],
)
def test_what_loses_nothing_is_taken(given, name, expected):
    found = getattr(One(**given), name)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"whole": True}, "needs a whole number"),
        ({"whole": 2.5}, "needs a whole number"),
        ({"whole": "2.0"}, "needs a whole number, in plain digits"),
        ({"whole": "1e3"}, "needs a whole number, in plain digits"),
        ({"whole": 2**63}, "a number beyond 64 bits"),
        ({"whole": "9" * 21}, "a number beyond 64 bits"),
        ({"whole": 1e19}, "a number beyond 64 bits"),
        ({"real": math.inf}, "needs a finite number"),
        ({"real": 10**400}, "a number beyond 64 bits"),
        ({"real": "9" * 400}, "needs a finite number"),
        ({"many": {"a": {"b": [1, True]}}}, "needs a whole number"),
        ({"flag": 1}, "needs true or false"),
        ({"flag": "yes"}, "needs true or false"),
    ],
)
def test_what_would_become_something_else_is_refused(given, said):
    with pytest.raises(ValidationError) as caught:
        One(**given)
    assert caught.value.errors()[0]["msg"] == f"Value error, {said}"


STORAGE = {"name": "s", "benchmark": "storage", "file_size": "1MiB", "mode": "warm"}
CHAT = {"name": "s", "benchmark": "inference", "prompt": "a b"}
ANN = {"name": "s", "benchmark": "retrieval", "dataset": "synthetic", "dim": 8, "index": "Flat"}


def line_of(suite, **keys) -> str:
    config = {"campaign": "x", "system": {"name": "here"}, "suites": [suite], **keys}
    with pytest.raises(ConfigError) as caught:
        make_plan(check_config(config, [Path("c.yaml")]))
    line = str(caught.value)
    assert line.isprintable()
    return line.removeprefix("c.yaml: ")


@pytest.mark.parametrize(
    ("suite", "keys", "said"),
    [
        ({**STORAGE, "clients": None}, {}, "suites[0].clients = null: needs a whole number"),
        ({**STORAGE, "file_size": None}, {}, "suites[0].file_size = null: not a size"),
        ({**STORAGE, "mode": None}, {}, "suites[0].mode = null: "),
        ({**STORAGE, "axes": None}, {}, "suites[0].axes = null: needs a mapping"),
        ({**STORAGE, "axes": {"clients": [1, None]}}, {}, "suites[0].axes.clients[1] = null: needs a whole"),
        ({**STORAGE, "exclude": None}, {}, "suites[0].exclude = null: "),
        ({**STORAGE, "exclude": [None]}, {}, "suites[0].exclude[0] = null: "),
        ({**STORAGE, "benchmark": None}, {}, "suites[0].benchmark = null: no such benchmark"),
        ({"name": "s"}, {}, "suites[0].benchmark: no such benchmark"),
        ({**STORAGE, "repetitions": None}, {}, "suites[0].repetitions = null: needs a whole number, or"),
        ({**STORAGE, "name": None}, {}, "suites[0].name = null: needs text"),
        (None, {}, "suites[0] = null: a suite is"),
        (STORAGE, {"suites": None}, "suites = null: needs a list"),
        (STORAGE, {"system": None}, "system = null: needs the name"),
        (STORAGE, {"seed": None}, "seed = null: needs a whole number"),
        (STORAGE, {"budget": {"node_hours": None}}, "budget.node_hours = null: needs a finite number"),
        (
            STORAGE,
            {"campaign": 7},
            'campaign = 7: needs text; a number, true or null that is meant as text stands in "',
        ),
        (STORAGE, {"seed": True}, "seed = true: needs a whole number"),
        (STORAGE, {"seed": [True, None, {"a": "b"}]}, "seed = [true, null, {a: 'b'}]: needs a whole number"),
        ({**STORAGE, "repetitions": {"min": True}}, {}, "suites[0].repetitions.min = true: needs a whole number"),
        ({**STORAGE, "pack": True}, {}, "suites[0].pack = true: needs a whole number"),
        ({**STORAGE, "clients": "1_000"}, {}, "suites[0].clients = '1_000': needs a whole number, in plain digits"),
        ({**CHAT, "engine": {"kind": "llamacpp", "slots": True}}, {}, "suites[0].engine.slots = true: needs a whole"),
        ({**CHAT, "slo": {"end_to_end_latency_s": math.inf}}, {}, "suites[0].slo.end_to_end_latency_s = inf: needs"),
        (
            {**CHAT, "repetitions": {"min": 2, "until": {"metric": "x", "half_width": "5_0%"}}},
            {},
            "half_width = '5_0%'",
        ),
        ({**CHAT, "engine": {"kind": "ollama", "keep_alive": "1:30"}}, {}, "keep_alive = '1:30': not of the form"),
        ({**ANN, "search": {"Flat": {"k": [1, True]}}}, {}, "suites[0].search"),
        ({**STORAGE, "clients": "x" * 5000}, {}, "suites[0].clients = 'xxxx"),
        (STORAGE, {"\x1b[2J\n": 1}, "\\x1b[2J : unknown key"),
        (STORAGE, {"budget": {"node_hours": 1e300}}, "budget.node_hours = 1e+300: "),
        (
            {**ANN, "axes": {key: list(range(1, 999)) for key in ("top_k", "queries")}},
            {},
            "suites[0].axes: 996004 cases",
        ),
        ({**ANN, "search": {"Flat": {k: list(range(1, 99)) for k in "abc"}}}, {}, "suites[0].search.Flat = "),
        ({**ANN, "index": "Flat," * 60}, {}, "suites[0].index = 'Flat,Flat"),
        ({**ANN, "index": "IVF٣,Flat"}, {}, "suites[0].index = 'IVF٣,Flat'"),
    ],
)
def test_a_wrong_value_is_shown_as_yaml_has_it(suite, keys, said):
    line = line_of(suite, **keys)
    assert said in line
    assert len(line) < 500


def test_a_long_value_shows_its_beginning_and_its_end():
    line = line_of({**STORAGE, "clients": f"/very/{'long/' * 99}name"})
    assert "clients = '/very/long/" in line
    assert "long/name': needs" in line


@pytest.mark.parametrize(
    "body",
    [
        '{"benchmark": "storage", "node_hours": 1e999}',
        '{"benchmark": "storage", "config": {"clients": 1e999}}',
        '{"benchmark": "storage", "config": {"axes": {"clients": [NaN]}}}',
        '{"benchmark": "storage", "config": {"clients": 99999999999999999999}}',
        '{"benchmark": "storage", "config": {"clients": ' + "9" * 5000 + "}}",
        '{"benchmark": "storage", "config": ' + '{"a": ' * 5000 + "1" + "}" * 5001,
        '{"benchmark": "storage", "config": {"name": "\\ud800"}}',
        '{"benchmark": "storage", "config": {"name": "\\u0000"}}',
        '{"benchmark": "storage", "clients": true}',
        '{"benchmark": "storage", "clients": "1"}',
    ],
)
def test_a_request_has_no_other_numbers(body):
    with pytest.raises(Refused) as refused:
        parse_request(body.encode(), lambda _body, _service: 64)
    assert refused.value.message.isprintable()
