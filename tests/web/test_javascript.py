"""The tests of the pages' JavaScript, by Node's own runner."""

import shutil
import subprocess
from pathlib import Path

import pytest

FILES = sorted(map(str, Path(__file__).parent.glob("*.test.js")))


@pytest.fixture(scope="module")
def node():
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    version = subprocess.check_output([found, "--version"], text=True).strip()
    if int(version[1:].split(".")[0]) < 20:
        pytest.skip(f"node is {version}, and 20 is needed")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file).name)
def test_of_node_pass(node, file):
    done = subprocess.run([node, "--test", file], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout
    assert "# fail 0" in done.stdout
    assert "# pass 0" not in done.stdout
