"""Reading an ONNX file without trusting it: nothing is executed, and sizes are checked before memory is taken."""

import math
from collections.abc import Iterator
from pathlib import Path

import google.protobuf.message
import onnx
from onnx import external_data_helper

from slimline.errors import SlimlineError

LARGEST_FILE = 2**31
"""Bytes; protobuf can hold no more. Larger weights stand in external files."""
BITS = {  # of the types whose raw size is checked
    onnx.TensorProto.FLOAT: 32, onnx.TensorProto.DOUBLE: 64, onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16, onnx.TensorProto.INT8: 8, onnx.TensorProto.UINT8: 8, onnx.TensorProto.BOOL: 8,
    onnx.TensorProto.INT16: 16, onnx.TensorProto.UINT16: 16, onnx.TensorProto.INT32: 32, onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.INT64: 64, onnx.TensorProto.UINT64: 64,
    onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4,
}  # fmt: skip


def read_model(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file and its external data.

    Raises:
        SlimlineError: it is not ONNX, is truncated, or points outside its folder; the sentence names the place.
    """
    size = path.stat().st_size
    if size >= LARGEST_FILE:
        raise SlimlineError(f"{path} has {size:,} bytes, more than an ONNX file can have: store weights as external data.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except google.protobuf.message.DecodeError as error:
        raise SlimlineError(f"{path} is not an ONNX file, or is truncated: copy or export it again.") from error
    if not model.graph.node and not model.graph.output:
        raise SlimlineError(f"{path} is not an ONNX file: it holds no graph.")
    for tensor in tensors(model.graph):
        _load(tensor, path)
    return model


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph: initializers and attributes, also of subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            yield from attribute.tensors
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from tensors(inner)


def _load(tensor: onnx.TensorProto, path: Path) -> None:
    """Read what a tensor keeps in another file into it, and check its size."""
    if any(size < 0 for size in tensor.dims):
        raise SlimlineError(f"{path}: the weight {tensor.name!r} has the shape {list(tensor.dims)}.")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _load_external(tensor, path)
    if tensor.HasField("raw_data") and tensor.data_type in BITS:
        need = -(-math.prod(tensor.dims) * BITS[tensor.data_type] // 8)
        if need != len(tensor.raw_data):
            raise SlimlineError(
                f"{path}: the weight {tensor.name!r} of shape {list(tensor.dims)} needs {need:,} bytes and has "
                f"{len(tensor.raw_data):,}: the file is damaged."
            )


def _load_external(tensor: onnx.TensorProto, path: Path) -> None:
    info = external_data_helper.ExternalDataInfo(tensor)
    folder = path.parent.resolve()
    target = (folder / info.location).resolve()
    if not info.location or Path(info.location).is_absolute() or not target.is_relative_to(folder):
        raise SlimlineError(
            f"{path}: the weight {tensor.name!r} is said to be in {info.location!r}, outside the folder of the model: "
            "external data has to lie beside it."
        )
    if not target.is_file():
        raise SlimlineError(f"{path} keeps the weight {tensor.name!r} in {target}, which does not exist: copy it there.")
    offset = info.offset or 0
    length = info.length if info.length is not None else target.stat().st_size - offset
    need = -(-math.prod(tensor.dims) * BITS.get(tensor.data_type, 8) // 8)
    if offset < 0 or length != need or offset + length > target.stat().st_size:
        raise SlimlineError(
            f"{path}: the weight {tensor.name!r} needs {need:,} bytes and {target.name} has not that many at "
            f"{offset:,}: it is truncated or of another model."
        )
    with target.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT
