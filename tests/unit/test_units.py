import pytest

from aifbench.core.units import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), (4096, 4096), ("64MiB", 64 * 2**20), ("1GB", 10**9), ("1.5 KiB", 1536), ("2kB", 2000), ("7B", 7)],
)
def test_parses_what_people_write(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("bad", ["64 MebiByte", "-1MiB", "MiB", "", "0.3B", 1.5, True, None])
def test_refuses_what_is_no_size(bad):
    with pytest.raises(ValueError, match=r"not a"):
        parse_size(bad)


@pytest.mark.parametrize("size", [1, 4096, 64 * 2**20, 2**30, 10**9, 3 * 2**40])
def test_format_and_parse_are_inverse(size):
    assert parse_size(format_size(size)) == size
