"""What the numbers were measured on: processor, usable cores, memory and package versions."""

import hashlib
import json
import os
import platform
from importlib import metadata
from math import ceil
from pathlib import Path
from typing import Any

PACKAGES = ("slimline", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "executorch", "numpy", "scipy")
INSTRUCTIONS = {"avx2": "avx2", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16", "amx": "amx_tile"}
"""Our name of an instruction set and the flag of /proc/cpuinfo that shows it."""


def usable_cores(root: Path = Path("/"), affinity: int | None = None) -> int:
    """Logical CPUs this process may really use: the smaller of its affinity and its cgroup quota, at least 1.

    A container with a quota of 1.5 CPUs on a 64-core host gives 2; more threads than that would be throttled.
    ``root`` is where /proc and /sys are found and ``affinity`` replaces what the operating system reports.
    """
    cores = affinity if affinity is not None else _affinity()
    quotas = [quota for folder in _cgroup_folders(root) if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *(ceil(quota) for quota in quotas)]))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_folders(root: Path) -> list[Path]:
    """Every folder whose CPU quota binds this process: its group and the groups above it, in version 1 and 2."""
    mounts = root / "sys/fs/cgroup"
    listing = root / "proc/self/cgroup"
    folders = []
    for line in listing.read_text().splitlines() if listing.is_file() else ():
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2, alone or beside version 1
            tops = [mounts, mounts / "unified"]
        elif "cpu" in controllers.split(","):
            tops = [mounts / "cpu", mounts / "cpu,cpuacct", mounts / controllers]
        else:
            continue
        # In a container the group may be named as the host sees it and not exist here: the mount's top always counts.
        parts = [part for part in group.split("/") if part and part != ".."]
        folders += [top.joinpath(*parts[:depth]) for top in tops for depth in range(len(parts) + 1)]
    return folders


def _quota(folder: Path) -> float | None:
    """CPUs that the group in ``folder`` may use, or None where it has no limit."""
    unified, quota, period = folder / "cpu.max", folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if unified.is_file():
        allowed, per = unified.read_text().split()
    elif quota.is_file() and period.is_file():
        allowed, per = quota.read_text().strip(), period.read_text().strip()
    else:
        return None
    return None if allowed in ("max", "-1") else int(allowed) / int(per)


def machine(root: Path = Path("/")) -> dict[str, Any]:
    """Facts about this machine, ready for JSON.

    ``cpu`` (model name), ``cores`` (physical), ``threads`` (`usable_cores`), ``memory_bytes``, ``os``, ``python`` and
    ``instructions``: those of avx2, avx512_vnni, avx512_bf16 and amx that the processor has.
    """
    processors = _cpuinfo(root / "proc/cpuinfo")
    first = processors[0] if processors else {}
    flags = set(first.get("flags", "").split())
    physical = {(p["physical id"], p["core id"]) for p in processors if "core id" in p and "physical id" in p}
    return {
        "cpu": first.get("model name") or platform.processor() or platform.machine(),
        "cores": len(physical) or len(processors) or os.cpu_count() or 1,
        "threads": usable_cores(root),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": platform.platform(),
        "python": platform.python_version(),
        "instructions": [name for name, flag in INSTRUCTIONS.items() if flag in flags],
    }


def _cpuinfo(path: Path) -> list[dict[str, str]]:
    """The blocks of /proc/cpuinfo, one per logical CPU; none where the file does not exist."""
    blocks = path.read_text().strip().split("\n\n") if path.is_file() else []
    pairs = [[line.split(":", 1) for line in block.splitlines() if ":" in line] for block in blocks]
    return [{key.strip(): value.strip() for key, value in block} for block in pairs]


def versions() -> dict[str, str]:
    """Installed version by package, for those of `PACKAGES` that are installed."""
    installed = {}
    for name in PACKAGES:
        found = next(iter(metadata.distributions(name=name)), None)
        if found is not None:
            installed[name] = found.version
    return installed


def fingerprint() -> str:
    """Twelve hex digits that change when the machine or a package version changes: the key of cached latencies."""
    text = json.dumps([machine(), versions()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
