"""Any source -> Network: the one place that decides by what was given."""

import difflib
import importlib.util
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network import container
from slimline.network.network import Network
from slimline.sources.torch_module import EXAMPLES, from_module, refuse_file
from slimline.task import Samples, Task

Source = nn.Module | Network | Path | str
"""What a network can be read from; a Keras model in memory is one too."""
OF_TORCH = (".pt", ".pth", ".pt2", ".bin", ".ckpt", ".pkl")
ELSEWHERE = {
    ".h5": "is Keras' old format: load it in Keras 3 and save it as a .keras file",
    ".hdf5": "is Keras' old format: load it in Keras 3 and save it as a .keras file",
    ".safetensors": "holds weights without their network: give the model's folder, or a JOB.py whose model() loads it",
    ".params": "is of MXNet: write it as ONNX with mxnet.onnx.export_model and give that file",
    ".pdmodel": "is of PaddlePaddle: write it as ONNX with paddle2onnx and give that file",
    ".pdiparams": "is of PaddlePaddle: write it as ONNX with paddle2onnx and give that file",
    ".xml": "is of OpenVINO, which is only written here: give the model that it was made from",
}
"""Files of other programs, and what to do with them."""
SOURCES = "a JOB.py, .slim, .onnx, .keras, .tflite or .pb file, or the folder of a SavedModel or of transformers"


@dataclass(frozen=True)
class Job:
    """A network and its task."""

    network: Network
    task: Task | None
    file: Path | None = None
    """The file that holds the network, where a runtime may be able to load it."""


def read_source(source: Source, task: Task | None = None, inputs: Any = None, allow_code: bool = False) -> Job:
    """Read any source, and decide the task for its network (`Task.decided`).

    Args:
        inputs: example inputs; the first samples of the task when left out.
        allow_code: let the code in a Keras file's Lambda layers run.

    Raises:
        SlimlineError: the source does not exist or cannot be read, or the data do not fit it; one sentence.
    """
    job = _read(source, task, inputs, allow_code)
    return job if job.task is None else replace(job, task=job.task.decided(job.network))


def _read(source: Source, task: Task | None, inputs: Any, allow_code: bool) -> Job:
    """The network, and its task as it was given."""
    if isinstance(source, Network):
        return Job(source, task)
    if isinstance(source, nn.Module):
        return Job(from_module(source, inputs, task), task)
    if not isinstance(source, (str, Path)):
        return Job(_from_keras_model(source, examples(task, inputs), allow_code), task)
    path = Path(source)
    if not path.exists():
        raise SlimlineError(f"{path} does not exist{_near(path)}.")
    if path.suffix == ".py":
        return read_job(path, task, allow_code)
    if path.suffix == ".slim":
        return Job(container.load(path), task)
    network = _from_path(path, examples(task, inputs), allow_code)
    return Job(network, task, path if path.suffix == ".onnx" else None)


def _from_path(path: Path, data: Any, allow_code: bool) -> Network:
    """A model file or folder of another framework; what reads it is imported only now."""
    if path.is_dir():
        return _from_folder(path, data)
    match path.suffix.lower():
        case ".onnx":
            from slimline.sources.onnx.network import from_onnx

            return from_onnx(path, data)
        case ".keras":
            from slimline.sources.keras_model import from_keras

            return from_keras(path, data, allow_code)
        case ".tflite":
            from slimline.sources.tflite_file import from_tflite

            return from_tflite(path, data)
        case ".pb":
            from slimline.sources.tensorflow_model import from_frozen_graph

            return from_frozen_graph(path, data)
    if path.suffix.lower() in OF_TORCH:
        refuse_file(path)
    if path.suffix.lower() in ELSEWHERE:
        raise SlimlineError(f"{path} {ELSEWHERE[path.suffix.lower()]}.")
    raise SlimlineError(f"{path} is not a source: give {SOURCES}.")


def _from_folder(path: Path, data: Any) -> Network:
    if (path / "saved_model.pb").is_file():
        from slimline.sources.tensorflow_model import from_saved_model

        return from_saved_model(path, data)
    if (path / "config.json").is_file():
        from slimline.sources.transformers_model import from_folder

        if isinstance(data, list):
            raise SlimlineError(
                f"{path}: the inputs of a transformers model need names: give a dict of arrays by name."
            )
        return from_folder(path, data)
    raise SlimlineError(f"{path} holds neither a saved_model.pb nor a config.json: give {SOURCES}.")


def is_keras_model(source: Any) -> bool:
    """Whether an object is a Keras model, without importing Keras."""
    return any(base.__module__.partition(".")[0] == "keras" for base in type(source).__mro__)


def _from_keras_model(source: Any, data: Any, allow_code: bool) -> Network:
    if not is_keras_model(source):
        raise SlimlineError(f"A {type(source).__name__} is not a source: give a torch or Keras model, or {SOURCES}.")
    from slimline.sources.keras_model import from_keras

    return from_keras(source, data, allow_code)


def examples(task: Task | None, inputs: Any = None) -> dict[str, Tensor] | list[Tensor] | None:
    """Example inputs by name, or in order, from what was given or from the first samples of the task.

    In order, the labels of a task may stand behind the inputs.
    """
    source = inputs if inputs is not None else _first_batch(task.validate) if task is not None else None
    if source is None:
        return None
    if isinstance(source, Mapping):
        return {name: _first(value) for name, value in source.items() if name != "labels"}
    return [_first(value) for value in (source if isinstance(source, (tuple, list)) else [source])]


def _first_batch(source: Any) -> Any:
    """The inputs of a task, whole where they are arrays; the first batch of a loader or a list."""
    if isinstance(source, Samples):
        return source.inputs
    if isinstance(source, (Mapping, tuple)) or not isinstance(source, Iterable):
        return source
    return next(iter(source), None)


def _first(value: Any) -> Tensor:
    few = value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value[:EXAMPLES]))
    return few[:EXAMPLES].clone()


def load(source: Source, inputs: Any = None, allow_code: bool = False) -> Network:
    """Read a network from any source: a torch or Keras model, a model file or folder, or a `JOB.py`.

    Args:
        inputs: example inputs, where the source does not say their sizes.
        allow_code: let the code in a Keras file's Lambda layers run.

    Raises:
        SlimlineError: the source does not exist or cannot be read.
    """
    return _read(source, None, inputs, allow_code).network


def _near(path: Path) -> str:
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / near[0]}" if near else ": check the path"


def read_job(path: Path, task: Task | None = None, allow_code: bool = False) -> Job:
    """Run the user's `JOB.py` and take its ``model()``, ``task()`` and, if there, ``inputs()`` and ``student()``.

    ``model()`` gives a torch module, a network, or the path of any other source, which is relative to the job's folder;
    so does ``student()``, whose network goes into the task.

    Args:
        task: the task of a job that defines none.

    Raises:
        SlimlineError: it fails, or one of the functions is missing or returns something else.
    """
    module = _run(path)
    wanted = ("model", "task") if task is None else ("model",)
    missing = [name for name in wanted if not callable(getattr(module, name, None))]
    if missing:
        raise SlimlineError(
            f"{path} defines no {missing[0]}(): a job has model() -> torch module and task() -> slimline.Task."
        )
    if task is not None and callable(getattr(module, "task", None)):
        raise SlimlineError(f"{path} defines task(), but a task or --data was given too: leave out one of them.")
    task = task if task is not None else _call(path, module, "task")
    if not isinstance(task, Task):
        raise SlimlineError(f"{path}: task() returned a {type(task).__name__}: return a slimline.Task.")
    model = _call(path, module, "model")
    inputs = _call(path, module, "inputs") if callable(getattr(module, "inputs", None)) else None
    read = _read(_model_of(path, model), task, inputs, allow_code)
    if callable(getattr(module, "student", None)) and task.student is not None:
        raise SlimlineError(f"{path} defines student(), but its task has a student too: leave out one of them.")
    if not callable(getattr(module, "student", None)):
        return read
    return replace(read, task=replace(task, student=_student_of(path, module, read.network, allow_code)))


def _student_of(path: Path, module: ModuleType, network: Network, allow_code: bool) -> Network:
    """What ``student()`` of the job at ``path`` returned, as a network with the original's example inputs."""
    source = _model_of(path, _call(path, module, "student"), "student")
    alone = len(network.examples) == 1  # a single input may be called anything
    return _read(source, None, list(network.examples.values()) if alone else network.examples, allow_code).network


def _model_of(path: Path, model: Any, function: str = "model") -> Any:
    """What ``model()`` of the job at ``path`` returned, as a source; never another job."""
    if isinstance(model, (nn.Module, Network)) or is_keras_model(model):
        return model
    if not isinstance(model, (str, Path)):
        raise SlimlineError(
            f"{path}: {function}() returned a {type(model).__name__}: return a torch or Keras model, or the path of a "
            "model file."
        )
    found = path.parent / model
    if found.suffix == ".py":
        raise SlimlineError(
            f"{path}: {function}() returned another job, {model}: return a torch module or a model file."
        )
    return found


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
