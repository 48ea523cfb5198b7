"""An artifact opened in a process of its own."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from slimline.errors import SlimlineError
from slimline.runtimes.runtime import Array, Artifact

WORKER = (sys.executable, "-P", "-m", "slimline.measure.worker")
"""-P keeps the current folder off the module path: a user's ``numpy.py`` must not be imported."""
STDERR_LINES = 5


class RunnerProcess:
    """One artifact in one fresh process; a context manager that never leaves the process behind.

    Two runtimes in one process disturb each other (idle threads spin), and memory can only be told per process.
    Every method raises SlimlineError when the worker reports a failure, dies, answers rubbish or says nothing for
    ``timeout`` seconds; in the last three cases with the last lines that it wrote to stderr.
    """

    def __init__(
        self, artifact: Artifact, threads: int, timeout: float = 300.0, command: Sequence[str] = WORKER
    ) -> None:
        self.artifact = artifact
        self.threads = threads
        self.timeout = timeout
        self.command = tuple(command)
        self.start_memory = 0
        """Peak resident bytes of the worker before it opened the artifact: Python and numpy."""
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="slimline-")
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            self._start()
            self.start_memory = int(self._field(self._reply(), "peak_bytes"))
            a = self.artifact
            path = str(a.path.resolve())
            self._ask("open", path=path, runtime=a.runtime, variant=a.variant, threads=self.threads)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        # A private session: Ctrl-C in the terminal must reach the search and not kill a measurement half way, and the
        # whole group can be killed at the end. stderr is a file, which unlike a pipe never fills up.
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._environment(),
            bufsize=0,
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        here = str(Path(__file__).resolve().parents[2])
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        # OpenMP reads its number of threads before any runtime gets a say.
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}

    def load(self, inputs: Mapping[str, Array]) -> None:
        """Hand over the samples: one array per input name, samples on the first axis."""
        npz = Path(self._folder.name) / "inputs.npz"
        broken = [name for name, array in inputs.items() if array.dtype.hasobject]
        if broken:
            raise SlimlineError(f"the inputs {broken} hold Python objects: convert them to arrays of numbers")
        # Numbered, since np.savez cannot take every name (``file``) that a network may give its input.
        arrays: dict[str, Any] = {f"input_{i}": array for i, array in enumerate(inputs.values())}
        np.savez(npz, **arrays)
        self._ask("load", npz=str(npz), names=list(inputs))
        npz.unlink()

    def burst(self, calls: int, batch: int = 1, first: int = 0) -> NDArray[np.float64]:
        """Seconds per call, shape (calls,), each call on ``batch`` consecutive samples, from sample ``first`` on."""
        seconds = self._field(self._ask("burst", calls=calls, batch=batch, first=first), "seconds")
        return np.asarray(seconds, dtype=np.float64)

    def outputs(self, batch: int = 64) -> list[Array]:
        """Outputs for all loaded samples, run in batches; each array has the samples on its first axis."""
        npz = Path(self._folder.name) / "outputs.npz"
        count = int(self._field(self._ask("outputs", batch=batch, npz=str(npz)), "count"))
        with np.load(npz, allow_pickle=False) as arrays:
            results: list[Array] = [arrays[f"output_{i}"] for i in range(count)]
        npz.unlink()
        return results

    def peak_memory(self) -> int:
        """Peak resident bytes of the process so far, Python and the loaded samples included."""
        return int(self._field(self._ask("memory"), "peak_bytes"))

    def close(self) -> None:
        """Kill the process and whatever it started, and remove its temporary files. Safe to call twice."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None
        self._errors.close()
        self._folder.cleanup()

    def _ask(self, do: str, **fields: Any) -> dict[str, Any]:
        if self._process is None or self._process.stdin is None:
            raise SlimlineError(f"the process of {self.artifact.path} is not running: use it inside its with block")
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        except BrokenPipeError:
            raise self._failure("the process ended early") from None
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        """The next reply that is not a sign of life."""
        while True:
            line = self._line()
            try:
                reply = json.loads(line)
            except ValueError:
                reply = None
            if not isinstance(reply, dict):
                raise self._failure(f"the process answered {line[:80]!r} instead of JSON")
            if "error" in reply:
                raise SlimlineError(f"{self.artifact.label} could not run {self.artifact.path}: {reply['error']}")
            if "done" not in reply:
                return reply

    def _line(self) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        deadline = time.monotonic() + self.timeout
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise self._failure(f"the process said nothing for {self.timeout:g} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise self._failure("the process ended early")
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def _field(self, reply: Mapping[str, Any], name: str) -> Any:
        if name not in reply:
            raise self._failure(f"the process answered without {name!r}")
        return reply[name]

    def _failure(self, what: str) -> SlimlineError:
        """The sentence for a worker that did not keep to the protocol, with what it last wrote to stderr."""
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()[-STDERR_LINES:]
        tail = f"; it last said: {' | '.join(said)}" if said else ""
        return SlimlineError(f"{self.artifact.label} could not run {self.artifact.path}: {what}{tail}")
