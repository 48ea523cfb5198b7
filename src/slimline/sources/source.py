"""Any source -> Network: the one place that decides by what was given."""

import difflib
import importlib.util
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import nn

from slimline.errors import SlimlineError
from slimline.network import container
from slimline.network.network import Network
from slimline.sources.torch_module import from_module
from slimline.task import Task

LATER = {".onnx": "ONNX", ".keras": "Keras", ".tflite": "TFLite", ".pt2": "exported programs", ".pb": "TensorFlow"}


@dataclass(frozen=True)
class Job:
    """A network and its task."""

    network: Network
    task: Task | None


def read_source(source: nn.Module | Network | Path | str, task: Task | None = None, inputs: Any = None) -> Job:
    """Read a module, a network, a `.slim` file or a `JOB.py`.

    Raises:
        SlimlineError: the source does not exist or cannot be read; the sentence says what to do.
    """
    if isinstance(source, Network):
        return Job(source, task)
    if isinstance(source, nn.Module):
        return Job(from_module(source, inputs, task), task)
    path = Path(source)
    if not path.exists():
        raise SlimlineError(f"{path} does not exist{_near(path)}.")
    if path.suffix == ".py":
        return read_job(path)
    if path.suffix == ".slim":
        return Job(container.load(path), task)
    if path.suffix in LATER:
        raise SlimlineError(
            f"{path}: {LATER[path.suffix]} files are not read yet; give a JOB.py with model() and task(), or a "
            f".slim file."
        )
    raise SlimlineError(f"{path} is not a source: give a JOB.py with model() and task(), or a .slim file.")


def load(source: nn.Module | Network | Path | str, inputs: Any = None) -> Network:
    """Read a network from a module with example inputs, a `.slim` file or a `JOB.py`.

    Raises:
        SlimlineError: the source does not exist or cannot be read.
    """
    return read_source(source, None, inputs).network


def _near(path: Path) -> str:
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / near[0]}" if near else ": check the path"


def read_job(path: Path) -> Job:
    """Run the user's `JOB.py` and take its ``model()``, ``task()`` and, if there, ``inputs()``.

    Raises:
        SlimlineError: it fails, or one of the functions is missing or returns something else.
    """
    module = _run(path)
    missing = [name for name in ("model", "task") if not callable(getattr(module, name, None))]
    if missing:
        raise SlimlineError(
            f"{path} defines no {missing[0]}(): a job has model() -> torch module and task() -> slimline.Task."
        )
    task = _call(path, module, "task")
    if not isinstance(task, Task):
        raise SlimlineError(f"{path}: task() returned a {type(task).__name__}: return a slimline.Task.")
    model = _call(path, module, "model")
    if not isinstance(model, (nn.Module, Network)):
        raise SlimlineError(f"{path}: model() returned a {type(model).__name__}: return a torch module.")
    inputs = _call(path, module, "inputs") if callable(getattr(module, "inputs", None)) else None
    return Job(read_source(model, task, inputs).network, task)


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except SlimlineError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise SlimlineError(f"{path} cannot be run: {type(error).__name__}: {error}{_line_in(path, error)}.") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _call(path: Path, module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)()
    except SlimlineError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise SlimlineError(
            f"{path}: {name}() failed: {type(error).__name__}: {error}{_line_in(path, error)}."
        ) from error


def _line_in(path: Path, error: BaseException) -> str:
    trace, line = error.__traceback__, None
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path.absolute():
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""


def read_data(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays by name from an `.npz` file; nothing in it is executed.

    Raises:
        SlimlineError: missing, not an npz file, or holding Python objects.
    """
    if not path.exists():
        raise SlimlineError(f"{path} does not exist{_near(path)}.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise SlimlineError(
            f"{path} is not a readable .npz of plain arrays ({error}): write it with numpy.savez."
        ) from error
