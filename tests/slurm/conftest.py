"""What the tests on the cluster share."""

import subprocess
from pathlib import Path

import pytest

from tests.workflow.campaign import HOSTILE

HERE = Path(__file__).parent
CLUSTER = HERE / "cluster"


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The variables of a shell that uses the cluster."""
    text = subprocess.run(
        ["bash", "-c", f'eval "$({CLUSTER} env)" && env -0'], capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images; the models come to lie there too."""
    folder = tmp_path_factory.mktemp("shared") / f"{HOSTILE}:,"  # what `--bind` of Apptainer cuts at
    folder.mkdir()
    subprocess.run([str(HERE / "images"), str(folder / "images")], check=True, timeout=1200)
    return folder
