"""The tests of the pages' JavaScript, by Node's own runner."""

import shutil
import subprocess
from pathlib import Path

import pytest

FILES = sorted(map(str, Path(__file__).parent.glob("*.test.js")))


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file).name)
def test_of_node_pass(file):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    done = subprocess.run(["node", "--test", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "# fail 0" in done.stdout
    assert "# pass 0" not in done.stdout
