import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.module import OnnxModule
from slimline.sources.onnx.rewrite import rewrite
from tests.sources.onnx import models

node = helper.make_node
RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def check(proto: onnx.ModelProto, *inputs: np.ndarray) -> list[str]:
    graph = rewrite(build_graph(proto))
    with torch.no_grad():
        ours = [y.numpy() for y in OnnxModule(graph)(*(torch.from_numpy(x) for x in inputs))]
    models.assert_same(ours, models.in_onnx_runtime(proto, *inputs), 1e-5)
    return [n.kind for n in graph.nodes]


def test_a_batch_norm_written_as_arithmetic_on_constants_becomes_two_numbers_per_channel() -> None:
    nodes = [
        node("Add", ["variance", "eps"], ["a"]), node("Sqrt", ["a"], ["b"]), node("Div", ["gamma", "b"], ["scale"]),
        node("Mul", ["x", "scale"], ["c"]), node("Add", ["c", "beta"], ["y"]),
    ]  # fmt: skip
    constants = {"variance": numbers(3) ** 2, "eps": np.float32(1e-5), "gamma": numbers(3), "beta": numbers(3)}
    assert check(models.model(nodes, {"x": [2, 3]}, ["y"], constants), numbers(2, 3)) == ["Mul", "Add"]


def test_a_constant_weight_that_is_transposed_and_cast_is_a_linear_layer() -> None:
    nodes = [
        node("Cast", ["w"], ["a"], to=onnx.TensorProto.FLOAT), node("Transpose", ["a"], ["b"], perm=[1, 0]),
        node("MatMul", ["x", "b"], ["y"]),
    ]  # fmt: skip
    constants = {"w": numbers(4, 3).astype(np.float64)}
    assert check(models.model(nodes, {"x": [2, 3]}, ["y"], constants), numbers(2, 3)) == ["Linear"]


def test_integer_weights_stay_integers() -> None:
    nodes = [node("DequantizeLinear", ["q", "s", "z"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    constants = {"q": np.array([[1, -2], [3, 4]], np.int8), "s": np.float32(0.5), "z": np.int8(0)}
    graph = rewrite(build_graph(models.model(nodes, {"x": [2, 2]}, ["y"], constants)))
    assert [n.kind for n in graph.nodes][0] == "DequantizeLinear"
    assert graph.constants["q"].dtype == np.int8


@pytest.mark.parametrize(("repeats", "expected"), [(4, []), (4_000_000, ["Expand"])])
def test_a_small_constant_is_not_folded_into_a_large_one(repeats: int, expected: list[str]) -> None:
    nodes = [node("Expand", ["c", "shape"], ["e"]), node("Add", ["x", "e"], ["y"])]
    constants = {"c": np.ones((1, 2), np.float32), "shape": np.array([repeats, 2])}
    graph = rewrite(build_graph(models.model(nodes, {"x": [1, 2]}, ["y"], constants)))
    assert [n.kind for n in graph.nodes] == [*expected, "Add"]


def test_random_numbers_are_drawn_anew() -> None:
    nodes = [node("RandomNormalLike", ["c"], ["r"]), node("Add", ["x", "r"], ["y"])]
    proto = models.model(nodes, {"x": [2]}, ["y"], {"c": np.ones(2, np.float32)})
    assert [n.kind for n in rewrite(build_graph(proto)).nodes] == ["RandomNormalLike", "Add"]
