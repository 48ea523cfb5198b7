"""Small ONNX models, and what ONNX Runtime says about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from slimline.network.network import Network
from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.module import OnnxModule
from slimline.sources.onnx.network import from_onnx

NEWEST_IN_ONNX_RUNTIME = 23
FLOAT = onnx.TensorProto.FLOAT


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = NEWEST_IN_ONNX_RUNTIME,
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model from nodes; text in the shape of an input is a free axis; what `types` does not name is float."""
    kinds = types or {}
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, kinds.get(name, FLOAT), list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kinds.get(name, FLOAT), None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Save a model and return its path."""
    path = folder / name
    onnx.save(proto, path)
    return path


def one(
    kind: str, arrays: Sequence[Any], opset: int = NEWEST_IN_ONNX_RUNTIME, outputs: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node; every array is a graph input (None is an input that is left out)."""
    names = ["" if array is None else f"x{i}" for i, array in enumerate(arrays)]
    given = {name: np.asarray(array) for name, array in zip(names, arrays, strict=True) if name}
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(kind, names, results, **attributes)
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    made = model([node], {name: array.shape for name, array in given.items()}, results, None, opset, types)
    for value in made.graph.output:
        value.ClearField("type")  # inferred
    return made


def eager(proto: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    """Outputs of the imported module, run without tracing."""
    with torch.no_grad():
        return [y.numpy() for y in OnnxModule(build_graph(proto))(*(torch.from_numpy(x) for x in inputs))]


def in_onnx_runtime(proto: onnx.ModelProto | Path, *inputs: np.ndarray) -> list[np.ndarray]:
    """Outputs of ONNX Runtime; a path is needed for external data."""
    source = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True))))


def assert_same(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], tolerance: float = 1e-4) -> None:
    """Types and shapes are equal, and values up to a relative error."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert relative_error(a, b) <= tolerance


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """Euclidean distance by the length of the second."""
    wide_a, wide_b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(np.linalg.norm(wide_a - wide_b) / max(float(np.linalg.norm(wide_b)), 1e-12))


def check_eager(proto: onnx.ModelProto, *inputs: np.ndarray) -> None:
    """The imported module equals ONNX Runtime on these inputs."""
    assert_same(eager(proto, *inputs), in_onnx_runtime(proto, *inputs))


def check_traced(proto: onnx.ModelProto, folder: Path, *inputs: np.ndarray) -> Network:
    """The traced network equals ONNX Runtime at batch 1 and 3; inputs hold three samples. Returns the network."""
    path = write(proto, folder)
    names = [item.name for item in proto.graph.input]
    data = {name: torch.from_numpy(array) for name, array in zip(names, inputs, strict=True)}
    network = from_onnx(path, data)
    for batch in (1, 3):
        ours = network.run({name: array[:batch] for name, array in data.items()})
        assert_same([y.numpy() for y in ours], in_onnx_runtime(proto, *(array[:batch] for array in inputs)))
    return network
