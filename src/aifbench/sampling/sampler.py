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
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from aifbench.core.roles import NODE

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHORTEST_WINDOW_S = 10 / _TICKS_PER_S
"""The kernel counts CPU time in ticks: over less than ten, a rate would be off by more than a tenth."""

INTERVAL_S = 1.0

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
    anon_bytes: int | None = None
    file_bytes: int | None = None
    shmem_bytes: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None
    vfs_read_bytes: int | None = None
    vfs_write_bytes: int | None = None


@dataclass
class _Use:
    """Totals of a role: what lives now plus what ended processes left behind."""

    left: dict[str, float]
    previous: dict[str, float | None]
    previous_ns: int | None = None
    peak_rss_bytes: int = 0


_IO = ("read_bytes", "write_bytes", "vfs_read_bytes", "vfs_write_bytes")
_TOTALS = ("cpu_s", *_IO)
_KINDS = ("anon_bytes", "file_bytes", "shmem_bytes")
_STALLED = ("cpu", "memory", "io")


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
            **{name: _sum([getattr(process, name) for process in processes]) for name in _KINDS},
            **{name: _whole(totals[name]) for name in _IO},
        }

    @staticmethod
    def _total(use: _Use, name: str, processes: list[Process]) -> float | None:
        values = [getattr(process, name) for process in processes]
        if None in values:
            return None  # the kernel does not tell for all of them: a part would look like the whole
        return max(float(sum(values)) + use.left[name], use.previous[name] or 0.0)


class Probe:
    """What roles and their node use, one sample at a time.

    Columns of a row: node (its name), clock_s (CLOCK_MONOTONIC there, when it was taken), role, processes,
    cpu_cores (in use since the previous sample), cpu_seconds, rss_bytes, peak_rss_bytes (largest sum of the peaks
    of live processes), anon_bytes, file_bytes and shmem_bytes (what rss_bytes consists of), read_bytes and
    write_bytes (of storage devices, cumulative), vfs_read_bytes and vfs_write_bytes (of calls to read and write, on
    whatever: cumulative), source; of the node memory_available_bytes, gpu, and stalled_cpu_s, stalled_memory_s and
    stalled_io_s (time since boot in which some process of the node waited for it: the kernel's pressure stall
    information, `some`). Memory that processes share counts for each of them. What is not known is null. `devices`
    are the GPUs that belong to the job, None: all of the node.
    """

    def __init__(self, node: str, devices: Sequence[str] | None = None) -> None:
        self._name = node
        self._gpus = Gpus(devices)
        self._trees = Trees()
        self._previous: tuple[int, float] | None = None

    def close(self) -> None:
        """Leave NVML."""
        self._gpus.close()

    def sample(self, roots: Mapping[str, int], now_ns: int) -> list[dict[str, Any]]:
        """Return a row for each role (pid of its root by name), the node's last. `now_ns` on CLOCK_MONOTONIC."""
        scan = scan_processes()
        members = {
            role: [with_details(process) for process in processes]
            for role, processes in self._trees.assign(scan, roots).items()
        }
        rows = [{**_NODE_ONLY, **row, "source": "proc"} for row in self._trees.update(members, scan, now_ns)]
        head = {"node": self._name, "clock_s": now_ns / 1e9}
        return [{**head, **row} for row in (*rows, self._node(len(scan), now_ns))]

    def _node(self, processes: int, now_ns: int) -> dict[str, Any]:
        busy_s = node_busy_s()
        cores = None
        if self._previous is not None:
            then_ns, then_s = self._previous
            cores = _rate(busy_s - then_s, (now_ns - then_ns) / 1e9)
        self._previous = (now_ns, busy_s)
        gpu = self._gpus.sample()
        return {
            **_ROLE_ONLY,
            "role": NODE,
            "processes": processes,
            "cpu_cores": cores,
            "cpu_seconds": busy_s,
            "memory_available_bytes": memory_available_bytes(),
            **{f"stalled_{name}_s": stalled_s(name) for name in _STALLED},
            "gpu": gpu,
            "source": "proc" if gpu is None else "proc, nvml",
        }


_ROLE_ONLY = dict.fromkeys(("rss_bytes", "peak_rss_bytes", *_KINDS, *_IO))
_NODE_ONLY = dict.fromkeys(("memory_available_bytes", *(f"stalled_{name}_s" for name in _STALLED), "gpu"))
ROLE_UNKNOWN: dict[str, Any] = dict.fromkeys(
    ("clock_s", "processes", "cpu_cores", "cpu_seconds", *_ROLE_ONLY, *_NODE_ONLY, "source")
)
"""The values of a row of a role of which nothing is known."""


class Sampler:
    """Samples in a thread of its own until `stop`; writes JSON lines to `out`.

    Each line is a row of `Probe` with invocation, t_s (s since `t0_ns` on CLOCK_MONOTONIC), records and errors (work
    done, and how much of it failed); the node's line, the last of a sample, also has step, what the batch is doing, as
    `step` tells it. `other_node` gives the rows of another node that belong to the sample (see `sampling.companion`).

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
        node: str | None = None,
        errors: Callable[[], int | None] = lambda: None,
        step: Callable[[], Mapping[str, Any] | None] = lambda: None,
        other_node: Callable[[], list[dict[str, Any]]] = list,
        devices: Sequence[str] | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._out, self._invocation, self._t0_ns = out, invocation, t0_ns
        self._roles, self._records, self._errors, self._step = roles, records, errors, step
        self._other_node, self._node, self._devices = other_node, node or socket.gethostname(), devices
        self._interval_s = interval_s
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
            probe = Probe(self._node, self._devices)
            self._out.parent.mkdir(parents=True, exist_ok=True)
            with self._out.open("ab", buffering=0) as file:
                for missed in ticks(self._interval_s, self._stop):
                    self.missed += missed
                    try:
                        file.write(self._sample(probe))
                    except Exception as error:
                        self._failed(error)
                    self.cpu_s = time.thread_time()
            probe.close()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        self.problem = self.problem or f"{type(error).__name__}: {error}"

    def _sample(self, probe: Probe) -> bytes:
        roots = dict(self._roles())
        counts = {"records": self._records(), "errors": self._errors()}
        now_ns = time.monotonic_ns()
        *rows, node = probe.sample(roots, now_ns)
        head = {"invocation": self._invocation, "t_s": (now_ns - self._t0_ns) / 1e9, **counts}
        rows = [*rows, *self._other_node(), {**node, "step": self._step()}]
        return b"".join(orjson.dumps({**head, **row}) + b"\n" for row in rows)


def ticks(interval_s: float, stop: threading.Event) -> Iterator[int]:
    """Yield at once, then at each multiple of the interval, and a last time when `stop` is set.

    What is yielded is the number of multiples that passed meanwhile: a late tick is never made up for.
    """
    interval_ns = round(interval_s * 1e9)
    first, tick = time.monotonic_ns(), 0
    yield 0
    stopping = False
    while not stopping:
        due = max((time.monotonic_ns() - first) // interval_ns, tick) + 1
        missed, tick = due - tick - 1, due
        stopping = stop.wait(max(0, first + tick * interval_ns - time.monotonic_ns()) / 1e9)
        yield missed


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
    processes = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            text = _text(f"/proc/{name}/stat")
            if text is not None:
                process = parse_stat(text)
                processes[process.identity[0]] = process
    return processes


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
    """Return a process with its memory by kind, its peak (VmHWM) and its I/O, as far as it lives and may be read."""
    pid = process.identity[0]
    io = dict(line.split(": ", 1) for line in (_text(f"/proc/{pid}/io") or "").splitlines())
    status = _text(f"/proc/{pid}/status") or ""
    # Of a process that has ended and is not waited for, no line of memory is left.
    none = 0 if status and not process.rss_bytes else None
    return replace(
        process,
        peak_rss_bytes=_kilobytes(status, "VmHWM:") or 0,
        anon_bytes=_kilobytes(status, "RssAnon:", none),
        file_bytes=_kilobytes(status, "RssFile:", none),
        shmem_bytes=_kilobytes(status, "RssShmem:", none),
        read_bytes=int(io["read_bytes"]) if io else None,
        write_bytes=int(io["write_bytes"]) if io else None,
        vfs_read_bytes=int(io["rchar"]) if io else None,
        vfs_write_bytes=int(io["wchar"]) if io else None,
    )


def node_busy_s() -> float:
    """Return the CPU time in s since boot in which the node's cores were not idle, summed (proc(5), stat)."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def memory_available_bytes() -> int | None:
    """Return MemAvailable in bytes: what could be used without swapping (proc(5), meminfo)."""
    return _kilobytes(_text("/proc/meminfo") or "", "MemAvailable:")


def stalled_s(resource: str) -> float | None:
    """Return the time in s since boot in which some process of the node waited for a resource: cpu, memory or io.

    It is the total of the line `some` of /proc/pressure/<resource> (Documentation/accounting/psi.rst of the kernel).
    """
    for line in (_text(f"/proc/pressure/{resource}") or "").splitlines():
        if line.startswith("some "):
            return int(line.rpartition("total=")[2]) / 1e6
    return None


def _kilobytes(text: str, key: str, missing: int | None = None) -> int | None:
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return missing


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds >= _SHORTEST_WINDOW_S else None


def _sum(values: list[int | None]) -> int | None:
    """Return the sum, null when one is not known: a part would look like the whole."""
    return None if None in values else sum(value or 0 for value in values)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _same(scanned: Process | None, known: Process) -> bool:
    return scanned is not None and scanned.identity == known.identity
