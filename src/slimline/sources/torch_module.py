"""A torch module and example inputs -> Network; and why torch's own files are not read."""

import inspect
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.sources.transformers_model import from_pretrained_model, input_names, is_pretrained_model
from slimline.task import Samples, Task

EXAMPLES = 2


def from_module(module: nn.Module, inputs: Any = None, task: Task | None = None) -> Network:
    """Trace a module with the given example inputs, or with the first samples of the task.

    Raises:
        SlimlineError: there is nothing to trace it with, or it cannot be traced.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise SlimlineError("A TorchScript module cannot be traced: give the original nn.Module it was made from.")
    if inputs is None and task is None:
        raise SlimlineError(f"{type(module).__name__} needs example inputs: define inputs() or task().")
    if is_pretrained_model(module):
        return from_pretrained_model(module, _by_name(module, inputs, task))
    values = inputs if inputs is not None else first_samples(task.validate if task else None, _required(module))
    if isinstance(values, Tensor):
        values = (values,)
    return trace(module, values)


def _by_name(model: nn.Module, inputs: Any, task: Task | None) -> dict[str, Any]:
    """Example inputs of a transformers model, whose inputs are all optional: every array that has a name is tried."""
    source = inputs if inputs is not None else task.validate if task else None
    if isinstance(source, Samples):
        source = source.inputs
    elif not isinstance(source, (Mapping, Tensor, tuple)) and isinstance(source, Iterable):
        source = next(iter(source), None)
    if isinstance(source, Mapping):
        return dict(source)
    usual = input_names(model)
    given = len(source) - (inputs is None) if isinstance(source, tuple) else 1  # a task ends with the labels
    return first_samples(source, usual[: max(1, given)])


def _required(module: nn.Module) -> list[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [p.name for p in plain if p.default is inspect.Parameter.empty] or [p.name for p in plain[:1]]


def first_samples(source: Any, names: list[str]) -> dict[str, Tensor]:
    """Example inputs by name from whatever the task was given."""
    if isinstance(source, Samples):
        source = source.inputs
    elif isinstance(source, tuple):
        source = source[: len(source) - 1] if len(source) == 2 else source  # (inputs, labels)
    elif not isinstance(source, Mapping):
        batch = next(iter(source), None) if isinstance(source, Iterable) else None
        if batch is None:
            raise SlimlineError("The validate loader is empty: it has to yield at least one batch.")
        source = batch
    if isinstance(source, Mapping):
        absent = [n for n in names if n not in source]
        if absent:
            raise SlimlineError(f"The data has no array for the input {absent[0]!r}; it has {sorted(source)}.")
        chosen = [source[n] for n in names]
    else:
        chosen = list(source) if isinstance(source, (tuple, list)) else [source]
    if len(chosen) < len(names):
        raise SlimlineError(
            f"forward() needs the inputs {', '.join(names)} but the data has {len(chosen)}: give a dict of "
            f"arrays by name."
        )
    tensors = [x if isinstance(x, Tensor) else torch.from_numpy(np.asarray(x)) for x in chosen[: len(names)]]
    return {name: x[:EXAMPLES].clone() for name, x in zip(names, tensors, strict=True)}


def refuse_file(path: Path) -> NoReturn:
    """Say what kind of file torch wrote and how its network gets here; nothing in the file is loaded.

    A pickle can execute anything when it is loaded. So can `torch.export.load` (torch 2.13): it falls back to full
    unpickling, follows ``use_pickle`` marks in the archive, and gives its shape expressions to ``sympify``.

    Raises:
        SlimlineError: always.
    """
    how = "give a JOB.py whose model() builds the nn.Module"
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name.partition("/")[2] or name for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile):
        parts = set()
    if "constants.pkl" in parts or any(name.startswith("code/") for name in parts):
        raise SlimlineError(
            f"{path} is a TorchScript archive, compiled code that cannot be trained or pruned: {how} it was made from, "
            "or write it as ONNX with torch.onnx.export and give that file."
        )
    if parts & {"archive_format", "serialized_exported_program.json"}:
        raise SlimlineError(
            f"{path} is an exported program, and torch.export.load can execute code from such a file: if you trust it, "
            f"give a JOB.py whose model() returns torch.export.load({path.name!r}).module()."
        )
    if "data.pkl" in parts or _starts_as_pickle(path):
        raise SlimlineError(
            f"{path} is a pickle that torch.save wrote, and loading a pickle can execute code from it: {how} and loads "
            f"the weights with torch.load({path.name!r}, weights_only=True)."
        )
    raise SlimlineError(f"{path} is no file that torch writes: {how}.")


def _starts_as_pickle(path: Path) -> bool:
    """Pickles of protocol 2 and later start with its number; torch wrote such files before version 1.6."""
    with path.open("rb") as file:
        head = file.read(2)
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5
