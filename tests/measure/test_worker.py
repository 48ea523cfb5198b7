"""The worker's answers, asked in this process: cycling samples, timing only the runner, refusing what it cannot do."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from slimline.errors import SlimlineError
from slimline.measure.worker import Worker
from slimline.runtimes.runtime import Array, Runner
from tests.measure.scale_file import scale_file


class Recorder(Runner):
    """Remembers the first value of every sample of every call."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        self.seen.append(inputs["x"][:, 0].tolist())
        time.sleep(0.002)
        return [inputs["x"]]


def worker(samples: int) -> tuple[Worker, Recorder]:
    made, recorder = Worker(io.StringIO()), Recorder()
    made.runner = recorder
    made.inputs = {"x": np.arange(samples, dtype=np.float32)[:, None]}
    return made, recorder


def test_a_burst_cycles_through_the_samples() -> None:
    made, recorder = worker(5)
    made.burst(calls=3, batch=2, first=4)
    assert recorder.seen == [[4, 0], [1, 2], [3, 4]]


def test_each_call_is_timed_on_its_own() -> None:
    made, recorder = worker(3)
    seconds = made.burst(calls=4, batch=1, first=0)
    assert len(seconds) == len(recorder.seen) == 4 and all(s >= 0.002 for s in seconds)


def test_unequal_inputs_and_unknown_commands_are_refused() -> None:
    made, _ = worker(3)
    made.inputs["z"] = np.zeros((2, 1), np.float32)
    with pytest.raises(SlimlineError, match="the same number"):
        made.burst(calls=1, batch=1, first=0)
    with pytest.raises(SlimlineError, match="does not know the command"):
        made.answer({"do": "dance"})


def test_a_session_over_the_protocol(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", input_0=np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    artifact = scale_file(tmp_path)
    commands = [
        {"do": "open", "path": str(artifact.path), "runtime": "onnxruntime", "variant": "", "threads": 1},
        {"do": "load", "npz": str(tmp_path / "in.npz"), "names": ["x"]},
        {"do": "outputs", "batch": 2, "npz": str(tmp_path / "out.npz")},
        {"do": "quit"},
    ]
    replies = io.StringIO()
    Worker(replies).serve(io.StringIO("".join(json.dumps(c) + "\n" for c in commands)))
    assert not any("error" in json.loads(line) for line in replies.getvalue().splitlines())
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["output_0"], [[3, 6], [9, 12], [15, 18]])


PEAK = """
from slimline.measure.worker import peak_bytes
import numpy as np
before = peak_bytes()
block = np.ones(20_000_000)
grown = peak_bytes()
del block
print(before, grown, peak_bytes())
"""


def test_peak_memory_rises_with_use_and_stays() -> None:
    output = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout
    before, grown, after = map(int, output.split())
    # Linux counts pages per thread and adds them up late: a few of them may be missing
    assert grown >= before + 100e6 and after >= grown - 1e6
