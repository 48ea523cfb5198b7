"""Stored tensors -> numpy arrays, after their size has been checked against what the file holds."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.limits import count, quoted
from slimline.sources.onnx.values import Array

BITS: dict[int, int] = {
    onnx.TensorProto.FLOAT: 32, onnx.TensorProto.DOUBLE: 64, onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16, onnx.TensorProto.FLOAT8E4M3FN: 8, onnx.TensorProto.FLOAT8E4M3FNUZ: 8,
    onnx.TensorProto.FLOAT8E5M2: 8, onnx.TensorProto.FLOAT8E5M2FNUZ: 8, onnx.TensorProto.FLOAT8E8M0: 8,
    onnx.TensorProto.FLOAT6E2M3: 6, onnx.TensorProto.FLOAT6E3M2: 6, onnx.TensorProto.FLOAT4E2M1: 4,
    onnx.TensorProto.INT8: 8, onnx.TensorProto.INT16: 16, onnx.TensorProto.INT32: 32, onnx.TensorProto.INT64: 64,
    onnx.TensorProto.UINT8: 8, onnx.TensorProto.UINT16: 16, onnx.TensorProto.UINT32: 32, onnx.TensorProto.UINT64: 64,
    onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4, onnx.TensorProto.INT2: 2, onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.BOOL: 8, onnx.TensorProto.COMPLEX64: 64, onnx.TensorProto.COMPLEX128: 128,
}  # fmt: skip
"""Of every type but text, as stored in ``raw_data`` or in an external file."""
PACKED = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1,
          onnx.TensorProto.INT2, onnx.TensorProto.UINT2)  # fmt: skip
"""Several elements share one entry of ``int32_data``."""
COMPLEX = (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)
LARGEST_DENSE = 2**28
"""Elements that sparse tensors may have when their zeros are written out: their sizes are only said, not stored."""


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that a tensor of this type and shape takes in a file.

    Raises:
        SlimlineError: no such type or shape exists, or the type is text, which has no fixed size.
    """
    elements = count(tensor.dims, title(tensor))
    if tensor.data_type not in BITS:
        names = dict(zip(onnx.TensorProto.DataType.values(), onnx.TensorProto.DataType.keys(), strict=True))
        kind = names.get(tensor.data_type, tensor.data_type)
        raise SlimlineError(f"{title(tensor)} has the element type {kind}, whose bytes cannot be read.")
    return -(-elements * BITS[tensor.data_type] // 8)


def title(tensor: onnx.TensorProto) -> str:
    """What to call a tensor in a sentence."""
    return f"the weight {quoted(tensor.name)}"


def check(tensor: onnx.TensorProto) -> None:
    """Raise unless a tensor holds as many numbers as its shape says."""
    if tensor.HasField("segment"):
        raise SlimlineError(f"{title(tensor)} is stored in segments, which no runtime reads: export the file again.")
    if tensor.data_type == onnx.TensorProto.STRING:
        need, have, unit = count(tensor.dims, title(tensor)), len(tensor.string_data), "texts"
    elif tensor.HasField("raw_data"):
        need, have, unit = stored_bytes(tensor), len(tensor.raw_data), "bytes"
    else:
        need, have, unit = stored_bytes(tensor), len(getattr(tensor, _field(tensor))), "numbers"
        if tensor.data_type not in PACKED:
            elements = count(tensor.dims, title(tensor))
            need = 2 * elements if tensor.data_type in COMPLEX else elements
    if need != have:
        raise SlimlineError(
            f"{title(tensor)} of the shape {list(tensor.dims)} needs {need:,} {unit} and has {have:,}: "
            "the file is damaged."
        )


def _field(tensor: onnx.TensorProto) -> str:
    return str(helper.tensor_dtype_to_field(tensor.data_type))


def array_of(tensor: onnx.TensorProto) -> Array:
    """The numbers of a tensor.

    Raises:
        SlimlineError: they are in another file that has not been read, or are not as many as the shape says.
    """
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise SlimlineError(f"{title(tensor)} is in another file: read the model from its path.")
    check(tensor)
    if tensor.data_type == onnx.TensorProto.STRING:
        texts = np.empty(len(tensor.string_data), object)  # an array of text would give each the length of the longest
        texts[:] = [text.decode("utf-8", "replace") for text in tensor.string_data]
        return texts.reshape(tuple(tensor.dims))
    array: Array = numpy_helper.to_array(tensor)
    return array


def dense_size(sparse: onnx.SparseTensorProto) -> int:
    """Elements of a sparse tensor with its zeros written out.

    Raises:
        SlimlineError: they are too many.
    """
    elements = count(sparse.dims, f"the sparse tensor {quoted(sparse.values.name)}")
    if elements > LARGEST_DENSE:
        raise SlimlineError(
            f"the sparse tensor {quoted(sparse.values.name)} has the shape {list(sparse.dims)}; more than "
            f"{LARGEST_DENSE:,} elements are not written out."
        )
    return elements


def dense(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse constant with its zeros written out.

    Raises:
        SlimlineError: it is too large, or its indices are not indices of its shape.
    """
    size = dense_size(sparse)
    values, indices = array_of(sparse.values), array_of(sparse.indices)
    name = quoted(sparse.values.name)
    if values.ndim != 1 or values.dtype == object or indices.dtype != np.int64:
        raise SlimlineError(f"the sparse tensor {name} has no list of numbers with int64 indices: the file is damaged.")
    if indices.shape not in ((len(values),), (len(values), len(sparse.dims))):
        raise SlimlineError(f"the sparse tensor {name} has {len(values)} values and indices {list(indices.shape)}.")
    flat = indices if indices.ndim == 1 else _flat(indices, sparse.dims, name)
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < size:
        raise SlimlineError(f"the sparse tensor {name} has indices outside its shape {list(sparse.dims)}.")
    full = np.zeros(size, values.dtype)
    full[flat] = values
    return full.reshape(tuple(sparse.dims))


def _flat(indices: Array, dims: Sequence[int], name: str) -> Array:
    sizes = np.array(dims, np.int64)
    if ((indices < 0) | (indices >= sizes)).any():
        raise SlimlineError(f"the sparse tensor {name} has indices outside its shape {list(dims)}.")
    return np.asarray(np.ravel_multi_index(tuple(indices.T), tuple(dims)))
