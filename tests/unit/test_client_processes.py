"""A load from several processes is the load of one: same requests, same clients, one start."""

import os

import pytest

from aifbench.load.client import StreamingClient
from aifbench.load.client_processes import ClientProcesses, ClientProcessFailed, load_client
from tests.unit.test_load_client import OK, REQUEST, server


def answer(connection, number):
    connection.sendall(OK)


def test_closed_loops_keep_their_clients_and_begin_together():
    with server(answer) as one, server(answer) as two, ClientProcesses([one, two], 5, 2) as crew:
        first = crew.run([[REQUEST] * 2] * 5, [0.0] * 5, 5.0)
        load = crew.run([[REQUEST] * 3] * 5, [0.01 * client for client in range(5)], 5.0)
    assert len(first.exchanges) == 10
    assert [(e.client, e.index) for e in load.exchanges] == [(c, i) for c in range(5) for i in range(3)]
    assert [e.error for e in load.exchanges] == [None] * 15
    assert all(e.connection_reused for e in load.exchanges)
    starts = [e.scheduled_ns - load.start_ns for e in load.exchanges if e.index == 0]
    assert starts == [10_000_000 * client for client in range(5)]


def test_a_schedule_is_shared_out_and_whole():
    at_s = [0.005 * i for i in range(7)]
    with server(answer) as target, ClientProcesses([target], 4, 3) as crew:
        load = crew.run_schedule([[REQUEST]] * 7, at_s, 5.0)
    asked = sorted(load.exchanges, key=lambda e: e.index)
    assert [e.index for e in asked] == list(range(7))
    assert [e.scheduled_ns - load.start_ns for e in asked] == [int(at * 1e9) for at in at_s]
    assert [e.error for e in asked] == [None] * 7


def test_a_process_that_dies_is_said_and_none_stays():
    with server(answer) as target:
        crew = ClientProcesses([target], 4, 2)
        pids = [process.pid for process, _ in crew._members]
        os.kill(pids[1], 9)
        with pytest.raises(ClientProcessFailed):
            crew.run([[REQUEST]] * 4, [0.0] * 4, 5.0)
        crew.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_process_is_the_client_itself():
    with server(answer) as target:
        with load_client([target], 3, 1) as client:
            assert isinstance(client, StreamingClient)
        with load_client([target], 1, 4) as crew:  # no more processes than clients
            assert len(crew._members) == 1
