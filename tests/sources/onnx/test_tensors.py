import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.tensors import BITS, LARGEST_DENSE, array_of, check, dense, dense_size, stored_bytes

KINDS = onnx.TensorProto


def test_every_type_but_text_has_a_size() -> None:
    assert set(BITS) == set(KINDS.DataType.values()) - {KINDS.UNDEFINED, KINDS.STRING}


@pytest.mark.parametrize("kind", sorted(BITS))
@pytest.mark.parametrize("raw", [False, True])
def test_numbers_of_every_type_are_read(kind: int, raw: bool) -> None:
    values = np.array([0, 1, 0, 1, 1]).astype(helper.tensor_dtype_to_np_dtype(kind))
    tensor = numpy_helper.from_array(values, "w") if raw else helper.make_tensor("w", kind, [5], values)
    assert tensor.HasField("raw_data") == raw
    found = array_of(tensor)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found.astype(np.complex64), values.astype(np.complex64))


@pytest.mark.parametrize("kind", sorted(BITS))
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("dims", [[6], [50], [2**40], [2**40, 2**40, 2**40], [-5], [-1, -5], [0, 2**62], [1] * 70])
def test_a_shape_that_does_not_fit_is_refused(kind: int, raw: bool, dims: list[int]) -> None:
    values = np.ones(5).astype(helper.tensor_dtype_to_np_dtype(kind))
    tensor = numpy_helper.from_array(values, "w") if raw else helper.make_tensor("w", kind, [5], values)
    if dims == [6] and not raw and BITS[kind] < 6 or dims == [6] and raw and BITS[kind] == 4:
        return  # the sixth element shares an entry with the fifth
    if dims == [6] and raw and BITS[kind] == 2:
        return
    tensor.dims[:] = dims
    with pytest.raises(SlimlineError, match="the weight 'w'"):
        array_of(tensor)


def test_bytes_are_rounded_up() -> None:
    assert stored_bytes(KINDS(data_type=KINDS.INT4, dims=[3, 3])) == 5
    assert stored_bytes(KINDS(data_type=KINDS.FLOAT6E2M3, dims=[3])) == 3
    assert stored_bytes(KINDS(data_type=KINDS.COMPLEX128, dims=[3])) == 48
    assert stored_bytes(KINDS(data_type=KINDS.FLOAT, dims=[])) == 4
    assert stored_bytes(KINDS(data_type=KINDS.FLOAT, dims=[0, 3])) == 0


def test_numbers_in_the_wrong_field_are_refused() -> None:
    tensor = KINDS(name="w", data_type=KINDS.FLOAT, dims=[2], int64_data=[1, 2])
    with pytest.raises(SlimlineError, match="needs 2 numbers and has 0"):
        check(tensor)


@pytest.mark.parametrize("kind", [KINDS.UNDEFINED, 99, -1])
def test_types_that_do_not_exist_are_refused(kind: int) -> None:
    with pytest.raises(SlimlineError, match="element type"):
        array_of(KINDS(name="w", data_type=kind, dims=[1], float_data=[1]))


def test_segments_and_files_that_were_not_read_are_refused() -> None:
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "w")
    tensor.segment.begin = 1
    with pytest.raises(SlimlineError, match="segments"):
        array_of(tensor)
    with pytest.raises(SlimlineError, match="another file"):
        array_of(KINDS(name="w", data_type=KINDS.FLOAT, dims=[2], data_location=KINDS.EXTERNAL))


def test_texts_of_very_different_lengths_take_only_their_own_memory() -> None:
    tensor = KINDS(name="w", data_type=KINDS.STRING, dims=[2, 1000])
    tensor.string_data.extend([b"x" * 1_000_000] + [b"\xff"] * 1999)
    found = array_of(tensor)
    assert found.shape == (2, 1000) and found.nbytes == 8 * 2000
    assert (len(found[0, 0]), found[1, 0]) == (1_000_000, "�")
    tensor.dims[:] = [2**40]
    with pytest.raises(SlimlineError, match="texts"):
        array_of(tensor)


def sparse(values: list[float], indices: np.ndarray, dims: list[int]) -> onnx.SparseTensorProto:
    stored = numpy_helper.from_array(np.array(values, np.float32), "s")
    return onnx.SparseTensorProto(values=stored, indices=numpy_helper.from_array(indices, "i"), dims=dims)


@pytest.mark.parametrize("indices", [np.array([1, 5]), np.array([[0, 1], [1, 2]])])
def test_zeros_of_a_sparse_tensor_are_written_out(indices: np.ndarray) -> None:
    np.testing.assert_array_equal(dense(sparse([7, 8], indices, [2, 3])), [[0, 7, 0], [0, 0, 8]])
    assert dense_size(sparse([7, 8], indices, [2, 3])) == 6


def test_an_empty_sparse_tensor_is_zeros() -> None:
    np.testing.assert_array_equal(dense(sparse([], np.zeros(0, np.int64), [2])), [0, 0])


@pytest.mark.parametrize(
    ("indices", "dims", "words"),
    [
        (np.array([1, 6]), [2, 3], "outside"),
        (np.array([-1, 0]), [2, 3], "outside"),
        (np.array([[0, 3], [0, 0]]), [2, 3], "outside"),
        (np.array([[0, -1], [0, 0]]), [2, 3], "outside"),
        (np.array([1]), [2, 3], "indices"),
        (np.zeros((2, 5), np.int64), [2, 3], "indices"),
        (np.zeros((1, 2, 1), np.int64), [2, 3], "indices"),
        (np.array([1, 2], np.int32), [2, 3], "int64"),
        (np.array([1, 2]), [LARGEST_DENSE + 1], "not written out"),
        (np.array([1, 2]), [2**62, 2**62], "too large"),
        (np.array([1, 2]), [-1], "axes"),
        (np.array([0, 0]), [0], "outside"),
    ],
)
def test_sparse_tensors_that_do_not_fit_are_refused(indices: np.ndarray, dims: list[int], words: str) -> None:
    with pytest.raises(SlimlineError, match=words):
        dense(sparse([7, 8], indices, dims))


def test_bfloat16_is_read_from_entries_of_32_bits() -> None:
    values = np.array([1.5, -2], ml_dtypes.bfloat16)
    tensor = KINDS(name="w", data_type=KINDS.BFLOAT16, dims=[2], int32_data=values.view(np.uint16).astype(np.int32))
    np.testing.assert_array_equal(array_of(tensor), values)
