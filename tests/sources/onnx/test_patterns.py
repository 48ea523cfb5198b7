from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.module import OnnxModule
from slimline.sources.onnx.rewrite import rewrite
from tests.sources.onnx import models

node = helper.make_node
RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def scalar(value: float) -> np.ndarray:
    return np.float32(value)


def kinds(proto: onnx.ModelProto, *inputs: np.ndarray) -> list[str]:
    """Operators after the rewrite, once it was seen to leave the answers as the reference gives them.

    ONNX Runtime 1.31 is no reference here: it takes x / sqrt(mean(x^4)) for a layer normalisation.
    """
    graph = rewrite(build_graph(proto))
    with torch.no_grad():
        ours = [y.numpy() for y in OnnxModule(graph)(*(torch.from_numpy(x) for x in inputs))]
    names = [item.name for item in proto.graph.input]
    models.assert_same(ours, ReferenceEvaluator(proto).run(None, dict(zip(names, inputs, strict=True))), 1e-5)
    return [n.kind for n in graph.nodes]


def hard_swish_nodes(divisor: str, clip: Sequence[str] = ("low", "high")) -> list[onnx.NodeProto]:
    return [
        node("Add", ["x", "three"], ["a"]),
        node("Clip", ["a", *clip], ["b"]),
        node("Mul", ["x", "b"], ["c"]),
        node("Div", ["c", divisor], ["y"]),
    ]


HARD = {"three": scalar(3), "low": scalar(0), "high": scalar(6), "six": np.array([6.0], np.float32), "five": scalar(5)}


@pytest.mark.parametrize(("divisor", "expected"), [("six", ["HardSwish"]), ("five", ["Add", "Clip", "Mul", "Div"])])
def test_hard_swish_is_recognised_by_its_constants(divisor: str, expected: list[str]) -> None:
    proto = models.model(hard_swish_nodes(divisor), {"x": [2, 5]}, ["y"], HARD)
    assert kinds(proto, 5 * numbers(2, 5)) == expected


def test_hard_swish_with_the_division_before_the_product() -> None:
    nodes = [
        node("Add", ["three", "x"], ["a"]), node("Clip", ["a", "low", "high"], ["b"]),
        node("Div", ["b", "six"], ["c"]), node("Mul", ["c", "x"], ["y"]),
    ]  # fmt: skip
    assert kinds(models.model(nodes, {"x": [2, 5]}, ["y"], HARD), 5 * numbers(2, 5)) == ["HardSwish"]


@pytest.mark.parametrize(("alpha", "expected"), [(1 / 6, ["HardSwish"]), (0.2, ["HardSigmoid", "Mul"])])
def test_hard_sigmoid_times_its_input(alpha: float, expected: list[str]) -> None:
    nodes = [node("HardSigmoid", ["x"], ["g"], alpha=alpha), node("Mul", ["x", "g"], ["y"])]
    assert kinds(models.model(nodes, {"x": [2, 5]}, ["y"]), 5 * numbers(2, 5)) == expected


def test_an_intermediate_that_has_another_reader_stays() -> None:
    proto = models.model(hard_swish_nodes("six"), {"x": [2, 5]}, ["y", "b"], HARD)
    assert kinds(proto, 5 * numbers(2, 5)) == ["Add", "Clip", "HardSwish"]


@pytest.mark.parametrize("times_one", [False, True])
def test_swish_also_when_it_is_multiplied_by_one_first(times_one: bool) -> None:
    before = [node("Mul", ["x", "one"], ["a"])] if times_one else []
    nodes = [*before, node("Sigmoid", ["a" if times_one else "x"], ["b"]), node("Mul", ["x", "b"], ["y"])]
    proto = models.model(nodes, {"x": [2, 5]}, ["y"], {"one": np.array([1.0], np.float32)})
    assert kinds(proto, numbers(2, 5)) == ["Swish"]


def test_a_gate_of_something_else_is_no_swish() -> None:
    nodes = [node("Sigmoid", ["z"], ["b"]), node("Mul", ["x", "b"], ["y"])]
    proto = models.model(nodes, {"x": [2, 5], "z": [2, 5]}, ["y"])
    assert kinds(proto, numbers(2, 5), numbers(2, 5)) == ["Sigmoid", "Mul"]


@pytest.mark.parametrize("half_first", [False, True])
def test_gelu_from_erf(half_first: bool) -> None:
    tail = (
        [node("Mul", ["x", "half"], ["h"]), node("Mul", ["h", "e"], ["y"])]
        if half_first
        else [node("Mul", ["x", "e"], ["h"]), node("Mul", ["h", "half"], ["y"])]
    )
    nodes = [node("Div", ["x", "root"], ["a"]), node("Erf", ["a"], ["b"]), node("Add", ["b", "one"], ["e"]), *tail]
    constants = {"root": scalar(1.4142135), "one": scalar(1), "half": scalar(0.5)}
    assert kinds(models.model(nodes, {"x": [2, 5]}, ["y"], constants), numbers(2, 5)) == ["Gelu"]


def layer_norm_nodes(axis: int, squares: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [
        node("ReduceMean", ["x"], ["m"], axes=[axis]), node("Sub", ["x", "m"], ["d"]), squares,
        node("ReduceMean", ["s"], ["v"], axes=[axis]), node("Add", ["v", "eps"], ["e"]), node("Sqrt", ["e"], ["r"]),
        node("Div", ["d", "r"], ["n"]), node("Mul", ["n", "gamma"], ["g"]), node("Add", ["g", "beta"], ["y"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("axis", "squares", "expected"),
    [
        (-1, node("Pow", ["d", "two"], ["s"]), ["LayerNormalization"]),
        (-1, node("Mul", ["d", "d"], ["s"]), ["LayerNormalization"]),
        (1, node("Mul", ["d", "d"], ["s"]), None),
        (-1, node("Pow", ["d", "four"], ["s"]), None),
    ],
)
def test_layer_normalisation_over_the_last_axis(axis: int, squares: onnx.NodeProto, expected: Any) -> None:
    constants = {"eps": scalar(1e-5), "two": scalar(2), "four": scalar(4), "gamma": numbers(6), "beta": numbers(6)}
    proto = models.model(layer_norm_nodes(axis, squares), {"x": [2, 6, 6]}, ["y"], constants, opset=13)
    found = kinds(proto, numbers(2, 6, 6))
    assert found == expected if expected else "LayerNormalization" not in found


@pytest.mark.parametrize("bias_shape", [(7,), (1, 7), (4, 7)])
def test_a_product_and_a_sum_are_a_linear_layer_when_the_sum_is_a_vector(bias_shape: tuple[int, ...]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["b", "a"], ["y"])]
    proto = models.model(nodes, {"x": [3, 4, 5]}, ["y"], {"w": numbers(5, 7), "b": numbers(*bias_shape)})
    assert kinds(proto, numbers(3, 4, 5)) == (["Linear"] if bias_shape == (7,) else ["Linear", "Add"])


@pytest.mark.parametrize(
    ("attributes", "weight", "expected"),
    [
        ({}, (5, 7), "Linear"),
        ({"transB": 1}, (7, 5), "Linear"),
        ({"alpha": 0.5}, (5, 7), "Gemm"),
        ({"transA": 1}, (4, 7), "Gemm"),
    ],
)
def test_gemm(attributes: dict[str, Any], weight: tuple[int, int], expected: str) -> None:
    proto = models.model(
        [node("Gemm", ["x", "w", "b"], ["y"], **attributes)], {"x": [4, 5]}, ["y"],
        {"w": numbers(*weight), "b": numbers(1, 7)},
    )  # fmt: skip
    assert kinds(proto, numbers(4, 5)) == [expected]


def test_a_table_of_embeddings_that_is_also_the_last_weight_stays_one_constant() -> None:
    nodes = [
        node("Gather", ["table", "i"], ["x"]), node("Transpose", ["table"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["y"]),
    ]  # fmt: skip
    proto = models.model(nodes, {"i": [2, 3]}, ["y"], {"table": numbers(9, 4)}, types={"i": onnx.TensorProto.INT64})
    assert kinds(proto, np.array([[1, 2, 3], [8, 0, 4]])) == ["Gather", "Linear"]
    assert list(rewrite(build_graph(proto)).constants) == ["table"]


def test_a_matrix_that_two_layers_share_is_turned_once() -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    proto = models.model(nodes, {"x": [2, 4]}, ["y"], {"w": numbers(4, 4)})
    assert kinds(proto, numbers(2, 4)) == ["Linear", "Linear"]
    assert len(rewrite(build_graph(proto)).constants) == 1


@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1)])
@pytest.mark.parametrize("kind", ["Mul", "Add", "Sub", "Div"])
def test_arithmetic_behind_a_convolution_becomes_its_weights(kind: str, shape: tuple[int, ...]) -> None:
    nodes = [node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]), node(kind, ["a", "c"], ["y"])]
    constants = {"w": numbers(6, 3, 3, 3), "c": np.asarray(numbers(*shape) + 2, dtype=np.float32)}
    proto = models.model(nodes, {"x": [2, 3, 5, 5]}, ["y"], constants)
    assert kinds(proto, numbers(2, 3, 5, 5)) == ["Conv"]


@pytest.mark.parametrize("kind", ["Sub", "Div"])
def test_a_number_minus_or_by_a_convolution_is_left_alone(kind: str) -> None:
    nodes = [node("Conv", ["x", "w"], ["a"]), node(kind, ["c", "a"], ["y"])]
    proto = models.model(nodes, {"x": [2, 3, 5, 5]}, ["y"], {"w": numbers(6, 3, 3, 3), "c": scalar(2)})
    assert kinds(proto, numbers(2, 3, 5, 5)) == ["Conv", kind]


@pytest.mark.parametrize(("pads", "expected"), [([0] * 4, ["Conv"]), ([1] * 4, ["Mul", "Add", "Conv"])])
def test_arithmetic_before_a_convolution_moves_into_it_only_without_padding(
    pads: list[int], expected: list[str]
) -> None:
    nodes = [
        node("Mul", ["x", "c"], ["a"]),
        node("Add", ["a", "d"], ["b"]),
        node("Conv", ["b", "w", "e"], ["y"], pads=pads),
    ]
    constants = {"w": numbers(4, 3, 3, 3), "c": scalar(1.5), "d": np.array([-0.7], np.float32), "e": numbers(4)}
    assert kinds(models.model(nodes, {"x": [2, 3, 5, 5]}, ["y"], constants), numbers(2, 3, 5, 5)) == expected


def test_a_long_chain_of_arithmetic_before_a_linear_layer_moves_into_it() -> None:
    nodes = [node("Mul" if i % 2 else "Add", [f"v{i}", "c"], [f"v{i + 1}"]) for i in range(2000)]
    proto = models.model([*nodes, node("MatMul", ["v2000", "w"], ["y"])], {"v0": [2, 3]}, ["y"],
                         {"c": scalar(0.999), "w": numbers(3, 2)})  # fmt: skip
    graph = rewrite(build_graph(proto))
    assert [n.kind for n in graph.nodes] == ["Linear"]
    x = numbers(2, 3)
    with torch.no_grad():
        (ours,) = (y.numpy() for y in OnnxModule(graph)(torch.from_numpy(x)))
    models.assert_same([ours], models.in_onnx_runtime(proto, x))


def test_squares_of_squares_are_looked_through_only_so_far() -> None:
    nodes = [node("Mul", [f"v{i}", f"v{i}"], [f"v{i + 1}"]) for i in range(100)]
    graph = rewrite(build_graph(models.model(nodes, {"v0": [2]}, ["v100"])))
    assert [n.kind for n in graph.nodes] == ["Mul"] * 100
