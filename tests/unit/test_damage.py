"""Every file of a results folder, damaged in every way: the rest is told, the file named, no number is another one.

Damage is drawn from seeds; a failure names the seed, and `damage(folder, seed)` does the same again.
"""

import contextlib
import io
import os
import random
import shutil
import socket
import sys

import orjson
import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from aifbench import cli, report
from aifbench.checks.kinds import NOISY, RAW_LOST
from aifbench.records.sealed import seal, unseal
from aifbench.records.store import BatchStore
from aifbench.tables.collect import collect
from tests.fixtures.recorded import DONE, KILLED, write_recorded

UNCHECKED = {f"batches/{DONE}/log.jsonl", f"batches/{KILLED}/log.jsonl", f"batches/{KILLED}/live/resources.jsonl"}
"""Files without checksums: a digit that was flipped in them is still a line. No number of a case comes from them."""
DERIVED = {"resources", "log"}
"""Tables that are made of those."""
OUTPUTS = ("tables/", "cases.csv", f"batches/{DONE}/done.json", f"batches/{KILLED}/done.json")
"""What is written anew, or only looked for."""


@pytest.fixture(scope="module", autouse=True)
def _made_once():
    """The command line is made from its functions at each call: here, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "app", get_command(cli.app))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "laptop"
    write_recorded(folder)
    assert run("report", folder) == (0, f"{folder}/report/index.html\n")
    code, said = run("gate", folder)
    assert (code, said.split(" · ")[0]) == (0, "4 valid")
    return folder


@pytest.fixture(scope="module")
def truth(whole):
    return collect(whole).rows


def run(command, folder, *arguments):
    """Run a command as `aifbench` does; return its exit code and all that it said. An exception is a traceback."""
    said, before = io.StringIO(), sys.argv
    sys.argv = ["aifbench", command, str(folder), *arguments]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    return ended.value.code or 0, said.getvalue()


# -- ways to damage a file ---------------------------------------------------------------------------------------------


def cut(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def zero(path, rng):
    data = bytearray(path.read_bytes())
    begin = rng.choice([0, rng.randrange(len(data))])
    end = rng.choice([len(data), min(len(data), begin + 1 + rng.randrange(512))])
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)


def empty(path, rng):
    path.write_bytes(b"")


def append_garbage(path, rng):
    with path.open("ab") as file:
        file.write(
            rng.choice([b"\xff\xfe garbage\n", b"null\n", b"[]\n", b"{}\n", b'{"a": NaN}\n', b"[" * 3000 + b"\n"])
        )


def double_line(path, rng):
    lines = path.read_bytes().splitlines(keepends=True)
    place = rng.randrange(len(lines))
    path.write_bytes(b"".join([*lines[: place + 1], *lines[place:]]))


def drop_line(path, rng):
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    path.write_bytes(b"".join(lines))


def break_line(path, rng):
    lines = path.read_bytes().splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines[place] = rng.choice([b"null\n", b"\xff\n", b"{\n", b"\n", lines[place][: len(lines[place]) // 2] + b"\n"])
    path.write_bytes(b"".join(lines))


def make_folder(path, rng):
    path.unlink()
    path.mkdir()


def make_unreadable(path, rng):
    """Put something there that cannot be read as a file; root can read one of mode 000."""
    if os.getuid() and rng.random() < 0.3:
        path.chmod(0)
        return
    moved = path.with_name("elsewhere")
    path.rename(moved)
    kind = rng.choice(["link", "dangling link", "fifo", "socket"])
    if kind == "link":
        path.symlink_to(moved)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):  # their names may be short only
            made.bind(path.name)


WAYS = (cut, flip, flip, zero, empty, append_garbage, double_line, drop_line, break_line, make_folder, make_unreadable)


def damage(folder, seed):
    """Damage one file of a results folder; return its path from there and how."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    files = [path for path in files if path.relative_to(folder).parts[0] not in {"report", "set-aside"}]
    path, way = rng.choice(files), rng.choice(WAYS)
    way(path, rng)
    return path.relative_to(folder).as_posix(), way.__name__


def numbers(rows):
    """Return what is said to be valid: state and metrics by case."""
    metrics = {}
    for row in rows["metrics"]:
        metrics.setdefault(row["case"], []).append({name: row.get(name) for name in sorted(row)})
    return {row["case"]: metrics.get(row["case"]) for row in rows["cases"] if row["state"] == "valid"}


def told(rows, name):
    """Return the rows that damage must not change unless its file is named; samples and the log bear no checksums."""
    if name not in UNCHECKED:
        return rows
    cases = [{**row, "notes": None, "note_kinds": None} for row in rows["cases"]]
    notes = [row for row in rows["notes"] if row["kind"] != NOISY.name]
    return {table: rows[table] for table in rows.keys() - DERIVED} | {"cases": cases, "notes": notes}


def try_one(whole, truth, folder, seed):
    """Damage a copy and read it with every command."""
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("report"))
    name, how = damage(folder, seed)
    where = f"seed {seed}: {how} {name}"
    answers = {command: run(command, folder) for command in ("collect", "report", "gate")}
    said = "".join(text for _, text in answers.values())
    rows = collect(folder).rows
    valid = numbers(rows)
    assert all(truth_of == numbers(truth)[case] for case, truth_of in valid.items()), where
    if name in said:
        assert answers["gate"][0] != 0 or name.startswith(OUTPUTS), where
    elif not name.startswith(OUTPUTS):
        assert told(rows, name) == told(truth, name), where
    assert said.count("Traceback") == 0, where
    code, said = run("retry", folder)
    assert code == 0 or "plan.json" in said or "done.json" in said, where
    if code == 0:
        left = {found.file for found in collect(folder).damage} - {"jobs.json"}  # only deleting it helps
        left -= {f"batches/{batch}/batch.json" for batch in (DONE, KILLED)}  # the next run writes it
        assert not left, f"{where}: {left} after retry"
        assert all(found == numbers(truth)[case] for case, found in numbers(collect(folder).rows).items()), where


@pytest.fixture
def undrawn(monkeypatch):
    """Charts take most of the time of a report."""
    monkeypatch.setattr(report.page, "write_figures", lambda results: [])
    monkeypatch.setattr(report.page, "charts", lambda results, name: [])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("part", range(7))
def test_damage_is_named_and_never_a_silent_number(whole, truth, tmp_path, part):
    for seed in range(part, 70, 7):
        try_one(whole, truth, tmp_path / str(seed), seed)


def test_a_line_that_is_broken_costs_its_repetition_and_no_other(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "r")
    path = tmp_path / "r" / "batches" / DONE / "cases.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    short, long = (orjson.loads(lines[place])["case"] for place in (0, -1))
    path.write_bytes(b"".join([lines[0].replace(b"0.01", b"0.02"), *lines[1:-1], lines[-1][:-40] + b"\n"]))
    tables = collect(tmp_path / "r")
    rows = {row["case"]: row for row in tables.rows["cases"]}
    assert (rows[short]["state"], rows[short]["reasons"][0]) == ("missing", "2 of 3 repetitions are recorded")
    assert (rows[long]["state"], rows[long]["reasons"]) == ("invalid", ["of its recorded repetitions 1 is lost"])
    assert sum(row["state"] == "valid" for row in rows.values()) == 2
    (found,) = tables.damage
    assert found.file == f"batches/{DONE}/cases.jsonl"
    assert found.problem.startswith("line 1 was changed after it was written")


def test_a_cut_raw_file_leaves_no_case_valid_that_needs_it(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "r")
    path = tmp_path / "r" / "batches" / DONE / "raw" / "operations.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    code, said = run("gate", tmp_path / "r")
    assert code == 1
    assert said.startswith(
        f"2 valid · 2 invalid (stor, case 1ab0cd1ef001: {RAW_LOST.sentence}, and 1 more) · 1 damaged file"
    )
    assert f"batches/{DONE}/raw/operations.parquet is no whole Parquet file" in said


def test_a_raw_file_without_a_checksum_is_counted_row_by_row(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "r")
    path = tmp_path / "r" / "batches" / DONE / "raw" / "operations.parquet"
    table = pq.read_table(path)
    pq.write_table(table, path)
    assert collect(tmp_path / "r").counts()["valid"] == 4
    pq.write_table(table.slice(1), path)
    tables = collect(tmp_path / "r")
    assert [row["reasons"] for row in tables.rows["cases"] if row["state"] == "invalid"] == [[RAW_LOST.sentence]]
    assert [found.problem for found in tables.damage] == ["lacks rows of 1 repetition"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("gone", [True, False])
def test_without_a_plan_the_records_are_reported_and_nothing_is_valid(whole, tmp_path, gone):
    folder = tmp_path / "r"
    shutil.copytree(whole, folder)
    (folder / "plan.json").unlink() if gone else (folder / "plan.json").write_bytes(b"")
    code, said = run("report", folder)
    assert (code, f"plan.json is {'missing' if gone else 'empty'}" in said) == (0, True)
    assert "4 invalid" in run("collect", folder)[1]
    assert "plan.json is damaged or missing" in run("gate", folder)[1]
    assert "it is written anew, and nothing is measured again" in run("retry", folder)[1]
    assert f"plan.json is {'missing' if gone else 'empty'}" in (folder / "report" / "index.html").read_text()


def test_a_newer_version_is_said(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "r")
    path = tmp_path / "r" / "batches" / DONE / "batch.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "schema_version": 3, "more": 1}))
    (found,) = collect(tmp_path / "r").damage
    assert found.problem == "was written by a newer version of aifbench (schema_version 3)"


def test_results_of_the_version_before_have_no_checksums_and_stay_valid(whole, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(whole, folder)
    for path in [folder / "plan.json", *folder.glob("batches/*/batch.json")]:
        path.write_bytes(orjson.dumps(unseal(path.read_bytes())))
    for path in [*folder.glob("batches/*/cases.jsonl"), *folder.glob("batches/*/raw/*.jsonl")]:
        lines = path.read_bytes().splitlines()
        path.write_bytes(b"".join(orjson.dumps(unseal(line)) + b"\n" for line in lines))
    tables = collect(folder)
    assert (tables.counts()["valid"], tables.damage) == (4, [])


def test_parameters_that_fit_no_benchmark_cost_the_parts_that_show_them(whole, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(whole, folder)
    plan = unseal((folder / "plan.json").read_bytes())
    for case in plan["cases"]:
        case["params"] |= {"clients": "many", "top_k": "some", "block_size": {"a": [None]}, "index": 7}
    (folder / "plan.json").write_bytes(orjson.dumps(plan))
    assert run("report", folder)[0] == 0


def test_a_repetition_that_is_recorded_twice_counts_once(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "r")
    path = tmp_path / "r" / "batches" / DONE / "cases.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    other = unseal(lines[0]) | {"seed": 99}
    path.write_bytes(b"".join([*lines, lines[1], seal(orjson.dumps(other)) + b"\n"]))
    rows = collect(tmp_path / "r").rows
    states = {row["case"]: (row["state"], row["done"], row["reasons"]) for row in rows["cases"]}
    assert states["1ab0cd1ef001"] == ("invalid", 3, ["a repetition is recorded twice, and not alike"])
    assert states["2ab0cd1ef002"][:2] == ("valid", 4)


def test_a_batch_that_is_a_link_is_not_followed(whole, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(whole, folder)
    (folder / "batches" / DONE).rename(tmp_path / "elsewhere")
    (folder / "batches" / DONE).symlink_to(tmp_path / "elsewhere")
    code, said = run("gate", folder)
    assert (code, "2 missing" in said, "is a link" in said) == (1, True, True)
    assert run("retry", folder, "1ab0cd1ef001")[0] == 2


def test_a_writer_goes_on_beside_what_is_damaged_and_keeps_it(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "r")
    folder = tmp_path / "r" / "batches" / DONE
    lines = (folder / "cases.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "cases.jsonl").write_bytes(b"".join([lines[0], b"null\n", *lines[2:]]))
    raw = (folder / "raw" / "operations.parquet").read_bytes()[:-9]
    (folder / "raw" / "operations.parquet").write_bytes(raw)
    (folder / "batch.json").write_bytes(b"")
    (folder / "log.jsonl").write_bytes(b"\xff\n" + (folder / "log.jsonl").read_bytes())
    store = BatchStore(folder)
    assert {found.file for found in store.create()} == {
        "cases.jsonl",
        "raw/operations.parquet",
        "batch.json",
        "log.jsonl",
    }
    assert (len(store.read_cases()), store.read_record(), store.damage) == (len(lines) - 1, None, [])
    assert b"".join([lines[0], *lines[2:]]) == (folder / "cases.jsonl").read_bytes()
    (aside,) = folder.glob("set-aside/*.damaged")
    assert (aside / "raw-operations.parquet").read_bytes() == raw
    assert (aside / "cases.jsonl").read_bytes().splitlines()[1] == b"null"
    assert store.create() == []


@pytest.mark.heavy
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("part", range(40))
def test_two_thousand_damages(whole, truth, tmp_path, part):
    for seed in range(1000 + part, 2950, 40):
        try_one(whole, truth, tmp_path / "one", seed)
        shutil.rmtree(tmp_path / "one")


@pytest.mark.heavy
@pytest.mark.parametrize("part", range(5))
def test_reports_with_charts_of_damaged_folders(whole, truth, tmp_path, part):
    for seed in range(2950 + part, 3000, 5):
        try_one(whole, truth, tmp_path / str(seed), seed)
