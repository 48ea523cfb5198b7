"""An ONNX file -> Network."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import inliner
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.sources.onnx.file import read_model
from slimline.sources.onnx.graph import OnnxGraph, OnnxInput, build_graph
from slimline.sources.onnx.module import OnnxModule
from slimline.sources.onnx.rewrite import rewrite
from slimline.sources.onnx.values import TORCH_TYPES

EXAMPLES = 2


def from_onnx(path: Path, data: Mapping[str, Tensor] | None = None) -> Network:
    """Read an ONNX file into a network; inputs and outputs keep their names.

    Args:
        data: example inputs by name, at least one sample each. Random ones are made up without it, where the file says
            every size but the batch.

    Raises:
        SlimlineError: the file cannot be read, uses operators that are not supported, or has a free size that no example
            fixes.
    """
    try:
        graph = rewrite(build_graph(_inlined(read_model(path))))
        module = OnnxModule(graph)
        examples = {item.name: _example(item, data) for item in graph.inputs}
        network = trace(module, examples, tuple(graph.outputs))
    except SlimlineError as error:
        raise SlimlineError(f"{path} cannot be imported: {error}") from error
    network.history = [f"imported from {path.name}"]
    return network


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the bodies of its own functions in place of their calls."""
    return inliner.inline_local_functions(model) if model.functions else model


def _example(item: OnnxInput, data: Mapping[str, Tensor] | None) -> Tensor:
    if data is not None:
        if item.name not in data:
            raise SlimlineError(f"The data has no array for the input {item.name!r}; it has {sorted(data)}.")
        return data[item.name].to(TORCH_TYPES[item.elem_type])
    if item.shape is None or any(not isinstance(size, int) for size in item.shape[1:]):
        shown = "unknown" if item.shape is None else [size or "?" for size in item.shape]
        raise SlimlineError(f"the input {item.name!r} has the free shape {shown}: give data with an example of it.")
    return made_up([int(size or 1) for size in item.shape[1:]], TORCH_TYPES[item.elem_type])


def made_up(sizes: list[int], dtype: torch.dtype) -> Tensor:
    """Random numbers, or ones for integers, which are small enough for any table of embeddings."""
    if dtype.is_floating_point:
        values = np.random.default_rng(0).standard_normal((EXAMPLES, *sizes))
        return torch.from_numpy(values).to(dtype)
    return torch.ones((EXAMPLES, *sizes), dtype=dtype)


__all__ = ["OnnxGraph", "from_onnx", "made_up"]
