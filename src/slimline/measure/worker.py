"""A process that opens one artifact and answers commands, one JSON object per line, on stdin and stdout.

`slimline.measure.process.RunnerProcess` is the other end. On start it says
``{"ready": true, "peak_bytes": ...}``. Then:

* ``{"do": "open", "path", "runtime", "variant", "threads"}`` -> ``{}``
* ``{"do": "load", "npz", "names"}`` arrays ``input_0`` ... of the named inputs, samples first -> ``{"samples"}``
* ``{"do": "burst", "calls", "batch", "first"}`` -> ``{"seconds": [per call]}``
* ``{"do": "outputs", "batch", "npz"}`` all samples; arrays ``output_0`` ... are written to ``npz`` -> ``{"count"}``;
  ``{"done": samples}`` about once a second on the way
* ``{"do": "memory"}`` -> ``{"peak_bytes"}``
* ``{"do": "quit"}``, or the end of stdin, ends the process

What goes wrong comes back as ``{"error": one sentence}``.
"""

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from slimline.errors import SlimlineError
from slimline.runtimes.runtime import Array, Artifact, Runner

HEARTBEAT_SECONDS = 1.0


def peak_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Second choice: on Linux this one is inherited from the process that started us and can be too high.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Worker:
    """State of the process: the opened runner and the samples it runs on."""

    def __init__(self, replies: IO[str]) -> None:
        self.replies = replies
        self.runner: Runner | None = None
        self.inputs: dict[str, Array] = {}

    def say(self, message: Mapping[str, Any]) -> None:
        """Write one reply."""
        self.replies.write(json.dumps(message) + "\n")
        self.replies.flush()

    def serve(self, commands: IO[str]) -> None:
        """Answer commands until ``quit`` or the end of the stream."""
        self.say({"ready": True, "peak_bytes": peak_bytes()})
        for line in commands:
            command = json.loads(line)
            if command["do"] == "quit":
                return
            try:
                reply = self.answer(command)
            except Exception as error:  # a runtime may raise anything; the other end turns it into its own error
                traceback.print_exc()
                what = str(error) if isinstance(error, SlimlineError) else f"{type(error).__name__}: {error}"
                reply = {"error": " ".join(what.split())}
            self.say(reply)

    def answer(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one command. Raises SlimlineError for a command that is unknown or comes too early."""
        match command["do"]:
            case "open":
                return self.open(command)
            case "load":
                return self.load(Path(command["npz"]), command["names"])
            case "burst":
                return {"seconds": self.burst(command["calls"], command["batch"], command["first"])}
            case "outputs":
                return {"count": self.outputs(command["batch"], Path(command["npz"]))}
            case "memory":
                return {"peak_bytes": peak_bytes()}
        raise SlimlineError(f"the worker does not know the command {command['do']!r}: see slimline.measure.worker")

    def open(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Open the artifact."""
        # Late, because only now is stdout protected and only now is a runtime wanted.
        from slimline.runtimes.registry import open_artifact

        artifact = Artifact(Path(command["path"]), command["runtime"], command["variant"])
        self.runner = open_artifact(artifact, command["threads"])
        return {}

    def load(self, npz: Path, names: Sequence[str]) -> dict[str, Any]:
        """Read the samples."""
        with np.load(npz, allow_pickle=False) as arrays:
            self.inputs = {name: np.ascontiguousarray(arrays[f"input_{i}"]) for i, name in enumerate(names)}
        return {"samples": self.samples}

    @property
    def samples(self) -> int:
        """Number of samples, the same for every input."""
        counts = {name: len(array) for name, array in self.inputs.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise SlimlineError(f"the inputs hold {counts} samples: give every input the same number, at least one")
        return next(iter(counts.values()))

    def opened(self) -> Runner:
        """The runner; SlimlineError before ``open``."""
        if self.runner is None:
            raise SlimlineError("the worker has no artifact yet: send open first")
        return self.runner

    def burst(self, calls: int, batch: int, first: int) -> list[float]:
        """Seconds of each of ``calls`` calls; only the runner's own call is timed."""
        runner, seconds, count = self.opened(), [], self.samples
        gc.disable()  # a collection in the middle of a call would be charged to the runtime
        try:
            for call in range(calls):
                start = (first + call * batch) % count
                inputs = {name: _samples(array, start, batch) for name, array in self.inputs.items()}
                before = time.perf_counter()
                runner.run(inputs)
                seconds.append(time.perf_counter() - before)
        finally:
            gc.enable()
        return seconds

    def outputs(self, batch: int, npz: Path) -> int:
        """Run all samples and write ``output_0``, ``output_1`` ... to ``npz``; returns the number of outputs."""
        parts = list(self.batches(batch))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        named: dict[str, Any] = {f"output_{i}": column for i, column in enumerate(columns)}
        np.savez(npz, **named)
        return len(columns)

    def batches(self, batch: int) -> Iterator[list[Array]]:
        """Outputs of one batch after the other, with a sign of life about once a second."""
        runner, count, spoken = self.opened(), self.samples, time.monotonic()
        for start in range(0, count, batch):
            stop = min(start + batch, count)
            results = [np.array(a) for a in runner.run({name: a[start:stop] for name, a in self.inputs.items()})]
            for i, result in enumerate(results):
                if result.ndim == 0 or len(result) != stop - start:
                    raise SlimlineError(
                        f"output {i} has shape {result.shape} for {stop - start} samples: its first axis must be theirs"
                    )
                if result.dtype.hasobject:
                    raise SlimlineError(f"output {i} holds Python objects: only outputs made of numbers can be scored")
            yield results
            if time.monotonic() - spoken > HEARTBEAT_SECONDS:
                spoken = time.monotonic()
                self.say({"done": stop})


def _samples(array: Array, start: int, batch: int) -> Array:
    """``batch`` samples from ``start``, beginning again at the first one after the last; contiguous."""
    if start + batch <= len(array):
        return array[start : start + batch]
    wrapped: Array = np.take(array, range(start, start + batch), axis=0, mode="wrap")
    return wrapped


def main() -> None:
    """Move the protocol to private descriptors, then serve; what a runtime prints goes to stderr."""
    commands, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    with os.fdopen(commands, "r", encoding="utf-8") as source, os.fdopen(replies, "w", encoding="utf-8") as sink:
        Worker(sink).serve(source)


if __name__ == "__main__":
    main()
