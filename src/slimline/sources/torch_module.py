"""A torch module and example inputs -> Network."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
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
    values = inputs if inputs is not None else first_samples(task.validate if task else None, _required(module))
    if isinstance(values, Tensor):
        values = (values,)
    return trace(module, values)


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
