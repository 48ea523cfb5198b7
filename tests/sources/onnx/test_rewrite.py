import numpy as np
import onnx
from onnx import helper

from slimline.sources.onnx.graph import build_graph
from slimline.sources.onnx.rewrite import rewrite
from tests.sources.onnx import models

node = helper.make_node


def test_what_no_output_depends_on_is_dropped_with_its_constants() -> None:
    nodes = [node("Add", ["x", "c"], ["dead"]), node("Relu", ["x"], ["y"])]
    graph = rewrite(build_graph(models.model(nodes, {"x": [2]}, ["y"], {"c": np.ones(2, np.float32)})))
    assert [n.kind for n in graph.nodes] == ["Relu"] and graph.constants == {}


def test_identities_vanish_except_where_they_name_an_output() -> None:
    nodes = [node("Identity", ["x"], ["a"]), node("Relu", ["a"], ["b"]), node("Identity", ["b"], ["y"])]
    graph = rewrite(build_graph(models.model(nodes, {"x": [2]}, ["y"])))
    assert [(n.kind, n.inputs) for n in graph.nodes] == [("Relu", ("x",)), ("Identity", ("b",))]


def test_a_value_that_only_a_branch_reads_stays() -> None:
    branch = helper.make_graph(
        [node("Neg", ["a"], ["n"])], "branch", [], [helper.make_tensor_value_info("n", onnx.TensorProto.FLOAT, None)]
    )
    nodes = [node("Relu", ["x"], ["a"]), node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    proto = models.model(nodes, {"x": [2], "c": []}, ["y"], types={"c": onnx.TensorProto.BOOL})
    assert [n.kind for n in rewrite(build_graph(proto)).nodes] == ["Relu", "If"]
