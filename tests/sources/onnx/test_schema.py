from typing import Any

import onnx
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.schema import check_node, label, opsets_of, refuse_old, schema
from tests.sources.onnx.models import model

NEWEST = onnx.defs.onnx_opset_version()


def node(kind: str, inputs: int = 1, outputs: int = 1, **attributes: Any) -> onnx.NodeProto:
    names = [f"x{i}" for i in range(inputs)], [f"y{i}" for i in range(outputs)]
    return helper.make_node(kind, *names, name="n", **attributes)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (node("Conv", 1), "lacks its input 1 \\(W\\)"),
        (node("Conv", 0), "lacks its input 0 \\(X\\)"),
        (node("Conv", 4), "has 4 inputs; at most 3"),
        (node("Relu", 2), "has 2 inputs"),
        (node("Relu", 1, 2), "has 2 outputs"),
        (node("Relu", 1, 0), "has 0 outputs"),
        (helper.make_node("Conv", ["", "w"], ["y"], name="n"), "lacks its input 0"),
        (helper.make_node("Relu", ["x"], [""], name="n"), "has 0 outputs"),
        (node("Conv", 2, strides=2), "'strides' has the type INT instead of INTS"),
        (node("Conv", 2, strides=[1.5, 1.5]), "'strides' has the type FLOATS instead of INTS"),
        (node("Conv", 2, stride=[1, 1]), "'stride', which opset 22 does not define"),
        (node("Gemm", 2, alpha=1), "'alpha' has the type INT instead of FLOAT"),
        (node("Softmax", axis="x"), "'axis' has the type STRING"),
        (node("Concat", 2), "lacks the attribute 'axis'"),
        (node("Constant", 0), "has 0 values"),
        (node("Constant", 0, value_int=1, value_float=1.0), "has 2 values"),
        (node("If", 1, then_branch=1, else_branch=1), "instead of GRAPH"),
    ],
)
def test_nodes_that_do_not_fit_their_definition_are_refused(wrong: onnx.NodeProto, words: str) -> None:
    with pytest.raises(SlimlineError, match=words):
        check_node(wrong, 23)


@pytest.mark.parametrize(
    "right",
    [
        node("Conv", 3, strides=[1, 1]),
        node("Concat", 100, axis=0),
        node("Clip", 1),
        helper.make_node("Clip", ["x", "", "high"], ["y"]),
        helper.make_node("Resize", ["x", "", "scales", "", "", "", ""], ["y"]),
        helper.make_node("LSTM", ["x", "w", "r"], ["", "h"]),
        node("Relu", 1, 1, __note=3),
        node("Nothing", 9, 9, whatever=1),
        helper.make_node("Conv", ["x"], ["y"], domain="com.microsoft"),
    ],
)
def test_nodes_that_fit_or_are_unknown_pass(right: onnx.NodeProto) -> None:
    check_node(right, 23)


def test_an_attribute_that_is_given_twice_is_refused() -> None:
    twice = node("Softmax", axis=1)
    twice.attribute.append(twice.attribute[0])
    with pytest.raises(SlimlineError, match="'axis' twice"):
        check_node(twice, 23)


def test_definitions_follow_the_opset() -> None:
    check_node(node("ReduceSum", axes=[1]), 11)  # axes became an input with opset 13
    with pytest.raises(SlimlineError, match="'axes'"):
        check_node(node("ReduceSum", axes=[1]), 13)
    for opset in (7, 13, 20, NEWEST):
        assert schema("Relu", opset).since_version == onnx.defs.get_schema("Relu", opset, "").since_version


def test_operators_from_before_or_after_their_time_keep_their_nearest_meaning() -> None:
    assert schema("Gelu", 13).since_version == 20  # as ONNX Runtime writes when it fuses
    assert schema("Upsample", 13).since_version == 9  # deprecated with 10
    assert schema("Nothing", 13) is None


def opsets(*pairs: tuple[str, int]) -> onnx.ModelProto:
    proto = model([node("Relu")], {"x0": ["N"]}, ["y0"])
    del proto.opset_import[:]
    proto.opset_import.extend(helper.make_opsetid(*pair) for pair in pairs)
    return proto


def test_both_names_of_the_default_domain_are_one() -> None:
    assert opsets_of(opsets(("ai.onnx", 12), ("mine", 3))) == {"": 12, "mine": 3}
    assert opsets_of(opsets(("", 12), ("ai.onnx", 12))) == {"": 12}


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "does not say"),
        ([("mine", 1)], "does not say"),
        ([("", 12), ("ai.onnx", 13)], "two versions"),
        ([("", NEWEST + 1)], f"knows up to {NEWEST}: update onnx"),
        ([("", 2**62)], "update onnx"),
    ],
)
def test_versions_that_are_unknown_are_refused(pairs: list[tuple[str, int]], words: str) -> None:
    with pytest.raises(SlimlineError, match=words):
        opsets_of(opsets(*pairs))


@pytest.mark.parametrize("version", [-1, 0, 1, 6])
def test_old_versions_are_refused(version: int) -> None:
    with pytest.raises(SlimlineError, match="older than 7"):
        refuse_old(opsets(("", version)))
    refuse_old(opsets(("", 7)))


def test_a_node_without_a_name_is_called_by_its_output() -> None:
    assert label(helper.make_node("Relu", ["x"], ["y"])) == "the node Relu 'y'"
    assert label(helper.make_node("Re\nlu", ["x"], ["y"])) == r"the node 'Re\nlu' 'y'"
