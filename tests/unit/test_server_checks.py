import pytest

from aifbench.checks.server import servers_changed
from aifbench.registry import sentence

HERE = {"context": 2048, "bytes": 1000, "gpu_bytes": 1000}


def test_a_server_that_stays_what_it_is_raises_nothing():
    assert servers_changed([HERE], [dict(HERE)], 1, [30.0, 250.0, None, float("nan")]) == []
    assert servers_changed([None, None], [None, None], 0, []) == []
    assert servers_changed([{**HERE, "gpu_bytes": 600}], [{**HERE, "gpu_bytes": 600}], None, []) == []


def test_the_server_that_changed_is_named():
    (reason,) = servers_changed([HERE, HERE], [HERE, {**HERE, "context": 4096}], 2, [])
    assert "model of server 2 changed" in sentence(reason)


@pytest.mark.parametrize(
    ("before", "after", "gpus", "load_ms", "said"),
    [
        (HERE, {**HERE, "context": 4096}, 1, [], "context 2048 to 4096"),
        (HERE, {**HERE, "gpu_bytes": 700}, None, [], "gpu_bytes 1000 to 700"),
        (HERE, None, 1, [], "unloaded while it was measured"),
        (None, HERE, 1, [], "loaded while it was measured"),
        ({**HERE, "gpu_bytes": 600}, {**HERE, "gpu_bytes": 600}, 1, [], "only 60% of the model is on a GPU"),
        (HERE, HERE, 0, [], "100% of the model is on a GPU, but the server was given none"),
        (HERE, HERE, 1, [30.0, 2500.0], "1 of 2 requests had to load the model"),
    ],
)
def test_what_invalidates(before, after, gpus, load_ms, said):
    (reason,) = servers_changed([before], [after], gpus, load_ms)
    assert said in sentence(reason)
