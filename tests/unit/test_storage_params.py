import pytest
from pydantic import ValidationError

from aifbench.storage.params import MIB, StorageParams


def make(**values):
    return StorageParams.model_validate({"file_size": "64MiB", **values})


def test_defaults_and_derived_counts():
    params = make()
    assert (params.block_size, params.mode, params.clients, params.layout) == (MIB, "direct", 1, "file-per-client")
    assert params.blocks_per_client == 64
    assert params.total_bytes == 64 * MIB


def test_file_per_client_multiplies_bytes_and_shared_divides_blocks():
    assert make(clients=4).total_bytes == 256 * MIB
    shared = make(clients=4, layout="shared")
    assert (shared.blocks_per_client, shared.total_bytes) == (16, 64 * MIB)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"block_size": "128MiB"}, "block_size"),
        ({"block_size": 3 * MIB}, "file_size"),
        ({"file_size": 47008 * 4, "block_size": 47008, "mode": "direct"}, "block_size"),
        ({"file_size": "3MiB", "clients": 2, "layout": "shared"}, "clients"),
        ({"stripe_count": 0}, "stripe_count"),
        ({"stripe_count": 4, "stripe_size": "100KiB"}, "stripe_size"),
        ({"stripe_size": "4MiB"}, "stripe_size"),
    ],
)
def test_fields_that_do_not_fit_are_named(values, field):
    with pytest.raises(ValidationError) as error:
        make(**values)
    assert error.value.errors()[0]["ctx"]["error"].field == field


@pytest.mark.parametrize(
    "values", [{"block_size": 0}, {"block_size": 511}, {"clients": 0}, {"mode": "cold"}, {"path": ""}, {"jobs": 2}]
)
def test_nonsense_is_refused(values):
    with pytest.raises(ValidationError):
        make(**values)


def test_odd_blocks_are_allowed_where_the_page_cache_takes_them():
    assert make(file_size=47008 * 4, block_size=47008, mode="warm").blocks_per_client == 4


def test_identity_leaves_defaults_out_and_path_is_shared_by_the_batch():
    assert make().identity() == {"file_size": 64 * MIB}
    assert make(path="/scratch").setup_identity() == {"path": "/scratch"}


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        (None, "target"),
        ("/mnt/Tier 2/x_y", "mnt-tier-2-x-y"),
        ("/", "root"),
    ],
)
def test_slug(path, slug):
    assert make(path=path).slug() == slug


def test_expected_seconds_grows_with_size_and_with_the_number_of_operations():
    assert make(file_size="1GiB").expected_seconds(1) > make().expected_seconds(1)
    assert make(block_size="4KiB").expected_seconds(1) > make().expected_seconds(1)
    assert make().expected_seconds(3) == pytest.approx(3 * make().expected_seconds(1))
