"""TensorFlow and Keras files become ONNX in a process of their own, by the converters their makers maintain.

TensorFlow beside torch in one process is heavy and prints a lot, and a converter may crash or never end on a damaged
file. Here either of these becomes one sentence.
"""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.sources.onnx.network import Data, from_onnx

WORKER = ("-P", "-m", "slimline.sources.conversion_worker")
"""-P keeps the current folder off the module path: a user's ``keras.py`` must not be imported."""
SECONDS = 1800.0
"""A converter that takes longer than this is killed."""
EXTRAS = {"keras": ("keras", "tensorflow", "tf2onnx"), "tensorflow": ("tensorflow", "tf2onnx")}
"""Extra of slimline -> the modules that it installs."""
SHOWN = 400
"""Characters of a converter's complaint."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What the worker is asked to do."""

    kind: str
    """Of `slimline.sources.conversion_worker.KINDS`."""
    source: Path
    extra: str
    """The extra that installs the converter."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shown: str = ""
    """How errors and the history name the source; its path when empty."""
    command: Sequence[str] = WORKER
    seconds: float = SECONDS

    @property
    def name(self) -> str:
        return self.shown or str(self.source)


def require(extra: str, what: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Raises:
        SlimlineError: one is missing; the sentence has the command that installs it.
    """
    missing = [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]
    if missing:
        raise SlimlineError(
            f"{what} cannot be read, since {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
            f"installed: pip install 'slimline[{extra}]'."
        )


def import_converted(conversion: Conversion, data: Data | None) -> Network:
    """Convert to ONNX in a temporary folder and import that.

    Raises:
        SlimlineError: the converter is missing or fails, or the ONNX file cannot be imported.
    """
    with tempfile.TemporaryDirectory(prefix="slimline-") as folder:
        convert(conversion, Path(folder))
        path = Path(folder) / "model.onnx"
        try:
            network = from_onnx(path, data)
        except SlimlineError as error:
            raise SlimlineError(str(error).replace(str(path), conversion.name)) from error
    network.history = [line.replace(path.name, Path(conversion.name).name) for line in network.history]
    return network


def convert(conversion: Conversion, folder: Path) -> dict[str, Any]:
    """Run the worker; it leaves ``model.onnx`` in the folder, and its reply is returned.

    Raises:
        SlimlineError: the converter is missing, refuses the file, crashes, or takes too long.
    """
    require(conversion.extra, conversion.name)
    request = {"kind": conversion.kind, "source": str(conversion.source.resolve()), "options": dict(conversion.options)}
    (folder / "request.json").write_text(json.dumps(request))
    log = folder / "log.txt"
    with log.open("wb") as output:
        code = _run([sys.executable, *conversion.command, str(folder)], output.fileno(), conversion)
    reply = folder / "reply.json"
    answer = json.loads(reply.read_text()) if code == 0 and reply.is_file() else None
    if not isinstance(answer, dict):
        raise SlimlineError(f"{conversion.name}: the converter to ONNX {_ending(code)}{_last_line(log)}.")
    if "error" in answer:
        raise SlimlineError(f"{conversion.name} {answer['error']}")
    return answer


def _run(command: Sequence[str], output: int, conversion: Conversion) -> int:
    """The exit code; after the time limit, or Ctrl-C here, the process and what it started are killed."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(), start_new_session=True
    )
    try:
        return process.wait(conversion.seconds)
    except subprocess.TimeoutExpired:
        raise SlimlineError(
            f"{conversion.name}: the converter to ONNX was stopped after {conversion.seconds:g} s: convert it to ONNX "
            "yourself and give that file."
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def environment() -> dict[str, str]:
    """The environment of the worker: TensorFlow on the CPU as Keras' backend, whatever the user's own settings."""
    here = str(Path(__file__).resolve().parents[2])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    fixed = {
        "KERAS_BACKEND": "tensorflow",
        "TF_USE_LEGACY_KERAS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **fixed}


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, most likely since memory ran out"
    if code < 0:
        return f"crashed ({signal.Signals(-code).name}), which a damaged file may cause"
    return f"ended with exit code {code}"


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"; it last said: {lines[-1][:SHOWN]}" if lines else ""
