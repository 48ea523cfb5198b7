"""`make demo`, as a new user runs it, and the memory of its whole process tree.

    python benchmarks/demo.py              writes benchmarks/results/demo.json
    python benchmarks/demo.py demo_xeon    the same under another name, for another machine

It writes runs/demo, which must not be there yet.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from record import ROOT, write

FIELDS = (
    "speedup", "speedup_low", "speedup_high", "speedup_vs_best_original", "speedup_vs_best_original_low",
    "speedup_vs_best_original_high", "speedup_vs_int8_only", "speedup_vs_int8_only_low", "speedup_vs_int8_only_high",
    "size_ratio", "size_bytes", "drop", "drop_upper", "drop_lower", "latency_ms", "runtime", "recipe", "macs",
    "parameters",
)  # fmt: skip
WATCH_SECONDS = 0.2


def resident_bytes(root: int) -> int:
    """Resident size of a process and all its descendants, from /proc; shared pages count once per process."""
    parents, sizes = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue  # it ended while we looked
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        parents[int(folder.name)] = int(fields["PPid"])
        sizes[int(folder.name)] = int(fields.get("VmRSS", "0 kB").split()[0]) * 1024
    family, grown = {root}, True
    while grown:
        more = {p for p, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    return sum(sizes.get(p, 0) for p in family)


def main(name: str = "demo") -> None:
    """Run the demo as a user would and keep what its certificate says."""
    out = ROOT / "runs" / "demo"
    if out.exists():
        sys.exit(f"{out} is there already: move it away, so that the demo starts from nothing.")
    started = time.monotonic()
    process = subprocess.Popen(["make", "demo"], cwd=ROOT)
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], resident_bytes(process.pid))
            time.sleep(WATCH_SECONDS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    watcher.join()
    seconds = time.monotonic() - started
    certificate = json.loads((out / "certificate.json").read_text())
    summary = {
        "verdict": certificate["verdict"],
        "exit_code": code,
        **{name: certificate["best"][name] for name in FIELDS},
        "n": certificate["splits"]["certify"],
        "search_seconds": certificate["seconds"],
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak[0],
        "noise": certificate["noise"],
        "limits": certificate["limits"],
        "original": certificate["original"],
    }
    print(write(name, summary, certificate["study"], [certificate["seed"]], seconds))


if __name__ == "__main__":
    main(*sys.argv[1:2])
