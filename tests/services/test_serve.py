"""The server as a process: where it listens, who may connect, how it ends."""

import os
import stat

import pytest

from tests.services.live import Live


@pytest.fixture
def server(tmp_path):
    with Live(tmp_path, "log") as live:
        yield live


def test_socket_folder_and_tokens_are_the_owners_alone(server):
    assert stat.S_IMODE(os.stat(server.socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(server.runtime).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(server.state).st_mode) == 0o700
    for scope in ("launch", "read", "ingest"):
        assert stat.S_IMODE(os.stat(server.state / f"token-{scope}").st_mode) == 0o600
        assert len(server.token(scope)) == 43
    assert server.get("/api/v1/services").json() == {"services": ["log"]}
