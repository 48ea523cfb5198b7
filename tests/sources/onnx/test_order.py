import onnx
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.order import in_order, reads


def node(text: str) -> onnx.NodeProto:
    """``y = a b`` is a node called y that reads a and b."""
    output, _, inputs = text.partition("=")
    return helper.make_node("Sum", inputs.split(), [output.strip()], name=output.strip())


def ordered(*texts: str) -> list[str]:
    return [found.name for found in in_order([node(text) for text in texts], {"x"})]


def test_a_graph_in_order_stays_as_it_is() -> None:
    assert ordered("b = x", "a = x", "c = a b") == ["b", "a", "c"]


def test_a_graph_out_of_order_is_put_in_order_and_otherwise_kept() -> None:
    assert ordered("d = c", "b = x", "c = a b", "a = x", "e = x") == ["b", "a", "c", "d", "e"]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a = a"], "cycle of 1 nodes, .*: 'a'"),
        (["s = x", "a = c s", "b = a", "c = b", "end = c"], "cycle of 3 nodes"),
        (["end = c", "a = c x", "b = a", "c = b"], "'c' -> 'a' -> 'b'|'a' -> 'b' -> 'c'|'b' -> 'c' -> 'a'"),
        (["a = nothing"], "reads 'nothing', which nothing writes"),
    ],
)
def test_cycles_and_values_from_nowhere_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(SlimlineError, match=words):
        ordered(*texts)


def branches(*inner: str) -> onnx.NodeProto:
    graph = helper.make_graph([node(text) for text in inner], "g", [], [])
    return helper.make_node("If", ["x"], ["y"], name="y", then_branch=graph, else_branch=graph)


def test_what_a_subgraph_takes_from_outside_counts() -> None:
    assert set(reads(branches("p = a x", "q = p"))) == {"x", "a"}
    order = in_order([branches("p = a x", "q = p"), node("a = x")], {"x"})
    assert [found.name for found in order] == ["a", "y"]
    with pytest.raises(SlimlineError, match="cycle"):
        in_order([branches("p = a x", "q = p"), node("a = y")], {"x"})


def test_ten_thousand_nodes_in_reverse() -> None:
    chain = [node(f"v{i + 1} = v{i}") for i in range(10_000)]
    assert [found.name for found in in_order(chain[::-1], {"v0"})] == [found.name for found in chain]
