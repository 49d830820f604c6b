"""Our file I/O over fio's: same block, same kind of buffer, new files, one process, interleaved rounds.

fio: psync, 4 KiB-page buffers aligned to a page, no preallocation, fsync at the end of a write (fio counts it into its
run time, as our write_bandwidth_mib_s does), the page cache emptied before a cold read. Ratios near 1 mean that our
loop neither adds to nor hides what the device does.

Virtual disks have two speeds: their host slows some rounds down by a factor of three, whoever runs them. So the value
compares what each side does in the faster half of its rounds; the range of the paired ratios shows what the disk adds.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from aifbench.core.benchmark import Context
from aifbench.registry import sentence
from aifbench.storage.cache_state import drop
from aifbench.storage.metrics import evaluate
from aifbench.storage.params import MIB, StorageParams
from aifbench.storage.worker import WORKER

ROUNDS = 9
SETTLE_S = 0.5
FILE_SIZE = 256 * MIB
BLOCK_SIZE = MIB
LOW, HIGH = 0.85, 1.15
MODES = ("direct", "buffered-cold")
PHASES = ("write", "read")


def measure() -> list[dict[str, Any]]:
    """Return a row {id, value, unit, goal, met} per mode and phase: ours / fio's, medians of the faster halves."""
    names = [(mode, phase) for mode in MODES for phase in PHASES]
    if shutil.which("fio") is None:
        return [_row(mode, phase, [], []) for mode, phase in names]
    with tempfile.TemporaryDirectory(prefix="aifbench-over-fio-", dir=Path.cwd()) as name:
        folder = Path(name)
        found: dict[Any, dict[tuple[str, str], list[float]]] = {
            side: {pair: [] for pair in names} for side in (_ours, _fio)
        }
        for number in range(ROUNDS):
            for mode in MODES:
                sides = [_ours, _fio] if number % 2 else [_fio, _ours]
                for side in sides:
                    for phase, value in side(folder, mode, number).items():
                        found[side][mode, phase].append(value)
                    _settle(folder)
    return [_row(mode, phase, found[_ours][mode, phase], found[_fio][mode, phase]) for mode, phase in names]


def _settle(folder: Path) -> None:
    """Let the removal of the files reach the disk, which would otherwise discard their blocks under the next side."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    time.sleep(SETTLE_S)


def _row(mode: str, phase: str, ours: list[float], fio: list[float]) -> dict[str, Any]:
    """Return the verdict on the bandwidths (MiB/s) of paired rounds.

    Outside the goal it stays open while the interval of the paired ratios reaches into it: from the second smallest to
    the second largest of nine, 96 % for their median whatever their distribution.
    """
    row = {"id": f"storage-{mode}-{phase}-over-fio", "unit": "ratio"}
    if not ours:
        return {**row, "value": None, "goal": f"{LOW} to {HIGH} (fio absent)", "met": None}
    value = _unhindered(ours) / _unhindered(fio)
    ratios = sorted(a / b for a, b in zip(ours, fio, strict=True))
    low, high = ratios[1], ratios[-2]
    met = LOW <= value <= HIGH
    noisy = not met and low <= HIGH and high >= LOW
    goal = f"{LOW} to {HIGH} (pairs {low:.2f} to {high:.2f})"
    return {**row, "value": value, "goal": goal, "met": None if noisy else met}


def _unhindered(values: list[float]) -> float:
    """Return the median of the faster half of the rounds."""
    return statistics.median(sorted(values)[len(values) // 2 :])


def _ours(folder: Path, mode: str, number: int) -> dict[str, float]:
    """Return our bandwidths in MiB/s by phase, from one repetition of the real worker."""
    params = StorageParams.model_validate(
        {"file_size": FILE_SIZE, "block_size": BLOCK_SIZE, "mode": mode, "buffer": "page"}
    )
    context = Context(
        benchmark="storage",
        repetition=number,
        seed=number,
        work_dir=folder,
        cache_dir=folder,
        target_dir=folder,
        endpoints=(),
        progress=lambda records: None,
        log=lambda level, message: print(message, file=sys.stderr),
        phase=lambda name: None,
    )
    measurement = WORKER(context).measure(params)
    metrics, verdict = evaluate(params, measurement.raw, measurement.facts)
    if not verdict.valid:
        raise RuntimeError("; ".join(map(sentence, verdict.reasons)))
    values = {phase: metrics[f"{phase}_bandwidth_mib_s"].value for phase in PHASES}
    return {phase: value for phase, value in values.items() if value is not None}


def _fio(folder: Path, mode: str, number: int) -> dict[str, float]:
    """Return fio's bandwidths in MiB/s by phase."""
    file = folder / f"fio-{number}"
    try:
        write = _fio_phase(file, mode, "write")
        drop(file)  # by us: fio would count the time of its own invalidation as reading
        return {"write": write, "read": _fio_phase(file, mode, "read")}
    finally:
        file.unlink(missing_ok=True)


def _fio_phase(file: Path, mode: str, phase: str) -> float:
    command = [
        "fio",
        "--name=peer",
        f"--filename={file}",
        f"--rw={phase}",
        f"--bs={BLOCK_SIZE}",
        f"--size={FILE_SIZE}",
        "--ioengine=psync",
        f"--direct={int(mode == 'direct')}",
        "--thread",
        "--iomem_align=4096",
        "--fallocate=none",
        "--fadvise_hint=0",
        "--invalidate=0",
        f"--end_fsync={int(phase == 'write')}",
        "--output-format=json",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=file.parent)
    job = json.loads(answer.stdout)["jobs"][0][phase]
    return float(job["io_bytes"]) / MIB / (float(job["runtime"]) / 1000)


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
