"""The servers of a batch: their places, their processes, and what a batch does without one of them."""

import pytest

from aifbench.core.benchmark import Command, Server, ServerNotReady
from aifbench.core.params import Params
from aifbench.core.system import System
from aifbench.processes.containers import Containers
from aifbench.processes.started import Started
from aifbench.runner.ended import Ended
from aifbench.runner.servers import Servers

SLEEP = ("python", "-c", "import time; time.sleep(60)")
SYSTEM = System(name="here")


class TwoGpus(Params):
    def gpus(self):
        return 2


class Sleeping(Server[TwoGpus]):
    """Two servers that listen nowhere."""

    def __init__(self, argv=SLEEP):
        self.argv, self.places = argv, []

    def count(self, params):
        return 2

    def command(self, params, place):
        self.places.append(place)
        return self.argv and Command(self.argv, image="sleeping")

    def endpoint(self, params, place):
        return f"http://{place.host}:{place.port}"

    def wait_ready(self, endpoint, params, timeout_s, alive):
        if not alive():
            raise ServerNotReady("no token")
        return {"first_answer_s": 0.5}

    def describe(self, endpoint, params):
        return {"endpoint": endpoint}


@pytest.fixture
def started():
    started = Started()
    yield started
    started.end()


def start(server, folder, started, wanted=lambda: True):
    servers = Servers(server, TwoGpus(), SYSTEM, folder)
    return servers, servers.start("127.0.0.1", Containers(SYSTEM, folder, []), started, wanted)


def test_each_server_has_a_port_a_folder_and_a_share_of_the_gpus(tmp_path, monkeypatch, started):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    server = Sleeping()
    servers, ready = start(server, tmp_path, started)
    assert [place.devices for place in server.places] == [("GPU-a",), ("GPU-b",)]
    assert [place.home for place in server.places] == [tmp_path / "work" / f"server-{number}" for number in (1, 2)]
    assert len({place.port for place in server.places}) == 2
    assert [facts["first_answer_s"] for facts in ready] == [0.5, 0.5]
    assert servers.describe() == [{"endpoint": f"http://127.0.0.1:{place.port}"} for place in server.places]
    assert sorted(started.roles) == ["runner", "server-1", "server-2"]


def test_a_job_with_too_few_gpus_is_a_config_error_and_nothing_is_started(tmp_path, monkeypatch, started):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    server = Sleeping()
    with pytest.raises(Ended, match="to have 2 GPUs; the job was given 1") as ended:
        start(server, tmp_path, started)
    assert (ended.value.status, server.places, list(started.roles)) == ("config_error", [], ["runner"])


def test_one_server_that_ends_is_seen_and_all_end_with_the_batch(tmp_path, started):
    servers, _ = start(Sleeping(), tmp_path, started)
    assert servers.alive()
    first, second = servers._groups
    first.stop()
    assert not servers.alive()
    assert servers.see_log == f"; see {tmp_path / 'server.log'}"
    started.end()
    assert not second.alive()


def test_nobody_waits_for_servers_when_the_batch_is_to_end(tmp_path, started):
    with pytest.raises(ServerNotReady):
        start(Sleeping(), tmp_path, started, wanted=lambda: False)
    assert len(started.roles) == 3


def test_servers_that_are_there_already_are_not_started_and_have_no_log(tmp_path, started):
    servers, ready = start(Sleeping(argv=None), tmp_path, started)
    assert (len(ready), servers.see_log, servers.images(), servers.alive()) == (2, "", set(), True)
    assert list(started.roles) == ["runner"]
    assert Servers(Sleeping(), TwoGpus(), SYSTEM, tmp_path).images() == {"sleeping"}
