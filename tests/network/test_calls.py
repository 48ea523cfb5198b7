"""What calls are given, by place and by name, and who reads a stored tensor."""

import torch
from torch import nn
from torch.fx import Graph, Node

from slimline.network.calls import argument, arguments, called, readers_of, set_argument_
from slimline.network.trace import trace

aten = torch.ops.aten


def call(target: object, *args: object, **kwargs: object) -> Node:
    """A call of an operator on an input x and the other arguments."""
    graph = Graph()
    return graph.call_function(target, (graph.placeholder("x"), *args), kwargs)  # type: ignore[arg-type]


def test_arguments_have_names_and_defaults() -> None:
    given = arguments(call(aten.conv2d.default, "w", None, [2, 2], groups=3))
    assert {name: given[name] for name in given if name != "input"} == {
        "weight": "w", "bias": None, "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1], "groups": 3,
    }  # fmt: skip
    node = call(aten.slice.Tensor)
    assert arguments(node) == {"self": node.args[0], "dim": 0, "start": None, "end": None, "step": 1}


def test_arguments_are_found_and_changed_where_they_stand() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_function(torch.ops.aten.softmax.int, (x, 1), {"dtype": None})
    assert (argument(node, 1, "dim"), argument(node, 2, "half", 5)) == (1, 5)
    set_argument_(node, 1, "dim", 2)
    set_argument_(node, 2, "dtype", torch.float64)
    assert node.args == (x, 2) and node.kwargs == {"dtype": torch.float64}


def test_a_call_is_told_by_operator_and_name() -> None:
    assert called(call(aten.relu.default)) == "relu.default (relu_default)"


def test_readers_are_found_through_every_node_of_a_weight() -> None:
    network = trace(nn.Linear(3, 3), [torch.randn(2, 3)])
    graph = network.module.graph
    (linear,) = graph.find_nodes(op="call_function", target=aten.linear.default)
    name = str(linear.args[1].target)
    assert readers_of(network, name) == [linear]
    with graph.inserting_before(linear):
        again = graph.get_attr(name)
    linear.args = (graph.call_function(aten.add.Tensor, (linear.args[0], again)), *linear.args[1:])
    assert len(readers_of(network, name)) == 2
