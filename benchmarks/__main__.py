"""Measure the bars: `python -m benchmarks [NAME ...]` prints `id  value  unit  goal  met|missed` for each."""

from __future__ import annotations

import argparse
import platform
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from aifbench.machine.provenance import provenance

PARTS = (
    "expansion",
    "workflow_overhead",
    "report_size",
    "driver_over_faiss",
    "storage_over_fio",
    "streaming_accuracy",
    "services_log",
    "services_stream",
    "services_client",
    "peers_streaming",
    "services_monitor",
)
OUT = Path(__file__).parent / "results" / "bench.json"


def main() -> int:
    """Measure the named parts (default: all); the exit code is 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="NAME", help=f"any of: {', '.join(PARTS)} (default: all)")
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {unknown[0]}; allowed: {', '.join(PARTS)}")
    rows: list[dict[str, Any]] = []
    for part in chosen:
        for row in import_module(f"benchmarks.{part}").measure():
            rows.append(row)
            print(line(row), flush=True)
    OUT.parent.mkdir(exist_ok=True)
    known = {row["id"]: row for row in orjson.loads(OUT.read_bytes())["rows"]} if OUT.exists() else {}
    known.update({row["id"]: row for row in rows})
    content = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}",
        "commit": provenance()["git"],
        "rows": list(known.values()),
    }
    OUT.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    return 0 if all(row["met"] for row in rows) else 1


def line(row: dict[str, Any]) -> str:
    """Return one bar as a line of columns."""
    value = "-" if row["value"] is None else f"{row['value']:.4g}"
    verdict = "unknown" if row["met"] is None else "met" if row["met"] else "missed"
    return f"{row['id']:44}  {value:>10}  {row['unit']:8}  {row['goal']:28}  {verdict}"


if __name__ == "__main__":
    sys.exit(main())
