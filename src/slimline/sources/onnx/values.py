"""What flows between ONNX nodes while a graph is run or traced."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimline.errors import SlimlineError

Array = NDArray[Any]
MOST_FREE = 4096
"""Sizes that depend on the batch and are put into one tensor, each by an operator of its own."""
LARGEST_KNOWN = 1_000_000
"""Elements of a value that may be computed at tracing time; shapes and index lists are far smaller."""

TORCH_TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    onnx.TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    onnx.TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    onnx.TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.UINT16: torch.uint16,
    onnx.TensorProto.UINT32: torch.uint32,
    onnx.TensorProto.UINT64: torch.uint64,
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.COMPLEX64: torch.complex64,
    onnx.TensorProto.COMPLEX128: torch.complex128,
    onnx.TensorProto.INT4: torch.int8,  # one value per byte: torch computes nothing in four bits
    onnx.TensorProto.UINT4: torch.uint8,
    onnx.TensorProto.INT2: torch.int8,
    onnx.TensorProto.UINT2: torch.uint8,
}
VIEWED = {  # numpy type without a counterpart in torch.from_numpy -> (same bytes, torch type)
    np.dtype(ml_dtypes.bfloat16): (np.int16, torch.bfloat16),
    np.dtype(ml_dtypes.float8_e4m3fn): (np.uint8, torch.float8_e4m3fn),
    np.dtype(ml_dtypes.float8_e4m3fnuz): (np.uint8, torch.float8_e4m3fnuz),
    np.dtype(ml_dtypes.float8_e5m2): (np.uint8, torch.float8_e5m2),
    np.dtype(ml_dtypes.float8_e5m2fnuz): (np.uint8, torch.float8_e5m2fnuz),
}
NARROW = {  # computed with in a type that holds every value
    np.dtype(ml_dtypes.int4): np.int8,
    np.dtype(ml_dtypes.uint4): np.uint8,
    np.dtype(ml_dtypes.int2): np.int8,
    np.dtype(ml_dtypes.uint2): np.uint8,
    np.dtype(ml_dtypes.float4_e2m1fn): np.float32,
    np.dtype(ml_dtypes.float6_e2m3fn): np.float32,
    np.dtype(ml_dtypes.float6_e3m2fn): np.float32,
    np.dtype(ml_dtypes.float8_e8m0fnu): np.float32,
}


@dataclass(frozen=True)
class Known:
    """A value that is a number at tracing time: a constant, a shape, or arithmetic on shapes.

    Its entries may be symbolic sizes (`torch.SymInt`), which is how a free batch axis passes through
    Shape -> Gather -> Concat -> Reshape without becoming a tensor.
    """

    array: Array
    """Plain numbers, or an array of objects that are ints and `torch.SymInt`."""
    dtype: torch.dtype
    stored: Tensor | None = None
    """The weight or buffer of the module that holds the same numbers, when there is one."""

    def tensor(self) -> Tensor:
        """The value as a tensor."""
        if self.stored is not None:
            return self.stored
        if self.array.dtype == object:
            if self.array.size > MOST_FREE:
                raise SlimlineError(f"{self.array.size:,} sizes are computed from the batch: that is not plausible.")
            flat = [torch.full((), entry, dtype=self.dtype) for entry in self.array.reshape(-1).tolist()]
            return torch.stack(flat).reshape(self.array.shape) if flat else torch.empty(self.array.shape).to(self.dtype)
        if self.array.size == 1:  # as a fill, so that tracing leaves no nameless constant in the graph
            return torch.full(self.array.shape, self.array.reshape(-1)[0].item(), dtype=self.dtype)
        return to_tensor(self.array).to(self.dtype)


Value = Tensor | Known | None
"""None is an input that was left out."""


def known(entries: Any, dtype: torch.dtype = torch.int64) -> Known:
    """A known value from nested lists of numbers and symbolic sizes."""
    array = np.array(entries, dtype=object)
    if all(not isinstance(entry, (torch.SymInt, torch.SymFloat, torch.SymBool)) for entry in array.reshape(-1)):
        array = array.astype(numpy_type(dtype))
    if array.size > LARGEST_KNOWN:
        raise SlimlineError(f"a value of {array.size:,} entries is computed from constants: that is not plausible.")
    return Known(array, dtype)


def numpy_type(dtype: torch.dtype) -> Any:
    """The numpy type of a torch type; float32 for those that numpy lacks."""
    return np.dtype(str(dtype).removeprefix("torch.")) if hasattr(np, str(dtype).removeprefix("torch.")) else np.float32


def to_tensor(array: Array) -> Tensor:
    """A tensor with a numpy array's values; types that torch does not compute with become wider ones.

    Raises:
        SlimlineError: they are no numbers.
    """
    array = np.ascontiguousarray(array) if array.ndim else array.copy()
    if array.dtype in VIEWED:
        same_bytes, dtype = VIEWED[array.dtype]
        return torch.from_numpy(array.view(same_bytes).copy()).view(dtype)
    if array.dtype in NARROW:
        return torch.from_numpy(array.astype(NARROW[array.dtype]))
    if array.dtype.kind not in "biufc":
        raise SlimlineError(f"a value of the type {array.dtype} is no number to compute with.")
    return torch.from_numpy(array.copy())


def numbers(value: Value, what: str) -> Array:
    """The numbers of a value that an operator has to know while it is traced.

    Raises:
        SlimlineError: they depend on the data.
    """
    if isinstance(value, Known):
        return value.array
    assert isinstance(value, Tensor)
    if torch.compiler.is_exporting():
        raise SlimlineError(f"{what} depends on the data, and a network has to have the same shapes for every sample.")
    return value.detach().cpu().numpy()


def tensor(value: Value) -> Tensor | None:
    """The value as a tensor; None stays None."""
    return value.tensor() if isinstance(value, Known) else value
