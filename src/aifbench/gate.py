"""The last word of a campaign: one line to remember, and a verdict on whether every planned case is valid."""

from __future__ import annotations

from pathlib import Path

import orjson

from aifbench.campaign.plan import duration
from aifbench.records.collect import Tables


def summary_line(tables: Tables, results: Path) -> str:
    """Return `62 valid · 1 invalid (…) · 2 min 38 s · <report>`."""
    counts = tables.counts()
    parts = [f"{counts['valid']} valid"]
    for state in ("invalid", "failed", "missing"):
        if counts[state]:
            first = next(row for row in tables.rows["cases"] if row["state"] == state)
            reason = first["reasons"][0] if first["reasons"] else "no reason recorded"
            more = f", and {counts[state] - 1} more" if counts[state] > 1 else ""
            parts.append(f"{counts[state]} {state} ({' '.join(first['suites'])}, {first['label']}: {reason}{more})")
    parts.append(duration(elapsed_s(tables, results)))
    parts.append(str(results / "report" / "index.html"))
    return " · ".join(parts)


def passed(tables: Tables) -> bool:
    """Return whether every planned case is valid."""
    counts = tables.counts()
    return counts["valid"] == len(tables.rows["cases"])


def elapsed_s(tables: Tables, results: Path) -> float:
    """Return the time that the jobs of all batches took, in seconds."""
    total = 0.0
    for batch in {row["batch"] for row in tables.rows["cases"]}:
        path = results / "batches" / batch / "batch.json"
        if path.exists():
            invocations = orjson.loads(path.read_bytes())["invocations"]
            total += sum(invocation["elapsed_s"] or 0 for invocation in invocations)
    return total
