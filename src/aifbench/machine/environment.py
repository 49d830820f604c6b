"""On what a batch ran: facts of the node. What cannot be told is null."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path
from typing import Any

from aifbench.machine.filesystem import mount_of

_CPU = Path("/sys/devices/system/cpu")
_THP = Path("/sys/kernel/mm/transparent_hugepage")


def environment() -> dict[str, Any]:
    """Return hostname, kernel, CPU, memory, GPUs, file system of the working folder, load, virtualisation."""
    cpuinfo = _text(Path("/proc/cpuinfo")) or ""
    return {
        "hostname": socket.gethostname(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": {
            "model": _field(cpuinfo, "model name"),
            "sockets": _distinct(cpuinfo, "physical id"),
            "cores": _cores(cpuinfo),
            "threads": os.cpu_count(),
            "threads_usable": len(os.sched_getaffinity(0)),
            "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
            "governor": _text(_CPU / "cpu0/cpufreq/scaling_governor"),
            "max_mhz": _thousandth(_text(_CPU / "cpu0/cpufreq/cpuinfo_max_freq")),
        },
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
        "filesystem": mount_of(Path.cwd()),
        "load_average": list(os.getloadavg()),
        "transparent_huge_pages": _chosen(_text(_THP / "enabled")),
        "virtualised": "hypervisor" in (_field(cpuinfo, "flags") or "").split() if cpuinfo else None,
        "container": _container(),
    }


def _gpus() -> list[dict[str, Any]] | None:
    """Return [{name, uuid, memory_bytes, driver}] through NVML, null where it does not initialise."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, no permission
        return None
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [
            {
                "name": pynvml.nvmlDeviceGetName(handle),
                "uuid": pynvml.nvmlDeviceGetUUID(handle),
                "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(handle).total,
                "driver": driver,
            }
            for handle in handles
        ]
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _container() -> str | None:
    """Return the kind of container this process runs in, null outside one."""
    if "APPTAINER_CONTAINER" in os.environ or "SINGULARITY_CONTAINER" in os.environ:
        return "apptainer"
    if Path("/run/.containerenv").exists():
        return "podman"
    return "docker" if Path("/.dockerenv").exists() else None


def _field(cpuinfo: str, name: str) -> str | None:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _distinct(cpuinfo: str, name: str) -> int | None:
    values = {line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.partition(":")[0].strip() == name}
    return len(values) or None


def _cores(cpuinfo: str) -> int | None:
    """Return the number of different (socket, core) pairs."""
    pairs = set()
    for block in cpuinfo.split("\n\n"):
        socket_id, core_id = _field(block, "physical id"), _field(block, "core id")
        if socket_id is not None and core_id is not None:
            pairs.add((socket_id, core_id))
    return len(pairs) or None


def _chosen(text: str | None) -> str | None:
    """Return the bracketed word of a sysfs choice such as `always [madvise] never`."""
    return text.partition("[")[2].partition("]")[0] or None if text else None


def _thousandth(text: str | None) -> float | None:
    return int(text) / 1000 if text and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
