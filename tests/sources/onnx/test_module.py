from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from slimline.errors import SlimlineError
from slimline.network.trace import trace
from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.module import OnnxModule
from tests.sources.onnx.models import FLOAT, check_eager, check_traced, eager, model

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
W = np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2)


def module(nodes: list[onnx.NodeProto], outputs: list[str] = ["y"], **constants: np.ndarray) -> OnnxModule:  # noqa: B006
    return OnnxModule(build_graph(model(nodes, {"x": ["N", 4]}, outputs, constants)))


def test_weights_are_parameters_and_numbers_are_buffers(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Mul", ["h", "two"], ["y"])]
    constants = {"w": W, "b": np.ones(2, np.float32), "two": np.float32(2)}
    found = module(nodes, **constants)
    assert sorted(p.numel() for p in found.parameters()) == [2, 8]
    check_traced(model(nodes, {"x": ["N", 4]}, ["y"], constants), tmp_path, X)


def test_outputs_that_are_an_input_or_a_weight(tmp_path: Path) -> None:
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, ["x", "y", "w"], {"w": W})
    ours = OnnxModule(build_graph(proto))(torch.from_numpy(X))
    np.testing.assert_array_equal(ours[0].numpy(), X)
    np.testing.assert_allclose(ours[1].detach().numpy(), X @ W, rtol=1e-6)
    np.testing.assert_array_equal(ours[2].detach().numpy(), W)


def test_an_input_that_nothing_reads_stays_an_input(tmp_path: Path) -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"unused": ["N", 2], "x": ["N", 4]}, ["y"])
    assert check_traced(proto, tmp_path, X[:, :2].copy(), X).input_names == ("unused", "x")


def test_an_output_of_an_optional_result() -> None:
    nodes = [helper.make_node("Dropout", ["x"], ["y", "mask"])]
    check_eager(model(nodes, {"x": [3, 4]}, ["y", "mask"], types={"mask": onnx.TensorProto.BOOL}), X)


def test_branches_see_the_values_around_them() -> None:
    def branch(kind: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info("z", FLOAT, None)
        return helper.make_graph([helper.make_node(kind, ["h", "w"], ["z"])], kind, [], [value])

    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("MatMul"), else_branch=branch("Gemm")),
    ]
    for condition in (True, False):
        check_eager(model(nodes, {"x": ["N", 4]}, ["y"], {"c": np.array(condition), "w": W}), X)


def test_all_unsupported_operators_are_listed_at_once() -> None:
    nodes = [helper.make_node("New", ["x"], [f"a{i}"], name=f"n{i}") for i in range(7)]
    nodes += [
        helper.make_node("Other\n", ["x"], ["b"], domain="mine"),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    with pytest.raises(SlimlineError) as error:
        module(nodes)
    expected = r"it uses 2 operators that are not supported: New (n0, n1, n2, n3, n4 and 2 more); mine::'Other\n' (b)."
    assert str(error.value) == expected


def test_text_that_nothing_reads_does_no_harm() -> None:
    text = np.array(["a", "b"], object)
    found = module([helper.make_node("Relu", ["x"], ["y"])], unread=text)
    np.testing.assert_array_equal(found(torch.from_numpy(X))[0].numpy(), np.maximum(X, 0))


def test_text_that_a_node_reads_is_refused() -> None:
    found = module([helper.make_node("Add", ["x", "text"], ["y"])], text=np.array(["a"], object))
    with pytest.raises(SlimlineError, match="the node Add 'y' reads 'text', which is text"):
        found(torch.from_numpy(X))


def loop(turns: int, body: list[onnx.NodeProto], result: str) -> onnx.ModelProto:
    """``body`` reads v and writes a result that is v of the next turn."""
    flag = helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, [])
    inner = helper.make_graph(
        body,
        "body",
        [
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            flag,
            helper.make_tensor_value_info("v", FLOAT, None),
        ],
        [flag, helper.make_tensor_value_info(result, FLOAT, None)],
    )
    node = helper.make_node("Loop", ["turns", "", "x"], ["y"], body=inner)
    return model([node], {"x": ["N", 4]}, ["y"], {"turns": np.array(turns)})


def test_loops_run_as_often_as_they_say() -> None:
    check_eager(loop(5, [helper.make_node("Add", ["v", "x"], ["u"])], "u"), X)


@pytest.mark.parametrize("turns", [2**62, 9_999])
def test_loops_that_would_never_end_are_refused(turns: int) -> None:
    body = [helper.make_node("Relu", [f"v{i}" if i else "v"], [f"v{i + 1}"]) for i in range(50)]
    with pytest.raises(SlimlineError, match="loops run more than|is too often"):
        eager(loop(turns, body, "v50"), X[:1])


def test_a_loop_without_nodes_ends_too() -> None:
    inner = loop(9_999, [], "v").graph.node[0]
    outer = loop(9_999, [inner], "y")
    del outer.graph.node[0].attribute[0].g.node[0].input[2:]
    outer.graph.node[0].attribute[0].g.node[0].input.append("v")
    with pytest.raises(SlimlineError, match="loops run more than|is too often"):
        eager(outer, X[:1])


@pytest.mark.parametrize(
    ("kind", "constants"),
    [
        ("Expand", {"s": np.array([2**40, 1, 4])}),
        ("Tile", {"s": np.array([1, 2**40])}),
        ("Tile", {"s": np.array([2**30, 2**30])}),
        ("Pad", {"s": np.array([0, 0, 0, 2**40])}),
        ("Resize", {"s": np.array([1, 2**40], np.float32)}),
    ],
)
def test_values_that_would_fill_the_memory_are_refused(kind: str, constants: dict[str, np.ndarray]) -> None:
    inputs = ["x", "", "s"] if kind == "Resize" else ["x", "s"]
    with pytest.raises(SlimlineError) as error:
        trace(module([helper.make_node(kind, inputs, ["y"])], **constants), {"x": torch.from_numpy(X)})
    assert kind in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize(
    ("kind", "constants"),
    [
        ("ConstantOfShape", {"a": np.array([2**20, 2**20])}),
        ("Range", {"a": np.array(0), "b": np.array(2**40), "c": np.array(1)}),
        ("Range", {"a": np.array(0.0), "b": np.array(1.0), "c": np.array(1e-15)}),
        ("Expand", {"a": np.ones(4, np.float32), "b": np.array([2**40, 4])}),
        ("Tile", {"a": np.ones(4, np.float32), "b": np.array([2**40])}),
        ("OneHot", {"a": np.array([1, 2]), "b": np.array(2**40), "c": np.array([0.0, 1.0])}),
        ("HannWindow", {"a": np.array(2**40)}),
    ],
)
def test_constants_that_would_fill_the_memory_are_refused(kind: str, constants: dict[str, np.ndarray]) -> None:
    nodes = [helper.make_node(kind, list(constants), ["k"]), helper.make_node("Shape", ["k"], ["y"])]
    with pytest.raises(SlimlineError) as error:
        trace(module(nodes, ["y", "x"], **constants), {"x": torch.from_numpy(X)})
    assert kind in str(error.value) and str(error.value).isprintable()
