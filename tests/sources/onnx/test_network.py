import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.network import from_onnx
from tests.sources.onnx import models

node = helper.make_node
RNG = np.random.default_rng(0)
MXNET = Path(__file__).parents[1] / "data" / "mxnet_cnn.onnx"


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def cnn(batch: int | str = "N", target: tuple[int, ...] = (0, -1)) -> onnx.ModelProto:
    """Convolution, pooling, Reshape to ``target``, linear; 1x6x6 in, 3 out."""
    nodes = [
        node("Conv", ["image", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]), node("Relu", ["a"], ["b"]),
        node("Reshape", ["b", "target"], ["c"]), node("Gemm", ["c", "m", "v"], ["scores"]),
    ]  # fmt: skip
    constants = {"w": numbers(4, 1, 3, 3), "target": np.array(target), "m": numbers(36, 3), "v": numbers(3)}
    return models.model(nodes, {"image": [batch, 1, 6, 6]}, ["scores"], constants)


def test_inputs_and_outputs_keep_their_names_and_the_batch_is_free(tmp_path: Path) -> None:
    network = models.check_traced(cnn(), tmp_path, numbers(3, 1, 6, 6))
    assert (network.input_names, network.output_names) == (("image",), ("scores",))
    assert network.history == ["imported from model.onnx"]


def test_without_data_an_example_is_made_up(tmp_path: Path) -> None:
    network = from_onnx(models.write(cnn(), tmp_path))
    assert {name: tuple(x.shape) for name, x in network.examples.items()} == {"image": (2, 1, 6, 6)}


def test_data_may_come_in_order_instead_of_by_name(tmp_path: Path) -> None:
    example = torch.from_numpy(numbers(5, 1, 6, 6))
    assert torch.equal(from_onnx(models.write(cnn(), tmp_path), [example]).examples["image"], example[:2])


def test_a_free_size_is_fixed_by_the_data_and_the_history_says_so(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)]
    path = models.write(models.model(nodes, {"x": ["N", "length", 3]}, ["y"], {"axes": np.array([1])}), tmp_path)
    assert from_onnx(path, [torch.ones(1, 7, 3)]).history == [
        "imported from model.onnx, axis 1 of x fixed to 7 by the data"
    ]
    with pytest.raises(SlimlineError, match=r"'x' is \['N', 'length', 3\]: give data with an example"):
        from_onnx(path)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"picture": torch.ones(2, 1, 6, 6)}, "no array for its input 'image'; it has picture"),
        ({"image": torch.ones(2, 1, 6, 7)}, r"'image' is \['N', 1, 6, 6\] and the data \[2, 1, 6, 7\]"),
        (
            {"image": torch.ones(2, 1, 6, 6, dtype=torch.int64)},
            "of type torch.float32 and the data of type torch.int64",
        ),
        ([torch.ones(2, 1, 6, 6)] * 3, "has the inputs image, but 3 arrays are given"),
    ],
)
def test_data_that_does_not_fit_is_refused(tmp_path: Path, data: object, sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        from_onnx(models.write(cnn(), tmp_path), data)  # type: ignore[arg-type]


@pytest.mark.parametrize(("batch", "target"), [(1, (1, 36)), (1, (1, -1)), (4, (4, -1)), (1, (-1, 36))])
def test_a_fixed_batch_is_freed(tmp_path: Path, batch: int, target: tuple[int, ...]) -> None:
    path = models.write(cnn(batch, target), tmp_path)
    network, x = from_onnx(path), numbers(batch, 1, 6, 6)
    (wanted,) = models.in_onnx_runtime(path, x)
    for samples in (x, np.concatenate([x, -x, x])):
        ours = network.run({"image": torch.from_numpy(samples)})[0].numpy()
        assert models.relative_error(ours[:batch], wanted) < 1e-4
    assert network.history == [f"imported from model.onnx, its batch of {batch} was freed"]


def test_a_file_that_mixes_the_samples_of_its_fixed_batch_is_refused(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", ["x", "axes"], ["m"]), node("Sub", ["x", "m"], ["y"])]
    path = models.write(models.model(nodes, {"x": [4, 3]}, ["y"], {"axes": np.array([0])}), tmp_path)
    with pytest.raises(
        SlimlineError, match="its output 'y' for a batch of 4 changes when other samples are put before it"
    ):
        from_onnx(path)


def test_zero_states_of_a_fixed_batch_are_freed(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("LSTM", ["t", "w", "r", "b", "", "h", "c"], ["s", "last"], hidden_size=3),
        node("Squeeze", ["last", "axes"], ["y"]),
    ]  # fmt: skip
    constants = {
        "w": numbers(1, 12, 2), "r": numbers(1, 12, 3), "b": numbers(1, 24), "axes": np.array([0]),
        "h": np.zeros((1, 1, 3), np.float32), "c": np.zeros((1, 1, 3), np.float32),
    }  # fmt: skip
    path = models.write(models.model(nodes, {"x": [1, 5, 2]}, ["y"], constants), tmp_path)
    network, x = from_onnx(path), numbers(3, 5, 2)
    wanted = np.concatenate([models.in_onnx_runtime(path, row[None])[0] for row in x])
    assert models.relative_error(network.run({"x": torch.from_numpy(x)})[0].numpy(), wanted) < 1e-4


def half_model() -> onnx.ModelProto:
    nodes = [
        node("Cast", ["x"], ["h"], to=onnx.TensorProto.FLOAT16), node("MatMul", ["h", "w"], ["a"]),
        node("Relu", ["a"], ["b"]), node("Cast", ["b"], ["y"], to=onnx.TensorProto.FLOAT),
    ]  # fmt: skip
    return models.model(nodes, {"x": ["N", 4]}, ["y"], {"w": numbers(4, 3).astype(np.float16)})


def test_16_bit_weights_are_widened(tmp_path: Path) -> None:
    path = models.write(half_model(), tmp_path)
    network, x = from_onnx(path), numbers(3, 4)
    assert {tensor.dtype for tensor in network.weights().values()} == {torch.float32}
    assert network.history == ["imported from model.onnx, 16-bit numbers widened to 32 bits"]
    (wanted,) = models.in_onnx_runtime(path, x)
    assert models.relative_error(network.run({"x": torch.from_numpy(x)})[0].numpy(), wanted) < 3e-3  # 11 bits there


def test_external_data_is_read(tmp_path: Path) -> None:
    path, proto = tmp_path / "model.onnx", cnn()
    wanted = models.in_onnx_runtime(proto, x := numbers(2, 1, 6, 6))
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert os.path.getsize(tmp_path / "weights.bin") > 400
    ours = from_onnx(path).run({"image": torch.from_numpy(x)})
    assert models.relative_error(ours[0].numpy(), wanted[0]) < 1e-4


def test_initializers_that_are_listed_as_inputs_are_weights_as_mxnet_writes_them(tmp_path: Path) -> None:
    proto = cnn()
    for tensor in proto.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        proto.graph.input.append(value)
    network = from_onnx(models.write(proto, tmp_path))
    assert network.input_names == ("image",)


def test_a_network_of_mxnet_equals_onnx_runtime() -> None:
    """Written by MXNet 1.9.1's own mx2onnx; tests/sources/data/README.md says how."""
    network, x = from_onnx(MXNET), RNG.random((3, 1, 28, 28)).astype(np.float32)
    session = onnxruntime.InferenceSession(MXNET.read_bytes())
    for batch in (1, 3):
        (wanted,) = session.run(None, {"data": x[:batch]})
        assert models.relative_error(network.run({"data": torch.from_numpy(x[:batch])})[0].numpy(), wanted) < 1e-4


def test_unsupported_operators_are_listed_all_at_once_with_their_nodes(tmp_path: Path) -> None:
    nodes = [node("StringNormalizer", ["x"], ["a"], name="clean"), node("Blur", ["x"], ["y"], name="b1", domain="acme")]
    proto = models.model(nodes, {"x": [2]}, ["y", "a"])
    proto.opset_import.append(helper.make_opsetid("acme", 1))
    with pytest.raises(
        SlimlineError, match=r"2 operators that are not supported: StringNormalizer \(clean\); acme::Blur"
    ):
        from_onnx(models.write(proto, tmp_path))


def test_weights_in_constant_nodes_are_weights(tmp_path: Path) -> None:
    weight = numbers(5, 3)
    nodes = [node("Constant", [], ["w"], value=numpy_helper.from_array(weight)), node("MatMul", ["x", "w"], ["y"])]
    network = models.check_traced(models.model(nodes, {"x": ["N", 5]}, ["y"]), tmp_path, numbers(3, 5))
    ((name, stored),) = network.weights().items()
    assert name.endswith(".weight") and np.array_equal(stored.detach().numpy(), weight.T)
