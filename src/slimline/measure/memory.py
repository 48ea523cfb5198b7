"""Peak resident memory of a process that runs an artifact."""

from collections.abc import Mapping

from slimline.measure.machine import machine
from slimline.measure.measurement import Measurement
from slimline.measure.process import RunnerProcess
from slimline.runtimes.runtime import Array, Artifact

CALLS = 10


def runner_memory(artifact: Artifact, inputs: Mapping[str, Array], threads: int, batch: int = 1) -> Measurement:
    """Peak resident bytes of a fresh process that opens the artifact and runs one burst of ten calls.

    Only the first ``batch`` samples are sent, since the samples count too. Raises SlimlineError when it cannot be run.
    """
    with RunnerProcess(artifact, threads) as process:
        process.load({name: array[:batch] for name, array in inputs.items()})
        process.burst(CALLS, batch)
        peak, bare = process.peak_memory(), process.start_memory
    how = (
        f"peak resident size of one fresh process after {CALLS} calls of batch {batch}, {threads} threads; "
        f"{bare} bytes of it were there before the runtime was imported"
    )
    return Measurement(peak, "bytes", how, 1, peak, peak, {**machine(), "threads": threads, "batch": batch})
