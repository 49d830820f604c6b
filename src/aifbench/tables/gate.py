"""The last word of a campaign: one line to remember, and a verdict on whether every planned case is valid."""

from __future__ import annotations

from pathlib import Path

from aifbench.core.units import duration
from aifbench.tables.collect import Tables


def summary_line(tables: Tables, results: Path) -> str:
    """Return `62 valid · 1 invalid (…) · 2 min 38 s · <report>`."""
    counts = tables.counts()
    parts = [f"{counts['valid']} valid"]
    for state in ("invalid", "failed", "missing"):
        if counts[state]:
            first = next(row for row in tables.rows["cases"] if row["state"] == state)
            reason = first["reasons"][0] if first["reasons"] else "no reason recorded"
            more = f", and {counts[state] - 1} more" if counts[state] > 1 else ""
            which = ", ".join(filter(None, [" ".join(first["suites"]), first["label"]]))
            parts.append(f"{counts[state]} {state} ({which}: {reason}{more})")
    if tables.damage:
        files = list(dict.fromkeys(damage.file for damage in tables.damage))
        more = f"; also {', '.join(files[1:4])}{' …' if len(files) > 4 else ''}" if len(files) > 1 else ""
        parts.append(f"{len(files)} damaged file{'' if len(files) == 1 else 's'} ({tables.damage[0]}{more})")
    parts.append(duration(elapsed_s(tables)))
    parts.append(str(results / "report" / "index.html"))
    return " · ".join(parts)


def passed(tables: Tables) -> bool:
    """Return whether there are cases, every one is valid, and no file is damaged."""
    cases = len(tables.rows["cases"])
    return 0 < cases == tables.counts()["valid"] and not tables.damage


def elapsed_s(tables: Tables) -> float:
    """Return the time that the jobs of all batches took, in seconds."""
    invocations = (invocation for record in tables.batches.values() for invocation in record.invocations)
    return sum(invocation.elapsed_s or 0.0 for invocation in invocations)
