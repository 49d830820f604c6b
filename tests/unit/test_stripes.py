"""The attribute that spreads files on Lustre. There is no Lustre here: the kernel's two calls are a dictionary."""

import errno
import os

import pytest

from aifbench.storage.stripes import EVERY, set_stripes, stripes_of


@pytest.fixture
def attributes(monkeypatch):
    kept = {}
    monkeypatch.setattr(os, "setxattr", lambda path, name, value: kept.__setitem__((path, name), value))

    def get(path, name):
        try:
            return kept[path, name]
        except KeyError:
            raise OSError(errno.ENODATA, "none") from None

    monkeypatch.setattr(os, "getxattr", get)
    return kept


def test_the_value_is_what_lustre_defines(attributes, tmp_path):
    set_stripes(tmp_path, 4, 4 << 20)
    # lov_user_md_v1: magic 0x0BD10BD0, pattern RAID0, 16 bytes of id, stripe size, stripe count, any target
    value = "d00bd10b 01000000" + "00" * 16 + "00004000 0400 ffff"
    assert attributes[tmp_path, "lustre.lov"] == bytes.fromhex(value)
    assert stripes_of(tmp_path) == {"count": 4, "size": 4 << 20}
    set_stripes(tmp_path, EVERY, 1 << 20)
    assert attributes[tmp_path, "lustre.lov"][28:30] == b"\xff\xff"


def test_layouts_that_we_did_not_make_are_told_apart(attributes, tmp_path):
    set_stripes(tmp_path, 2, 1 << 20)
    plain = attributes[tmp_path, "lustre.lov"]
    attributes[tmp_path, "lustre.lov"] = bytes.fromhex("d00bd30b") + plain[4:] + b"pool"  # v3, with the name of a pool
    assert stripes_of(tmp_path) == {"count": 2, "size": 1 << 20}
    attributes[tmp_path, "lustre.lov"] = bytes.fromhex("d00bd60b") + plain[4:]  # of several components
    assert stripes_of(tmp_path) == {"layout": "other"}
    assert stripes_of(tmp_path / "not-there") is None


def test_a_real_file_system_without_stripes_has_none(tmp_path):
    with pytest.raises(OSError, match="not supported"):
        set_stripes(tmp_path, 4, 1 << 20)
    assert stripes_of(tmp_path) is None
