"""Reading an ONNX file without trusting it: nothing is executed, and sizes are checked before memory is taken."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import google.protobuf.message
import onnx

from slimline.errors import SlimlineError
from slimline.sources.onnx.external import ExternalFiles
from slimline.sources.onnx.functions import inlined
from slimline.sources.onnx.limits import count, quoted
from slimline.sources.onnx.schema import refuse_old
from slimline.sources.onnx.tensors import LARGEST_DENSE, check, dense_size
from slimline.sources.onnx.values import TORCH_TYPES

LARGEST_FILE = 2**31
"""Bytes; protobuf can hold no more. Larger weights stand in external files."""
LARGEST_INPUT = 2**28
"""Elements of all inputs together, where the file fixes their sizes."""
LONGEST_PORT = 500
"""Characters of the name of an input or output."""
KINDS = {
    b"version https://git-lfs": "a Git LFS pointer (run `git lfs pull`)",
    b"PK\x03\x04": "a zip archive (as .keras, .npz and PyTorch files are)",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "compressed by gzip",
    b"GGUF": "a GGUF file",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
}
"""What people have in hand instead, by its first bytes."""
UNREAD = ("doc_string", "producer_name", "producer_version", "metadata_props", "training_info", "value_info")
"""Fields that change no output."""
MARK_OF_TFLITE = b"TFL3"


def read_model(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file and its external data; its own functions are put in place of their calls.

    Raises:
        SlimlineError: it is not ONNX, is truncated, or points outside its folder; the sentence names the place.
    """
    model = _parsed(path)
    refuse_old(model)
    model = inlined(model)
    files = ExternalFiles(path.parent)
    for tensor in tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            files.load_(tensor)
        check(tensor)
    if sum(dense_size(sparse) for sparse in sparse_tensors(model.graph)) > LARGEST_DENSE:
        raise SlimlineError(
            f"its sparse tensors have more than {LARGEST_DENSE:,} elements with their zeros written out."
        )
    check_inputs(model.graph)
    return model


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise SlimlineError("it is a folder, not a file." if path.is_dir() else "it is no plain file.")
        size = path.stat().st_size
        if size >= LARGEST_FILE:
            raise SlimlineError(
                f"it has {size:,} bytes, more than an ONNX file can have: store weights as external data."
            )
        content = path.read_bytes()
    except OSError as error:
        raise SlimlineError(f"it cannot be read: {error.strerror}.") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except google.protobuf.message.DecodeError as error:
        raise SlimlineError(_not_onnx(content)) from error
    if model.ir_version < 1 or not (model.graph.node or model.graph.output):
        raise SlimlineError(_not_onnx(content))
    _refuse_undecodable(model)
    return model


def _refuse_undecodable(message: google.protobuf.message.Message) -> None:
    """Raise when a name is not UTF-8; protobuf then gives bytes where everyone expects text."""
    for field, value in message.ListFields():
        if field.name in UNREAD or field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for entry in value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]:
            if isinstance(entry, bytes):
                raise SlimlineError(f"the name {quoted(repr(entry))} in it is not UTF-8: the file is damaged.")
            if isinstance(entry, google.protobuf.message.Message):
                _refuse_undecodable(entry)


def _not_onnx(content: bytes) -> str:
    """The sentence for a file that does not parse, with a guess at what it is."""
    if not content:
        return "it is empty: copy or export it again."
    kind = next((kind for mark, kind in KINDS.items() if content.startswith(mark)), None)
    if content[4:8] == MARK_OF_TFLITE:
        kind = "a TFLite file"
    return (
        f"it is no ONNX file but {kind}." if kind else "it is no ONNX file, or is truncated: copy or export it again."
    )


def check_inputs(graph: onnx.GraphProto) -> None:
    """Raise unless a graph has inputs of numbers, of a plausible size, and names that fit on a line."""
    for value in [*graph.input, *graph.output]:  # their names go into every message, report and file
        if len(value.name) > LONGEST_PORT or not value.name.isprintable():
            raise SlimlineError(
                f"an input or output is called {quoted(value.name)}: names of more than {LONGEST_PORT} characters "
                "or with control characters are not accepted."
            )
    constants = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if not inputs:
        raise SlimlineError("it has no inputs, so that its outputs never change: there is nothing to compress.")
    total = 0
    for value in inputs:
        what = f"the input {quoted(value.name)}"
        tensor_type = value.type.tensor_type
        if value.type.WhichOneof("value") == "tensor_type" and tensor_type.elem_type not in TORCH_TYPES:
            names = dict(zip(onnx.TensorProto.DataType.values(), onnx.TensorProto.DataType.keys(), strict=True))
            kind = names.get(tensor_type.elem_type, tensor_type.elem_type)
            raise SlimlineError(f"{what} has the element type {kind}, with which nothing can be computed here.")
        total += count([max(1, d.dim_value) for d in tensor_type.shape.dim], what)
    if total > LARGEST_INPUT:
        raise SlimlineError(f"its inputs have {total:,} numbers; more than {LARGEST_INPUT:,} are not plausible.")


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph: initializers and attributes, also of subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in _attributes(graph):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in _sparse(attribute):
            yield from (sparse.values, sparse.indices)
        for inner in _graphs(attribute):
            yield from tensors(inner)


def sparse_tensors(graph: onnx.GraphProto) -> Iterator[onnx.SparseTensorProto]:
    """Every sparse tensor of a graph, also of subgraphs."""
    yield from graph.sparse_initializer
    for attribute in _attributes(graph):
        yield from _sparse(attribute)
        for inner in _graphs(attribute):
            yield from sparse_tensors(inner)


def _attributes(graph: onnx.GraphProto) -> Iterator[onnx.AttributeProto]:
    for node in graph.node:
        yield from node.attribute


def _sparse(attribute: onnx.AttributeProto) -> list[onnx.SparseTensorProto]:
    return [*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []), *attribute.sparse_tensors]


def _graphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
