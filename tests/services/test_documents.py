"""The examples of the documents, as they stand there, in a shell without XDG variables and in a home of a space."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.services.checkout import checkout, program
from tests.services.live import Unix

DOCS = Path(__file__).parents[2] / "docs"
FILES = ("launching.md", "monitoring.md", "log.md")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Runs commands of a user whose services run, in his checkout: (exit code, output, errors)."""
    folder = tmp_path_factory.mktemp("a home")
    checkout(folder / "project")
    program(folder / "project")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    process = subprocess.Popen(
        [".venv/bin/aifbench", "serve", "--no-open"],
        cwd=folder / "project",
        env={**environment, "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        while not (line := process.stdout.readline()).startswith("open:"):
            assert line, "it did not start"

        def run(*command):
            there = {"cwd": folder / "project", "env": {**environment, "HOME": str(folder)}}
            done = subprocess.run(command, **there, capture_output=True, text=True, timeout=60, check=False)
            return done.returncode, done.stdout, done.stderr

        yield run
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.mark.parametrize("name", FILES)
def test_examples_work_as_they_stand(home, name):
    examples = re.findall(r"```bash\n(.*?)```", (DOCS / name).read_text(), re.S)
    assert examples
    for example in examples:
        code, printed, complaints = home("bash", "-euo", "pipefail", "-c", example)
        assert (code, complaints) == (0, ""), example
        found = answers(printed)
        assert len(found) == len(
            re.findall(r"http://localhost|\$configs", example.replace("configs=http://localhost", ""))
        )
        for answer in found:
            assert answer.get("status", "ok") == "ok", answer


def answers(text):
    """Return the JSON documents that stand one behind the other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.strip():
        answer, end = decoder.raw_decode(text)
        found.append(answer)
        text = text[end:]
    return found


def where(home, *words):
    code, printed, complaints = home(".venv/bin/aifbench", "where", *words)
    return code, printed.removesuffix("\n"), complaints


def test_where_tells_paths_and_names_what_it_does_not_know(home):
    connection = Unix(where(home, "socket")[1])
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    assert len(Path(where(home, "token-read")[1]).read_text().strip()) == 43
    folder = Path(where(home, "token-read", "--tcp", "8091")[1]).parent
    assert re.fullmatch(r"tcp-[^.]+-8091", folder.name)
    code, _, said = where(home, "tocken")
    assert (code, said) == (
        2,
        "aifbench: what = 'tocken': no such file (allowed: socket, token-launch, token-read, token-ingest)\n",
    )
    assert where(home, "socket", "--tcp", "8091")[0] == 2
