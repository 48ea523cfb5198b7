"""What the latency measurement can see: an A/A pair, and a copy of the same network that does 5 % more work.

The slow copy really waits, inside the timed call, for a twentieth of the time the call took
(benchmarks/slow_worker.py).
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from record import write
from slimline.demo.job import HERE, task
from slimline.measure.latency import RacePlan, race
from slimline.measure.machine import usable_cores
from slimline.measure.process import WORKER, RunnerProcess
from slimline.network import container
from slimline.runtimes.registry import get_runtime
from slimline.runtimes.runtime import Array, Artifact

SLOWER = 0.05
REPEATS = 6
SLOW_WORKER = (sys.executable, str(Path(__file__).with_name("slow_worker.py")), str(SLOWER))
PLAN = RacePlan(launches=(5, 5), rounds=15, target_width=0.0)


def main() -> None:
    """Race the pair in which nothing differs and the pair in which 5 % differ, several times each."""
    started = time.monotonic()
    samples = task().validate
    inputs: Mapping[str, Array] = {"image": np.asarray(samples["image"][:256])}
    rows = []
    with TemporaryDirectory() as folder:
        runtime = get_runtime("onnxruntime")
        path = runtime.export(container.load(HERE / "network.slim"), Path(folder))
        pair = {"a": Artifact(path, "onnxruntime"), "b": Artifact(path, "onnxruntime")}
        for repeat in range(REPEATS):
            for slowed in (False, True):

                def open_process(artifact: Artifact, threads: int, slow: bool = slowed) -> RunnerProcess:
                    command = SLOW_WORKER if slow and artifact is pair["b"] else WORKER
                    return RunnerProcess(artifact, threads, command=command)

                ratio = race(pair, inputs, PLAN, usable_cores(), open_process=open_process).ratio("b", "a")
                rows.append(
                    {
                        "repeat": repeat,
                        "slower": SLOWER if slowed else 0.0,
                        "ratio": ratio.value,
                        "low": ratio.low,
                        "high": ratio.high,
                    }
                )
                print(rows[-1])
    same = [r for r in rows if r["slower"] == 0.0]
    slow = [r for r in rows if r["slower"] > 0.0]
    summary = {
        "aa_races": len(same),
        "aa_false_alarms": sum(not r["low"] <= 1 <= r["high"] for r in same),
        "aa_widest_half_width": max((r["high"] - r["low"]) / 2 for r in same),
        "slowed_races": len(slow),
        "slowed_detected": sum(r["low"] > 1 for r in slow),
        "slowed_median_ratio": float(np.median([r["ratio"] for r in slow])),
    }
    print(write("noise", summary, rows, [0], time.monotonic() - started))


if __name__ == "__main__":
    main()
