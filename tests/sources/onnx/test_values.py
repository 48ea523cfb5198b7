import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch.export import Dim, export

from slimline.errors import SlimlineError
from slimline.sources.onnx.tensors import BITS
from slimline.sources.onnx.values import (
    LARGEST_KNOWN,
    MOST_FREE,
    TORCH_TYPES,
    Known,
    known,
    numbers,
    numpy_type,
    tensor,
    to_tensor,
)


@pytest.mark.parametrize("kind", sorted(BITS))
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_numbers_of_every_type_become_tensors(kind: int, shape: tuple[int, ...]) -> None:
    values = np.ones(shape).astype(helper.tensor_dtype_to_np_dtype(kind))
    found = to_tensor(values)
    assert tuple(found.shape) == shape and found.dtype == TORCH_TYPES.get(kind, torch.float32)
    np.testing.assert_array_equal(found.to(torch.complex64).numpy(), values.astype(np.complex64))


@pytest.mark.parametrize("name", ["float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e8m0fnu", "int4", "uint2"])
def test_narrow_types_keep_every_value(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    bits = {"float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6, "float8_e8m0fnu": 8, "int4": 4, "uint2": 2}[
        name
    ]
    values = np.arange(2**bits, dtype=np.uint8).view(dtype)
    if name == "int4":
        values = np.arange(-8, 8).astype(dtype)
    np.testing.assert_array_equal(to_tensor(values).numpy().astype(np.float64), values.astype(np.float64))


def test_a_tensor_shares_nothing_with_its_array() -> None:
    array = np.zeros(3, np.float32)
    to_tensor(array)[0] = 1
    assert array[0] == 0
    assert to_tensor(np.zeros((4, 3), np.float32).T).is_contiguous()


@pytest.mark.parametrize("array", [np.array(["text"]), np.array(["text"], object), np.zeros(2, "M8[s]")])
def test_what_is_no_number_is_refused(array: np.ndarray) -> None:
    with pytest.raises(SlimlineError, match="no number"):
        to_tensor(array)


def test_known_values_are_tensors_when_needed() -> None:
    stored = torch.ones(2)
    assert Known(np.ones(2), torch.float32, stored).tensor() is stored
    for entries in (3, [3], [[1, 2]], [[], []]):
        found = known(entries).tensor()
        assert (found.tolist(), found.dtype) == (entries, torch.int64)
    assert known([1.5, 2.0], torch.float16).tensor().dtype == torch.float16
    assert tensor(None) is None and tensor(stored) is stored and tensor(known(3)).item() == 3


class Free(torch.nn.Module):
    """Makes a tensor of the free batch size, and refuses too many of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch = x.shape[0]
        with pytest.raises(SlimlineError, match="computed from the batch"):
            known([batch] * (MOST_FREE + 1)).tensor()
        with pytest.raises(SlimlineError, match="the shape depends on the data"):
            numbers(x, "the shape")
        return x + known([batch, 2 * batch, 3]).tensor()


def test_free_sizes_stay_free() -> None:
    exported = export(Free(), (torch.zeros(5, 3),), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    assert exported.module(check_guards=False)(torch.zeros(7, 3))[0].tolist() == [7, 14, 3]


def test_too_many_known_values_are_refused() -> None:
    with pytest.raises(SlimlineError, match="1,000,001 entries"):
        known(np.zeros(LARGEST_KNOWN + 1, np.int8))


def test_numbers_of_known_values_and_tensors() -> None:
    assert numbers(known([1, 2]), "it").tolist() == [1, 2]
    assert numbers(torch.tensor([1, 2], requires_grad=False), "it").tolist() == [1, 2]


def test_types_have_their_numpy_counterparts() -> None:
    for kind, dtype in TORCH_TYPES.items():
        if kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.COMPLEX64):
            assert numpy_type(dtype) == helper.tensor_dtype_to_np_dtype(kind)
    assert numpy_type(torch.bfloat16) == np.float32
