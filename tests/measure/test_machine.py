"""Usable cores from cgroup files made by hand; facts about the machine the tests run on."""

import os
from pathlib import Path

import numpy as np
import pytest

from slimline.measure.machine import fingerprint, machine, usable_cores, versions


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {"proc/self/cgroup": "0::/app/worker\n"}
V1 = {"proc/self/cgroup": "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        (V2 | {"sys/fs/cgroup/app/worker/cpu.max": "max 100000\n"}, 8),
        (V2 | {"sys/fs/cgroup/app/worker/cpu.max": "200000 100000\n"}, 2),
        (V2 | {"sys/fs/cgroup/app/worker/cpu.max": "150000 100000\n"}, 2),
        (V2 | {"sys/fs/cgroup/app/worker/cpu.max": "20000 100000\n"}, 1),
        (V2 | {"sys/fs/cgroup/app/worker/cpu.max": "1600000 100000\n"}, 8),
        # the group above binds, too
        (V2 | {"sys/fs/cgroup/app/worker/cpu.max": "max 100000", "sys/fs/cgroup/app/cpu.max": "300000 100000"}, 3),
        # a container that sees its own group as the top
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        # version 1: the group by its own name, and a container whose group exists on the host only
        (
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "10000"}, 5),
        (V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_usable_cores_honours_the_quota(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert usable_cores(write(tmp_path, files), affinity=8) == cores


def test_affinity_binds_when_it_is_smaller(tmp_path: Path) -> None:
    root = write(tmp_path, V2 | {"sys/fs/cgroup/app/worker/cpu.max": "600000 100000"})
    assert usable_cores(root, affinity=4) == 4
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_cpuinfo_is_read(tmp_path: Path) -> None:
    block = (
        "processor\t: {}\nmodel name\t: Example 9000\nphysical id\t: 0\ncore id\t\t: {}\nflags\t\t: avx2 avx512_vnni\n"
    )
    text = "\n".join(block.format(i, i // 2) for i in range(8))  # four cores with two threads each
    facts = machine(write(tmp_path, {"proc/cpuinfo": text}))
    assert (facts["cpu"], facts["cores"]) == ("Example 9000", 4)
    assert facts["instructions"] == ["avx2", "avx512_vnni"]


def test_this_machine() -> None:
    facts = machine()
    assert facts["cpu"] and facts["os"] and facts["python"]
    assert facts["cores"] >= 1 and facts["threads"] >= 1
    assert facts["memory_bytes"] > 100_000_000


def test_versions_are_those_that_the_packages_say() -> None:
    assert versions()["numpy"] == np.__version__
    assert "a-package-that-is-not-there" not in versions()


def test_fingerprint_follows_machine_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    assert len(before) == 12 and int(before, 16) >= 0
    assert fingerprint() == before
    monkeypatch.setattr("slimline.measure.machine.versions", lambda: {"numpy": "0.1"})
    assert fingerprint() != before
