"""Parameters of an inference case: prompt, identity, names."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from aifbench.core.errors import ConfigError
from aifbench.engines.settings import LlamaCpp, Ollama, OpenAI
from aifbench.inference.params import MOST_PROMPT_BYTES, InferenceParams
from aifbench.load.schedules import Trace

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "one.txt").write_text("What is a knot?\n")
    (tmp_path / "prompts" / "empty.txt").write_text(" \n")
    (tmp_path / "prompts" / "latin.txt").write_bytes(b"caf\xe9 au lait")
    return tmp_path


def test_prompt_is_read_from_the_first_folder_that_has_it(folder: Path, tmp_path: Path) -> None:
    (point,) = InferenceParams.resolve({"prompt": "one", "clients": 2}, [tmp_path / "none", folder])
    assert point == {"prompt": "one", "prompt_text": "What is a knot?", "clients": 2}


def test_default_prompt_is_short() -> None:
    (point,) = InferenceParams.resolve({}, [CONFIG])
    assert point["prompt"] == "short"
    assert 100 < len(point["prompt_text"]) < 300
    (point,) = InferenceParams.resolve({"prompt": "long"}, [CONFIG])
    assert 600 < len(point["prompt_text"]) < 3200


def test_inline_prompt_has_a_short_name() -> None:
    (point,) = InferenceParams.resolve({"prompt": "What is a knot?"}, [])
    assert point["prompt_text"] == "What is a knot?"
    assert point["prompt"].startswith("inline-")
    assert InferenceParams.resolve({"prompt": "What is a hat?"}, [])[0]["prompt"] != point["prompt"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("two", "prompts/ (allowed: empty, latin, one, or a text with white space in it)"),
        ("../prompts/one", "no such prompt"),
        ("on", "prompts/, did you mean 'one'? (allowed: empty, latin, one, or a text"),
        ("n" * 300, "no such prompt in "),
        ("empty", "is empty"),
        ("latin", "cannot be read as UTF-8"),
    ],
)
def test_bad_prompt_is_one_clear_line(folder: Path, prompt: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        InferenceParams.resolve({"prompt": prompt}, [folder])
    assert message in str(caught.value)
    assert caught.value.key == "prompt"


def test_an_unknown_prompt_is_told_where_prompts_are() -> None:
    with pytest.raises(ConfigError) as caught:
        InferenceParams.resolve({"prompt": "shrot"}, [Path("mine"), Path("config")])
    assert str(caught.value) == (
        "prompt = 'shrot': no such prompt in mine/prompts/ or config/prompts/, did you mean 'short'? "
        "(allowed: long, short, or a text with white space in it)"
    )


def test_what_is_no_file_of_a_prompt_is_one_line_and_never_waited_for(folder: Path) -> None:
    prompts = folder / "prompts"
    (prompts / "folder.txt").mkdir()
    os.mkfifo(prompts / "fifo.txt")
    (prompts / "loop.txt").symlink_to("loop.txt")
    (prompts / "dangling.txt").symlink_to("gone.txt")
    (folder / "secret").write_text("do not send this")
    (prompts / "out.txt").symlink_to(folder / "secret")
    (prompts / "alias.txt").symlink_to("one.txt")
    (prompts / "zero.txt").write_bytes(b"a\0b")
    (prompts / "marked.txt").write_bytes(b"\xef\xbb\xbfWhat is a knot?")
    (prompts / "wide.txt").write_text("What is a knot?", encoding="utf-16")
    (prompts / "large.txt").write_bytes(b"a " * (MOST_PROMPT_BYTES // 2) + b"a")
    said = {
        "folder": "folder.txt: is a folder (allowed: UTF-8 text of at most 1 MiB)",
        "fifo": "fifo.txt: is no regular file",
        "loop": "loop.txt: cannot be read: Too many levels of symbolic links",
        "dangling": "dangling.txt: no such file",
        "out": "out.txt is a link to outside of ",
        "zero": "zero.txt has a NUL",
        "marked": "marked.txt begins with a byte order mark",
        "wide": "wide.txt cannot be read as UTF-8",
        "large": "large.txt: is larger than 1 MiB",
        "a \0 b": "the text has a NUL",
        " \n ": "the text is empty",
        "a " * MOST_PROMPT_BYTES: "the text is too long (allowed: UTF-8 text of at most 1 MiB)",
    }
    for prompt, message in said.items():
        with pytest.raises(ConfigError) as caught:
            InferenceParams.resolve({"prompt": prompt}, [folder])
        assert message in str(caught.value)
        assert str(caught.value).startswith("prompt = '")
        assert len(str(caught.value)) < 500
    (point,) = InferenceParams.resolve({"prompt": "alias"}, [folder])
    assert point["prompt_text"] == "What is a knot?"


def test_ends_of_lines_are_line_feeds(folder: Path) -> None:
    (folder / "prompts" / "dos.txt").write_bytes(b"\r\none\r\ntwo\rthree\r\n\r\n")
    (point,) = InferenceParams.resolve({"prompt": "dos"}, [folder])
    assert point["prompt_text"] == "one\ntwo\nthree"


@pytest.mark.parametrize(
    ("prompt", "engine", "output_tokens", "least"),
    [
        ("word " * 40_000, Ollama(kind="ollama"), 64, 40_000),
        ("word " * 40_000, Ollama(kind="ollama", context=40_063), 64, 40_000),
        ("word " * 40_000, Ollama(kind="ollama", context=40_064), 64, None),
        ("word " * 40_000, LlamaCpp(kind="llamacpp"), 64, 40_000),
        ("word " * 40_000, OpenAI(kind="openai", url="http://h:1", model="m"), 64, None),
        ("x " + "é" * 500_000, LlamaCpp(kind="llamacpp"), 64, 7812),
        ("a b", LlamaCpp(kind="llamacpp", context=128), 126, None),
        ("a b", LlamaCpp(kind="llamacpp", context=128), 127, 2),
    ],
)
def test_a_prompt_that_no_tokenizer_fits_into_the_context_is_refused(
    prompt: str, engine: object, output_tokens: int, least: int | None
) -> None:
    point = {"prompt": prompt, "engine": engine, "output_tokens": output_tokens}
    if least is None:
        assert InferenceParams.resolve(point, [])[0]["prompt_text"] == prompt
        return
    with pytest.raises(ConfigError, match=f"has at least {least} tokens; with {output_tokens} of an answer"):
        InferenceParams.resolve(point, [])


def test_text_cannot_be_given_beside_the_prompt() -> None:
    with pytest.raises(ConfigError, match="prompt_text"):
        InferenceParams.resolve({"prompt": "a b", "prompt_text": "x"}, [])


def test_identity_follows_the_text() -> None:
    one, other = InferenceParams(prompt_text="a"), InferenceParams(prompt_text="b")
    assert one.identity() != other.identity()
    assert one.setup_identity() == other.setup_identity()
    assert one.setup_names() == {"engine", "servers", "topology"}


def test_slug_names_engine_and_model() -> None:
    assert InferenceParams().slug() == "llamacpp-smollm2-135m"
    path = InferenceParams.model_validate({"engine": {"kind": "llamacpp", "model": "/models/Tiny_Model.Q4.gguf"}})
    assert path.slug() == "llamacpp-tiny-model-q4"
    ollama = InferenceParams.model_validate({"engine": {"kind": "ollama", "model": "mistral:7b"}})
    assert ollama.slug() == "ollama-mistral-7b"


@pytest.mark.parametrize(
    "values",
    [
        {"clients": 0},
        {"requests": 0},
        {"output_tokens": 1},
        {"cache": "warm"},
        {"schedule": "poisson"},
        {"temperature": -0.1},
        {"timeout_s": 0},
        {"warmup_requests": -1},
        {"engine": {"kind": "vllm"}},
        {"engine": "llamacpp"},
        {"output_tokens": 2048},
        {"servers": 0},
        {"servers": 2, "engine": {"kind": "openai", "url": "http://h", "model": "m"}},
        {"slo": {}},
        {"slo": {"ttft": 1}},
        {"cache": "shared-prefix", "prompt_text": "a long prompt"},
        {"shared_prefix_tokens": 8},
        {"cache": "shared-prefix", "shared_prefix_tokens": 4, "prompt_text": "sixteen letters!"},
        {"schedule": {"kind": "trace", "file": "x"}, "schedule_s": [0.0, 1.0], "requests": 3},
    ],
)
def test_nonsense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        InferenceParams.model_validate(values)


def test_expected_time_grows_with_the_work() -> None:
    small, large = InferenceParams(prompt_text="x"), InferenceParams(prompt_text="x", clients=4)
    assert 0 < small.expected_seconds(1) < large.expected_seconds(1) < large.expected_seconds(3)


def test_schedules_and_slos_have_a_short_form_and_the_default_schedule_is_no_part_of_the_identity() -> None:
    plain = InferenceParams(prompt_text="x")
    assert InferenceParams.model_validate({"prompt_text": "x", "schedule": "closed"}).identity() == plain.identity()
    case = InferenceParams.model_validate(
        {"schedule": {"kind": "poisson", "rate": "120/min"}, "slo": {"time_to_first_token_s": 0.5}}
    )
    assert (case.shown("schedule"), case.shown("slo")) == ("poisson 2/s", "time to first token <= 0.5 s")
    assert case.identity()["schedule"] == {"kind": "poisson", "rate": 2.0}


def test_an_open_schedule_counts_requests_of_all_clients_together_and_lasts_as_long_as_it_says() -> None:
    closed = InferenceParams(prompt_text="x", clients=8, requests=10)
    slow = InferenceParams.model_validate(
        {"prompt_text": "x", "clients": 8, "requests": 10, "schedule": {"kind": "constant", "rate": "1/min"}}
    )
    assert (closed.total_requests, slow.total_requests) == (80, 10)
    assert slow.expected_seconds(1) > 9 * 60


def test_the_times_of_a_trace_identify_the_case(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_text("timestamp\n10\n10.5\n12\n")
    schedule = Trace(kind="trace", file=str(file))
    (values,) = InferenceParams.resolve({"prompt": "a b", "schedule": schedule, "requests": 3}, [])
    assert values["schedule_s"] == (0.0, 0.5, 2.0)
    assert InferenceParams.model_validate(values).identity()["schedule_s"] == [0.0, 0.5, 2.0]
    file.write_text("timestamp\n3\n1\n")
    with pytest.raises(ConfigError, match=r"schedule\.file = .*line 3"):
        InferenceParams.resolve({"prompt": "a b", "schedule": schedule}, [])
