"""A results folder as somebody else may have left it: odd things in the place of every file, and values that lie."""

import json
import os
import socket
from pathlib import Path

from aifbench.services.client.folder import RunFolder
from tests.services.batches import Batch, write_plan

LAUNCH = ("request.json", "config.yaml", "command.json", "keeper.json", "process.json", "exit.json", "cancel.json")
OF_BATCH = ("batch.json", "cases.jsonl", "log.jsonl", "owner.lock", "resources.parquet", "live/resources.jsonl")
OF_RUN = ("plan.json", "gate.txt", "report/index.html", "cases.csv")
BATCH = "storage-target-1a2b3c4d"
FILES = (
    *(f"launch/{name}" for name in (*LAUNCH, "snakemake.log")),
    *(f"batches/{BATCH}/{name}" for name in OF_BATCH),
    *OF_RUN,
)
"""Every file of a run that a service reads."""
VALUES = (
    None, True, -1, 0, 7, 10**30, 1e308, 0.5, "", "x", "x" * 100_000, "../../etc/passwd", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "\x1b[31m<script>\u202e", [], [[]], {}, {"pid": []}, ["a", 1, None],
    json.loads("[" * 300 + "]" * 300), {"a": json.loads('{"b":' * 300 + "1" + "}" * 300)},
)  # fmt: skip
"""What may stand where something else should."""
TEXTS = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"7",
    b'"text"',
    b"NaN",
    b"{}",
    b'{"a": NaN}',
    b"[" * 100_000,
    b"\xff\xfe",
    b"\0" * 100,
)
"""What may stand in the place of JSON."""


def good_run(results: Path, name: str, **request) -> RunFolder:
    """Make a launched run that was recorded in full and whose workflow came to its end."""
    results.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(results, name)
    folder.make()
    write_plan(results, name, {BATCH: 1})
    plan = json.loads((folder.path / "plan.json").read_bytes())
    case = f"{BATCH}-0"
    plan["cases"] = [{"case": case, "batch": BATCH, "benchmark": "storage", "label": "l", "repetitions": {"min": 2}}]
    (folder.path / "plan.json").write_text(json.dumps({**plan, "totals": {"expected_s": 3.0}}))
    content = {"run_id": name, "created_at": "2026-11-26T10:00:00+00:00", "profile": "laptop", "slurm": False, "by": {}}
    folder.write(
        "request.json", {**content, "benchmarks": ["storage"], "request": {"preset": "storage-quick"}, **request}
    )
    folder.write("config.yaml", f"campaign: {name}\n")
    folder.write("command.json", {"argv": ["true"], "cwd": "/"})
    folder.write("keeper.json", {"pid": 2**22 + 1, "started": "1", "boot": "b", "host": socket.gethostname()})
    folder.write("process.json", {"pid": 2**22 + 1, "started": "1", "boot": "b", "host": socket.gethostname()})
    folder.write("exit.json", {"code": 0, "ended_at": "2026-11-26T10:01:00+00:00"})
    with folder.append("snakemake.log") as log:
        log.write(b"said by snakemake\n")
    (folder.path / "gate.txt").write_text("1 valid\n")
    (folder.path / "report").mkdir()
    (folder.path / "report" / "index.html").write_text("<h1>the report</h1>")
    (folder.path / "cases.csv").write_text("case,\n")
    batch = Batch(results, name, BATCH, planned={case: 2}).start()
    for repetition in range(2):
        batch.sample(repetition + 1.0)
        batch.done(case, repetition, repetition + 0.5)
    batch.log("said by the job")
    batch.end()
    records = [{"case": case, "repetition": n, "status": "ok", "validity": {"valid": True}} for n in range(2)]
    (batch.folder / "cases.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def put(path: Path, kind: str, target: Path | None = None) -> None:
    """Put an odd thing in the place of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(path.parent, os.O_PATH)
            server.bind(f"/proc/self/fd/{here}/{path.name}")  # the path of a socket has 108 bytes
            os.close(here)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(2 << 30)
