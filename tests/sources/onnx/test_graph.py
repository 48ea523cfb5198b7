from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxGraph, attribute, build_graph, constant_value
from tests.sources.onnx.models import FLOAT, model

W = np.ones((4, 2), np.float32)


def relu(source: str, target: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target], name=f"to_{target}", **attributes)


def built(nodes: list[onnx.NodeProto], outputs: list[str] = ["y"], **constants: np.ndarray) -> OnnxGraph:  # noqa: B006
    return build_graph(model(nodes, {"x": ["N", 4]}, outputs, constants))


def test_nodes_constants_inputs_and_outputs() -> None:
    stored = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(W))
    graph = built([stored, helper.make_node("Gemm", ["x", "k", "w"], ["y"], alpha=0.5)], w=np.zeros(2, np.float32))
    assert [(node.kind, node.inputs, node.outputs) for node in graph.nodes] == [("Gemm", ("x", "k", "w"), ("y",))]
    assert graph.nodes[0].get("alpha") == 0.5 and graph.nodes[0].get("beta", 1.0) == 1.0
    assert graph.nodes[0].opset == 23 and str(graph.nodes[0]) == "Gemm 'y'"
    np.testing.assert_array_equal(graph.constants["k"], W)
    assert [(item.name, item.shape) for item in graph.inputs] == [("x", ("N", 4))]
    assert graph.reads() == {"x", "k", "w", "y"}


def test_weights_that_old_files_list_as_inputs_are_constants() -> None:
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": [4, 2], "x": ["N", 4]}, ["y"], {"w": W})
    assert [item.name for item in build_graph(proto).inputs] == ["x"]


def test_nodes_out_of_order_are_put_in_order() -> None:
    assert [node.outputs for node in built([relu("b", "y"), relu("a", "b"), relu("x", "a")]).nodes] == [
        ("a",), ("b",), ("y",),
    ]  # fmt: skip


def test_an_output_may_be_an_input_or_a_weight() -> None:
    assert built([], ["x", "w"], w=W).outputs == ["x", "w"]


def test_free_axes_by_name_and_without() -> None:
    proto = model([relu("x", "y")], {"x": ["N", 0, -1, 3]}, ["y"])
    proto.graph.input[0].type.tensor_type.shape.dim.add()
    assert build_graph(proto).inputs[0].shape == ("N", None, None, 3, None)


def test_what_changes_no_output_is_not_read() -> None:
    proto = model([relu("x", "y")], {"x": ["N", 4]}, ["y"])
    plain = build_graph(proto)
    proto.metadata_props.add(key="k", value="v" * 1000)
    proto.graph.quantization_annotation.add(tensor_name="nowhere")
    proto.graph.value_info.append(helper.make_tensor_value_info("nowhere", FLOAT, [2**62]))
    proto.training_info.add().algorithm.node.append(relu("nowhere", "nothing"))
    assert build_graph(proto) == plain


@pytest.mark.parametrize(
    ("nodes", "outputs", "words"),
    [
        ([relu("x", "y"), relu("x", "y")], ["y"], "'to_y' writes 'y', which has a value already"),
        ([relu("x", "x")], ["x"], "writes 'x', which has a value already"),
        ([relu("x", "w")], ["w"], "writes 'w', which has a value already"),
        ([relu("a", "b"), relu("b", "a")], ["a"], "cycle"),
        ([relu("nothing", "y")], ["y"], "reads 'nothing', which nothing writes"),
        ([relu("x", "y")], ["z"], "no node writes the output 'z'"),
        ([relu("x", "y")], [""], "no node writes the output ''"),
        ([relu("x", "y")], ["y", "y"], "the output 'y' twice"),
        ([relu("x", "y")], [], "no outputs"),
        ([helper.make_node("Relu", ["x", "x"], ["y"])], ["y"], "has 2 inputs"),
        ([relu("x", "y", mode=1)], ["y"], "'mode'"),
    ],
)
def test_graphs_that_are_damaged_are_refused(nodes: list[onnx.NodeProto], outputs: list[str], words: str) -> None:
    with pytest.raises(SlimlineError, match=words):
        built(nodes, outputs, w=W)


def damage(proto: onnx.ModelProto, how: str) -> None:
    graph = proto.graph
    match how:
        case "two inputs are called 'x'":
            graph.input.append(graph.input[0])
        case "stored twice":
            graph.initializer.append(graph.initializer[0])
        case "has no name":
            graph.initializer[0].name = ""
        case "is a sequence":
            graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = FLOAT
        case "needs 32 bytes":
            graph.initializer[0].raw_data = b"123"
        case "has no type":
            graph.node[0].attribute.add(name="__note")
        case "has the type FLOAT":
            graph.node[0].attribute.add(name="transA", type=onnx.AttributeProto.FLOAT)


@pytest.mark.parametrize(
    "how",
    ["two inputs are called 'x'", "stored twice", "has no name", "is a sequence", "needs 32 bytes", "has no type",
     "has the type FLOAT"],
)  # fmt: skip
def test_damaged_parts_are_named(how: str) -> None:
    proto = model([helper.make_node("Gemm", ["x", "w"], ["y"])], {"x": ["N", 4]}, ["y"], {"w": W})
    build_graph(proto)
    damage(proto, how)
    with pytest.raises(SlimlineError, match=how):
        build_graph(proto)


def subgraph(nodes: list[onnx.NodeProto], output: str, *weights: onnx.TensorProto) -> onnx.GraphProto:
    return helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info(output, FLOAT, None)], list(weights))


def test_subgraphs_read_names_from_outside() -> None:
    then = subgraph([helper.make_node("MatMul", ["h", "k"], ["t"])], "t", numpy_helper.from_array(W, "k"))
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=subgraph([relu("w", "e")], "e"))
    graph = built([node, relu("x", "h")], c=np.array(True), w=W)  # h is written after the node whose branch reads it
    assert [found.kind for found in graph.nodes] == ["Relu", "If"]
    assert sorted(found.kind for found in graph.all_nodes()) == ["If", "MatMul", "Relu", "Relu"]
    assert graph.reads() == {"x", "c", "y", "h", "k", "t", "w", "e"}
    assert list(graph.nodes[1].attributes["then_branch"].constants) == ["k"]


def test_a_subgraph_cannot_read_what_its_node_writes() -> None:
    own = subgraph([relu("y", "t")], "t")
    with pytest.raises(SlimlineError, match="cycle"):
        built([helper.make_node("If", ["c"], ["y"], then_branch=own, else_branch=own)], c=np.array(True))


def test_attributes_are_plain_data() -> None:
    given = {
        "i": 3, "f": 0.5, "s": "tëxt", "ints": [1, 2], "floats": [0.5], "strings": ["a", "b"],
        "t": numpy_helper.from_array(W),
    }  # fmt: skip
    for name, value in given.items():
        found = attribute(helper.make_attribute(name, value), {"": 23}, set())
        expected = W if name == "t" else value
        np.testing.assert_array_equal(found, expected)
        assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("value", W, W),
        ("value_int", 3, np.array(3)),
        ("value_ints", [], np.zeros(0, np.int64)),
        ("value_float", 0.5, np.array(0.5, np.float32)),
        ("value_floats", [0.5, 1.0], np.array([0.5, 1], np.float32)),
    ],
)
def test_constants_have_the_type_their_attribute_says(name: str, value: Any, expected: np.ndarray) -> None:
    found = constant_value({name: value})
    assert found is not None and (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


def test_a_constant_text_is_no_number() -> None:
    assert constant_value({"value_string": "text"}) is None


def test_a_node_says_its_domain_and_hides_control_characters() -> None:
    proto = model([helper.make_node("Re\nlu", ["x"], ["y"], domain="mi\x1bne")], {"x": ["N", 4]}, ["y"])
    assert str(build_graph(proto).nodes[0]) == r"'mi\x1bne'::'Re\nlu' 'y'"


def test_twenty_thousand_nodes_with_attributes_are_read() -> None:
    chain = [helper.make_node("Flatten", [f"v{i}"], [f"v{i + 1}"], axis=1) for i in range(20_000)]
    assert len(build_graph(model(chain, {"v0": ["N", 4]}, ["v20000"])).nodes) == 20_000
