"""A thread that writes, once per interval, what each role of a batch and the node use.

A role (`runner`, `server`, `worker`) is a tree of processes with the role's process as its root; a tree ends where
another role's root begins, so no process counts twice. A process is known by pid and start time and stays in its role
until it ends, also when its parent ends first. What an ended process had used is taken over from its last
sample, unless an ancestor in the same role has inherited it (wait(2) adds a child's use to its parent's): what it used
after that sample, at most one interval's worth, is then missing in its role, and in its parent's role if that inherits.
Totals never fall.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import orjson

NODE = "node"

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHORTEST_WINDOW_S = 10 / _TICKS_PER_S
"""The kernel counts CPU time in ticks: over less than ten, a rate would be off by more than a tenth."""

Identity = tuple[int, int]
"""Pid and start time in ticks since boot: no two processes of one boot share both."""


@dataclass(frozen=True)
class Process:
    """What /proc tells of one process. CPU and I/O include its children that have ended and been waited for."""

    identity: Identity
    parent: int
    cpu_s: float
    rss_bytes: int
    peak_rss_bytes: int = 0
    read_bytes: int | None = None
    write_bytes: int | None = None


@dataclass
class _Use:
    """Totals of a role: what lives now plus what ended processes left behind."""

    left: dict[str, float]
    previous: dict[str, float | None]
    previous_ns: int | None = None
    peak_rss_bytes: int = 0


_TOTALS = ("cpu_s", "read_bytes", "write_bytes")


class Trees:
    """Follows the process trees of the roles from scan to scan (no clock, no file: see `update`)."""

    def __init__(self) -> None:
        self._member: dict[Identity, str] = {}
        self._last: dict[Identity, Process] = {}
        self._uses: dict[str, _Use] = {}

    def assign(self, scan: Mapping[int, Process], roots: Mapping[str, int]) -> dict[str, list[Process]]:
        """Return the processes of each role in a scan (by pid)."""
        by_root = {pid: role for role, pid in roots.items() if pid in scan}
        roles: dict[int, str | None] = {}

        def role_of(pid: int) -> str | None:
            if pid in roles:
                return roles[pid]
            process = scan.get(pid)
            if process is None:
                return None
            roles[pid] = None  # ends a loop of parents, which a scan that is not atomic could show
            roles[pid] = by_root.get(pid) or self._member.get(process.identity) or role_of(process.parent)
            return roles[pid]

        members: dict[str, list[Process]] = {role: [] for role in (*roots, *self._uses)}
        for pid, process in scan.items():
            role = role_of(pid)
            if role is not None:
                members[role].append(process)
        return members

    def update(
        self, members: Mapping[str, list[Process]], scan: Mapping[int, Process], now_ns: int
    ) -> list[dict[str, Any]]:
        """Take one sample's members (with memory and I/O read) and return one row per role."""
        living = {process.identity: process for processes in members.values() for process in processes}
        for role in members:
            self._uses.setdefault(role, _Use(dict.fromkeys(_TOTALS, 0.0), dict.fromkeys(_TOTALS)))
        for identity in self._last.keys() - living.keys():
            self._inherit(identity, scan)
        self._member = {process.identity: role for role, processes in members.items() for process in processes}
        self._last = living
        return [self._row(role, processes, now_ns) for role, processes in members.items()]

    def _inherit(self, identity: Identity, scan: Mapping[int, Process]) -> None:
        """Decide where the use of an ended process went: to a living ancestor of its role, else it is kept here."""
        role, ended = self._member[identity], self._last[identity]
        by_pid = {process.identity[0]: process for process in self._last.values()}
        heir, steps = ended.parent, 0
        while heir in by_pid and not _same(scan.get(heir), by_pid[heir]) and steps < len(by_pid):
            heir, steps = by_pid[heir].parent, steps + 1
        receiver = self._member.get(by_pid[heir].identity) if heir in by_pid else None
        if receiver == role:
            return
        for name in _TOTALS:
            value = getattr(ended, name)
            if value is not None:
                self._uses[role].left[name] += value
                if receiver is not None:
                    self._uses[receiver].left[name] -= value

    def _row(self, role: str, processes: list[Process], now_ns: int) -> dict[str, Any]:
        use = self._uses[role]
        totals = {name: self._total(use, name, processes) for name in _TOTALS}
        cores = None
        if use.previous_ns is not None and totals["cpu_s"] is not None and use.previous["cpu_s"] is not None:
            cores = _rate(totals["cpu_s"] - use.previous["cpu_s"], (now_ns - use.previous_ns) / 1e9)
        use.previous, use.previous_ns = totals, now_ns
        use.peak_rss_bytes = max(use.peak_rss_bytes, sum(process.peak_rss_bytes for process in processes))
        return {
            "role": role,
            "processes": len(processes),
            "cpu_cores": cores,
            "cpu_seconds": totals["cpu_s"],
            "rss_bytes": sum(process.rss_bytes for process in processes),
            "peak_rss_bytes": use.peak_rss_bytes,
            "read_bytes": _whole(totals["read_bytes"]),
            "write_bytes": _whole(totals["write_bytes"]),
        }

    @staticmethod
    def _total(use: _Use, name: str, processes: list[Process]) -> float | None:
        values = [getattr(process, name) for process in processes]
        if None in values:
            return None  # the kernel does not tell for all of them: a part would look like the whole
        return max(float(sum(values)) + use.left[name], use.previous[name] or 0.0)


class Sampler:
    """Samples in a thread of its own until `stop`; writes JSON lines to `out`.

    Columns of each line: invocation, t_s (s since `t0_ns` on CLOCK_MONOTONIC), role, processes, cpu_cores (in use since
    the previous sample), cpu_seconds, rss_bytes, peak_rss_bytes (largest sum of the peaks of live processes),
    read_bytes and write_bytes (of storage devices, cumulative), memory_available_bytes and gpu (node only), records,
    source; the node's line also has step, what the batch is doing, as `step` tells it. What is not known is null.
    `devices` are the GPUs that belong to the job, None: all of the node.

    `missed` counts deadlines that passed without a sample, `errors` samples that failed, `problem` is the first
    failure, `cpu_s` the CPU time of this thread. Nothing is ever raised into the runner.
    """

    def __init__(
        self,
        out: Path,
        invocation: int,
        t0_ns: int,
        roles: Callable[[], Mapping[str, int]],
        records: Callable[[], int | None],
        *,
        step: Callable[[], Mapping[str, Any] | None] = lambda: None,
        devices: Sequence[str] | None = None,
        interval_s: float = 1.0,
    ) -> None:
        self._out, self._invocation, self._t0_ns = out, invocation, t0_ns
        self._roles, self._records, self._step, self._devices = roles, records, step, devices
        self._interval_ns = round(interval_s * 1e9)
        self._trees = Trees()
        self._node_previous: tuple[int, float] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.missed = 0
        self.errors = 0
        self.problem: str | None = None
        self.cpu_s = 0.0

    def start(self) -> None:
        """Start the thread, which takes the first sample at once."""
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end the thread. Safe to call twice, or without `start`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            gpus = Gpus(self._devices)
            self._out.parent.mkdir(parents=True, exist_ok=True)
            with self._out.open("ab", buffering=0) as file:
                self._loop(file, gpus)
            gpus.close()
        except Exception as error:
            self._failed(error)

    def _loop(self, file: BinaryIO | Any, gpus: Gpus) -> None:
        first = time.monotonic_ns()
        tick = 0
        stopping = False
        while True:
            try:
                file.write(self._sample(gpus))
            except Exception as error:
                self._failed(error)
            self.cpu_s = time.thread_time()
            if stopping:
                return
            due = max((time.monotonic_ns() - first) // self._interval_ns, tick) + 1
            self.missed += due - tick - 1
            tick = due
            stopping = self._stop.wait(max(0, first + tick * self._interval_ns - time.monotonic_ns()) / 1e9)

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        self.problem = self.problem or f"{type(error).__name__}: {error}"

    def _sample(self, gpus: Gpus) -> bytes:
        roots = dict(self._roles())
        records = self._records()
        now_ns = time.monotonic_ns()
        scan = scan_processes()
        members = {
            role: [with_details(process) for process in processes]
            for role, processes in self._trees.assign(scan, roots).items()
        }
        rows = [
            {**row, "memory_available_bytes": None, "gpu": None, "source": "proc"}
            for row in self._trees.update(members, scan, now_ns)
        ]
        rows.append(self._node_row(len(scan), now_ns, gpus))
        head = {"invocation": self._invocation, "t_s": (now_ns - self._t0_ns) / 1e9}
        return b"".join(orjson.dumps({**head, **row, "records": records}) + b"\n" for row in rows)

    def _node_row(self, processes: int, now_ns: int, gpus: Gpus) -> dict[str, Any]:
        busy_s = node_busy_s()
        cores = None
        if self._node_previous is not None:
            then_ns, then_s = self._node_previous
            cores = _rate(busy_s - then_s, (now_ns - then_ns) / 1e9)
        self._node_previous = (now_ns, busy_s)
        gpu = gpus.sample()
        return {
            "role": NODE,
            "processes": processes,
            "cpu_cores": cores,
            "cpu_seconds": busy_s,
            "rss_bytes": None,
            "peak_rss_bytes": None,
            "read_bytes": None,
            "write_bytes": None,
            "memory_available_bytes": memory_available_bytes(),
            "gpu": gpu,
            "step": self._step(),
            "source": "proc" if gpu is None else "proc, nvml",
        }


class Gpus:
    """The GPUs of a job through NVML; none where it does not initialise.

    `devices` names them as CUDA_VISIBLE_DEVICES does, by index or by UUID (MIG too); None takes all of the node.
    """

    def __init__(self, devices: Sequence[str] | None = None) -> None:
        self._nvml: Any = None
        self._handles: list[tuple[int, Any]] = []
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            names = list(map(str, range(pynvml.nvmlDeviceGetCount()))) if devices is None else devices
            for place, name in enumerate(names):
                index = int(name) if name.isdigit() else place
                find = pynvml.nvmlDeviceGetHandleByIndex if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
                handle = self._read(find, int(name) if name.isdigit() else name)
                if handle is not None:
                    self._handles.append((index, handle))
        except Exception:  # no library, no driver, no permission: no GPU is known
            self._handles = []

    def sample(self) -> list[dict[str, Any]] | None:
        """Return one row per GPU, null where it does not tell.

        Columns: index (of the node, or place among the named UUIDs), utilization (0 to 1), memory_bytes (in use),
        memory_total_bytes, power_w, energy_j (since the driver was loaded).
        """
        if not self._handles:
            return None
        return [self._one(index, handle) for index, handle in self._handles]

    def _one(self, index: int, handle: Any) -> dict[str, Any]:
        rates = self._read(self._nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = self._read(self._nvml.nvmlDeviceGetMemoryInfo, handle)
        milliwatts = self._read(self._nvml.nvmlDeviceGetPowerUsage, handle)
        millijoules = self._read(self._nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        return {
            "index": index,
            "utilization": None if rates is None else rates.gpu / 100,
            "memory_bytes": None if memory is None else memory.used,
            "memory_total_bytes": None if memory is None else memory.total,
            "power_w": None if milliwatts is None else milliwatts / 1000,
            "energy_j": None if millijoules is None else millijoules / 1000,
        }

    def close(self) -> None:
        """Leave NVML."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def _read(self, query: Callable[[Any], Any], handle: Any) -> Any:
        try:
            return query(handle)
        except self._nvml.NVMLError:
            return None


def scan_processes() -> dict[int, Process]:
    """Return all processes of the node by pid, from one pass over /proc (identity, parent, CPU, RSS)."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            text = _text(f"/proc/{name}/stat")
            if text is not None:
                process = parse_stat(text)
                found[process.identity[0]] = process
    return found


def parse_stat(text: str) -> Process:
    """Return a process from the text of /proc/<pid>/stat (proc(5)); its name may hold spaces and brackets."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Process(
        identity=(int(head.split(" ", 1)[0]), int(fields[19])),
        parent=int(fields[1]),
        cpu_s=sum(int(field) for field in fields[11:15]) / _TICKS_PER_S,
        rss_bytes=int(fields[21]) * _PAGE,
    )


def with_details(process: Process) -> Process:
    """Return a process with its peak memory (VmHWM) and its I/O, as far as it still lives and may be read."""
    pid = process.identity[0]
    io = dict(line.split(": ", 1) for line in (_text(f"/proc/{pid}/io") or "").splitlines())
    return replace(
        process,
        peak_rss_bytes=_kilobytes(_text(f"/proc/{pid}/status") or "", "VmHWM:") or 0,
        read_bytes=int(io["read_bytes"]) if io else None,
        write_bytes=int(io["write_bytes"]) if io else None,
    )


def node_busy_s() -> float:
    """Return the CPU time in s since boot in which the node's cores were not idle, summed (proc(5), stat)."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def memory_available_bytes() -> int | None:
    """Return MemAvailable in bytes: what could be used without swapping (proc(5), meminfo)."""
    return _kilobytes(_text("/proc/meminfo") or "", "MemAvailable:")


def _kilobytes(text: str, key: str) -> int | None:
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds >= _SHORTEST_WINDOW_S else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _same(found: Process | None, known: Process) -> bool:
    return found is not None and found.identity == known.identity
