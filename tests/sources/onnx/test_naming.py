import numpy as np
import pytest
from onnx import helper

from slimline.sources.onnx.graph import OnnxGraph, build_graph
from slimline.sources.onnx.naming import dotted, weight_names
from tests.sources.onnx import models

node = helper.make_node


def names(graph: OnnxGraph) -> dict[str, str]:
    found = weight_names(graph)
    return {name: found[id(array)] for name, array in graph.constants.items()}


def test_weights_are_called_after_the_layer_that_reads_them() -> None:
    nodes = [
        node("Conv", ["x", "Constant_17", "b:0"], ["h"], name="/stem/Conv"),
        node("BatchNormalization", ["h", "g", "be", "m", "v"], ["y"], name="norm"),
    ]
    constants = {name: np.ones((3, 3, 1, 1), np.float32) for name in ("Constant_17", "b:0", "g", "be", "m", "v")}
    assert names(build_graph(models.model(nodes, {"x": [1, 3, 4, 4]}, ["y"], constants))) == {
        "Constant_17": "stem.Conv.weight", "b:0": "stem.Conv.bias", "g": "norm.weight", "be": "norm.bias",
        "m": "norm.running_mean", "v": "norm.running_var",
    }  # fmt: skip


def test_a_name_that_torch_wrote_is_kept() -> None:
    nodes = [node("Conv", ["x", "layer1.0.conv.weight"], ["y"], name="/layer1/Conv")]
    graph = build_graph(
        models.model(nodes, {"x": [1, 1, 2, 2]}, ["y"], {"layer1.0.conv.weight": np.ones((1, 1, 1, 1))})
    )
    assert names(graph) == {"layer1.0.conv.weight": "layer1.0.conv.weight"}


def test_no_two_constants_share_a_name_nor_lie_below_one_another() -> None:
    nodes = [node("Add", ["x", "a.b"], ["h"]), node("Add", ["h", "a/b"], ["i"]), node("Add", ["i", "a"], ["y"])]
    constants = {name: np.ones(2, np.float32) for name in ("a.b", "a/b", "a")}
    found = list(names(build_graph(models.model(nodes, {"x": [2]}, ["y"], constants))).values())
    assert len(set(found)) == 3
    assert not any(a != b and b.startswith(a + ".") for a in found for b in found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/encoder/layer.0/MatMul:0", "encoder.layer.0.MatMul_0"),
        ("数据", "constant"),
        ("forward", "forward_"),
        ("a..b", "a.b"),
        ("x y;import os", "x_y_import_os"),
    ],
)
def test_any_text_becomes_a_path_of_identifiers(name: str, expected: str) -> None:
    assert dotted(name) == expected


def test_thousands_of_names_that_look_alike_are_numbered() -> None:
    nodes = [node("Sum", ["x", *(f"数{i}" for i in range(3000))], ["y"])]
    constants = {f"数{i}": np.ones(1, np.float32) for i in range(3000)}
    found = names(build_graph(models.model(nodes, {"x": [1]}, ["y"], constants)))
    assert len(set(found.values())) == 3000


def test_a_name_of_a_thousand_parts_lies_in_a_few_modules() -> None:
    assert dotted("a/" * 1000 + "w").count(".") < 40


def test_a_word_of_python_is_no_name() -> None:
    assert dotted("while/body.for") == "while_.body.for_"
