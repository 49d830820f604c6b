"""Files that others may have written: what is read of them, what never is, and that nothing is written through them."""

import os
import resource
import socket
from pathlib import Path

import pytest

from aifbench.files import beneath
from aifbench.files.beneath import Unreadable, folder_beneath, folders_beneath, list_beneath, stat_beneath
from aifbench.files.bounded import MOST_VALUES, end_beneath, json_beneath, parse, read_beneath
from aifbench.files.tail import Tail
from aifbench.files.written import append_beneath, atomic_write, replaced, write_beneath

GIB = 1 << 30


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


@pytest.fixture
def root(tmp_path):
    """A root with one odd thing of each kind, and a file outside that nobody may come to through it."""
    made = tmp_path / "root"
    made.mkdir()
    (tmp_path / "outside").write_text("outside")
    (made / "link").symlink_to(tmp_path / "outside")
    (made / "hard").hardlink_to(tmp_path / "outside")
    (made / "dangling").symlink_to(tmp_path / "new")
    (made / "folder").mkdir()
    os.mkfifo(made / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(made / "socket"))
    sparse(made / "sparse", 2 * GIB)
    return made


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("link", "is a link"), ("dangling", "is a link"), ("folder", "is no regular file"),
        ("fifo", "is no regular file"), ("socket", "is no regular file"),
    ],
)  # fmt: skip
def test_what_is_no_file_is_neither_read_nor_written(root, tmp_path, name, problem):
    asks = (open_ for open_ in (read_beneath, stat_beneath, append_beneath, json_beneath))
    for ask in asks:
        with pytest.raises(Unreadable) as caught:
            ask(root, name)
        assert (caught.value.problem, caught.value.filename) == (problem, name)
    with pytest.raises(Unreadable, match=problem):
        end_beneath(root, name, most=10)
    assert (tmp_path / "outside").read_text() == "outside"
    assert not (tmp_path / "new").exists()


def test_a_device_is_not_even_opened(root, monkeypatch):
    try:
        os.mknod(root / "zero", 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this user may make no device")
    opened = []
    monkeypatch.setattr(beneath.os, "open", lambda name, *rest, opener=os.open, **more: (
        opened.append(name), opener(name, *rest, **more))[1])  # fmt: skip
    with pytest.raises(Unreadable, match="is no regular file"):
        read_beneath(root, "zero")
    assert "zero" not in opened


def test_a_place_is_named_from_the_root_on(root):
    (root / "folder" / "up").symlink_to(root)
    with pytest.raises(Unreadable) as caught:
        read_beneath(root, "folder", "up", "sparse")
    assert (caught.value.filename, caught.value.problem) == ("folder/up", "is a link")


def test_a_large_file_costs_no_memory(root):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for ask in (read_beneath, json_beneath):
        with pytest.raises(Unreadable, match="is larger than 32 MiB"):
            ask(root, "sparse")
    with folder_beneath(root) as folder, pytest.raises(Unreadable, match="is larger than 32 MiB"):
        read_beneath(folder, "sparse")
    assert end_beneath(root, "sparse", most=10) == (b"\0" * 10, True)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 16


@pytest.mark.parametrize(
    "text", [b"{", b"", b"NaN", b"[1e999,]", b"[" * 5000, b'"\xff"', b'"\\ud800"', b"\xef\xbb\xbf{}"]
)
def test_what_is_no_json(root, text):
    (root / "x").write_bytes(text)
    with pytest.raises(Unreadable, match="is no JSON"):
        json_beneath(root, "x")


def test_more_values_than_a_file_of_ours_has():
    assert len(parse(b"[" + b"1," * (MOST_VALUES // 2) + b"1]")) == MOST_VALUES // 2 + 1
    with pytest.raises(ValueError, match="more than 1500000 values"):
        parse(b"[" + b"[]," * MOST_VALUES + b"[],1]")


def test_a_file_is_written_whole_or_not_and_not_through_a_link(root, tmp_path):
    write_beneath(root, "folder", "new", data=b"content")
    write_beneath(root, "link", data=b"of ours")
    assert ((root / "link").read_bytes(), (root / "link").is_symlink()) == (b"of ours", False)
    assert (tmp_path / "outside").read_text() == "outside"
    for name in ("dangling", "fifo", "folder"):
        with pytest.raises(FileExistsError):
            write_beneath(root, name, data=b"x", new=True)
    with pytest.raises(OSError, match="folder"):
        write_beneath(root, "folder", data=b"x")
    (root / "away").symlink_to(tmp_path)
    with pytest.raises(Unreadable, match="is a link"):
        write_beneath(root, "away", "x", data=b"x")
    assert not (tmp_path / "x").exists()
    assert [name for name in os.listdir(root) if name.startswith(".")] == []


@pytest.mark.parametrize("umask", [0, 0o002, 0o077])
def test_what_is_written_others_may_not_change_whatever_the_umask(root, umask):
    before = os.umask(umask)
    try:
        write_beneath(root, "one", data=b"")
        append_beneath(root, "two").close()
    finally:
        os.umask(before)
    for name in ("one", "two"):
        assert (root / name).stat().st_mode & 0o777 == 0o644 & ~umask


def test_nothing_is_added_to_a_file_that_is_somebody_else_s_too(root, tmp_path):
    with pytest.raises(Unreadable, match="has a second name"):
        append_beneath(root, "hard")
    assert (tmp_path / "outside").read_text() == "outside"
    for text in (b"a", b"b"):
        with append_beneath(root, "log") as file:
            file.write(text)
    assert (root / "log").read_bytes() == b"ab"


def test_a_name_planted_for_what_is_written_aside_is_not_used(tmp_path):
    """A name that can be guessed would be a way to make us write elsewhere."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "precious").write_text("precious")
    for name in (f".x.json.{os.getpid()}", ".x.json"):
        (folder / name).symlink_to(tmp_path / "precious")
    atomic_write(folder / "x.json", b"new")
    assert (folder / "x.json").read_bytes() == b"new"
    assert (tmp_path / "precious").read_text() == "precious"


def test_what_fails_while_it_is_written_leaves_the_old_content_and_nothing_else(root):
    write_beneath(root, "plan", data=b"old")
    with pytest.raises(TypeError), replaced(root / "plan") as file:
        file.writelines([b"half of the n", None])
    assert (root / "plan").read_bytes() == b"old"
    assert [name for name in os.listdir(root) if "plan" in name] == ["plan"]


def test_what_is_written_is_on_the_disk_before_it_stands_at_its_place(root, monkeypatch):
    """Otherwise a crash could leave an empty file under the name."""
    order = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), real_sync(file)))
    monkeypatch.setattr(os, "replace", lambda *a, **k: (order.append("replace"), real_replace(*a, **k)))
    atomic_write(root / "new" / "spec.json", b"{}")
    assert order == ["fsync", "replace"]
    assert (root / "new" / "spec.json").read_bytes() == b"{}"


def test_a_tail_begins_where_a_line_begins_or_not_at_all(root):
    (root / "x").write_bytes(b"one\ntwo\n")
    with folder_beneath(root) as folder:
        tail = Tail("x")
        assert [tail.start_at(folder, offset) for offset in (3, 5, 9, -1)] == [False] * 4
        assert tail.start_at(folder, 4)
        assert list(tail.read(folder)) == [b"two"]
        assert tail.start_at(folder, 0)
        assert list(tail.read(folder)) == [b"one", b"two"]
        assert not Tail("fifo").start_at(folder, 0)


def test_a_listing_is_bounded(root, monkeypatch):
    monkeypatch.setattr(beneath, "MOST_NAMES", 5)
    assert len(list_beneath(root)) == 5
    assert len(folders_beneath(root)[0]) <= 5


def test_a_long_line_and_an_endless_one_take_a_bounded_look(root):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (root / "sparse").open("r+b") as file:
        file.seek(100 << 20)
        file.write(b"\nend\n" + b"\n" * (4 << 20))
    tail = Tail("sparse")
    with folder_beneath(root) as folder:
        assert list(tail.read(folder, 64 << 20)) == []
        assert tail.offset <= 65 << 20
        lines = tail.read(folder, 64 << 20)
        assert next(lines) == b"end"
        assert sum(line == b"" for line in lines) == 4 << 20
        assert tail.dropped == 2
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 64


def test_a_tail_goes_on_from_where_another_one_was(root):
    (root / "x").write_bytes(b"one\ntwo\nthree\n")
    with folder_beneath(root) as folder:
        assert list(Tail("x", 4).read(folder)) == [b"two", b"three"]
        assert list(Tail("x", 400).read(folder)) == [b"one", b"two", b"three"]
        piece = Tail("x")
        assert list(piece.read(folder, 1)) == [b"one", b"two", b"three"]
