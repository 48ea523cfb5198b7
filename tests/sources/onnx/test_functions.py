import onnx
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.functions import calls, inlined
from tests.sources.onnx.models import FLOAT, model

DOMAIN = "mine"


def with_functions(**bodies: list[str]) -> onnx.ModelProto:
    """A model that calls the first function; each function is a chain of the operators or functions it names."""
    proto = model([helper.make_node(next(iter(bodies)), ["x"], ["y"], domain=DOMAIN)], {"x": ["N", 4]}, ["y"])
    opsets = [*proto.opset_import, helper.make_opsetid(DOMAIN, 1)]
    proto.opset_import.append(opsets[-1])
    for name, chain in bodies.items():
        nodes = [
            helper.make_node(kind, [f"v{i}"], [f"v{i + 1}"], domain=DOMAIN if kind in bodies else "")
            for i, kind in enumerate(chain)
        ]
        proto.functions.append(helper.make_function(DOMAIN, name, ["v0"], [f"v{len(chain)}"], nodes, opsets))
    return proto


def test_bodies_take_the_place_of_calls() -> None:
    proto = inlined(with_functions(F=["Relu", "G", "Neg", "G"], G=["Abs", "Exp"]))
    assert [node.op_type for node in proto.graph.node] == ["Relu", "Abs", "Exp", "Neg", "Abs", "Exp"]


def test_a_model_without_functions_is_left_alone() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, ["y"])
    assert inlined(proto) is proto


@pytest.mark.parametrize("bodies", [{"F": ["F"]}, {"F": ["G"], "G": ["H"], "H": ["Relu", "G"]}])
def test_recursion_is_refused(bodies: dict[str, list[str]]) -> None:
    with pytest.raises(SlimlineError, match="calls itself"):
        inlined(with_functions(**bodies))


def test_recursion_within_a_subgraph_is_refused() -> None:
    proto = with_functions(F=["Relu"])
    inner = helper.make_graph(
        [helper.make_node("F", ["v0"], ["z"], domain=DOMAIN)],
        "g",
        [],
        [helper.make_tensor_value_info("z", FLOAT, None)],
    )
    proto.functions[0].node.append(helper.make_node("If", ["c"], ["v9"], then_branch=inner, else_branch=inner))
    with pytest.raises(SlimlineError, match="F -> F"):
        inlined(proto)


def test_functions_that_multiply_are_refused() -> None:
    chain = {f"F{i}": [f"F{i + 1}"] * 10 for i in range(20)}  # 10**20 nodes in a file of a few kilobytes
    with pytest.raises(SlimlineError, match="100,000,000,000,000,000,000 nodes"):
        inlined(with_functions(**chain, F20=["Relu"]))


def test_a_long_chain_of_functions_is_no_recursion() -> None:
    chain = {f"F{i}": [f"F{i + 1}"] for i in range(90)}
    assert [node.op_type for node in inlined(with_functions(**chain, F90=["Relu"])).graph.node] == ["Relu"]


def test_a_chain_that_onnx_does_not_follow_is_refused() -> None:
    chain = {f"F{i}": [f"F{i + 1}"] for i in range(3000)}
    with pytest.raises(SlimlineError, match="cannot be put in place"):
        inlined(with_functions(**chain, F3000=["Relu"]))


def test_a_function_that_is_defined_twice_is_refused() -> None:
    proto = with_functions(F=["Relu"])
    proto.functions.append(proto.functions[0])
    with pytest.raises(SlimlineError, match="twice"):
        inlined(proto)


def test_calls_are_counted_in_subgraphs() -> None:
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "g", [], [])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    assert calls(iter(nodes)) == {("", "If", ""): 1, ("", "Relu", ""): 2}
