import pytest

from aifbench.checks.server import server_changed

HERE = {"context": 2048, "bytes": 1000, "gpu_bytes": 1000}


def test_a_server_that_stays_what_it_is_raises_nothing():
    assert server_changed(HERE, dict(HERE), 1, [30.0, 250.0, None, float("nan")]) == []
    assert server_changed(None, None, 0, []) == []


@pytest.mark.parametrize(
    ("before", "after", "gpus", "load_ms", "said"),
    [
        (HERE, {**HERE, "context": 4096}, 0, [], "context 2048 to 4096"),
        (HERE, {**HERE, "gpu_bytes": 700}, 0, [], "gpu_bytes 1000 to 700"),
        (HERE, None, 0, [], "unloaded while it was measured"),
        (None, HERE, 0, [], "loaded while it was measured"),
        ({**HERE, "gpu_bytes": 600}, {**HERE, "gpu_bytes": 600}, 1, [], "only 60% of the model is on a GPU"),
        (HERE, HERE, 0, [30.0, 2500.0], "1 of 2 requests had to load the model"),
    ],
)
def test_what_invalidates(before, after, gpus, load_ms, said):
    (reason,) = server_changed(before, after, gpus, load_ms)
    assert said in reason
