"""Parameters of an inference case: prompt, identity, names."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from aifbench.campaign.errors import ConfigError
from aifbench.inference.params import InferenceParams

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
        ("two", "prompt = 'two': no such prompt (allowed: empty, latin, one)"),
        ("../prompts/one", "no such prompt"),
        ("empty", "is empty"),
        ("latin", "cannot be read as UTF-8"),
    ],
)
def test_bad_prompt_is_one_clear_line(folder: Path, prompt: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        InferenceParams.resolve({"prompt": prompt}, [folder])
    assert message in str(caught.value)
    assert caught.value.key == "prompt"


def test_text_cannot_be_given_beside_the_prompt() -> None:
    with pytest.raises(ConfigError, match="prompt_text"):
        InferenceParams.resolve({"prompt": "a b", "prompt_text": "x"}, [])


def test_identity_follows_the_text() -> None:
    one, other = InferenceParams(prompt_text="a"), InferenceParams(prompt_text="b")
    assert one.identity() != other.identity()
    assert one.setup_identity() == other.setup_identity()
    assert one.setup_names() == {"engine", "servers", "topology"}


def test_slug_names_engine_and_model() -> None:
    assert InferenceParams().slug() == "inference-llamacpp-smollm2-135m"
    path = InferenceParams.model_validate({"engine": {"kind": "llamacpp", "model": "/models/Tiny_Model.Q4.gguf"}})
    assert path.slug() == "inference-llamacpp-tiny-model-q4"
    ollama = InferenceParams.model_validate({"engine": {"kind": "ollama", "model": "mistral:7b"}})
    assert ollama.slug() == "inference-ollama-mistral-7b"


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
    ],
)
def test_nonsense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        InferenceParams.model_validate(values)


def test_expected_time_grows_with_the_work() -> None:
    small, large = InferenceParams(prompt_text="x"), InferenceParams(prompt_text="x", clients=4)
    assert 0 < small.expected_seconds(1) < large.expected_seconds(1) < large.expected_seconds(3)
