"""What operators are given, and which of them may be shared or computed once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx import Graph, Node

from slimline.methods.simplify.calls import (
    axes_order,
    draws,
    is_pure,
    is_quantised,
    let_views_copy_,
    value_readers,
    why_not_replace,
)
from tests.methods.simplify.equality import Does, count, network_of
from tests.runtimes.networks import Quantized, traced

aten = torch.ops.aten


def call(target: object, *args: object, **kwargs: object) -> Node:
    """A call of an operator on an input x and the other arguments."""
    graph = Graph()
    return graph.call_function(target, (graph.placeholder("x"), *args), kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "now", "in_training"),
    [
        (call(aten.dropout.default, 0.5, False), False, True),
        (call(aten.dropout.default, 0.5, True), True, True),
        (call(aten.dropout.default, 0.0, True), False, False),
        (call(aten.rand_like.default), True, True),
        (call(aten.bernoulli.default), True, True),
        (call(aten.rrelu.default, 0.1, 0.3, False), False, True),
        (call(aten.scaled_dot_product_attention.default, "k", "v"), False, False),
        (call(aten.scaled_dot_product_attention.default, "k", "v", None, 0.1), True, True),
        (call(aten.relu.default), False, False),
    ],
)
def test_what_draws_random_numbers(node: Node, now: bool, in_training: bool) -> None:
    assert draws(node) is now and draws(node, in_training=True) is in_training
    assert is_pure(node) is not now


def norm(training: bool, statistics: object = "m") -> Node:
    return call(aten.batch_norm.default, "w", "b", statistics, statistics, training, 0.1, 1e-5, False)


@pytest.mark.parametrize(
    ("node", "pure"),
    [
        (norm(training=False), True),
        (norm(training=True), False),
        (norm(training=True, statistics=None), True),
        (call(aten.empty_like.default), False),
        (call(aten.relu_.default), False),
        (call(torch.relu), False),
        (call(aten.sym_size.int, 0), True),
    ],
)
def test_what_is_pure(node: Node, pure: bool) -> None:
    assert is_pure(node) is pure


ORDERS: list[tuple[Node, Callable[[Tensor], Tensor]]] = [
    (call(aten.permute.default, [0, -1, 1, 2]), lambda x: x.permute(0, -1, 1, 2)),
    (call(aten.transpose.int, -1, 1), lambda x: x.transpose(-1, 1)),
    (call(aten.swapaxes.default, 0, 2), lambda x: x.swapaxes(0, 2)),
    (call(aten.mT.default), lambda x: x.mT),
]


@pytest.mark.parametrize(("node", "does"), ORDERS)
def test_the_order_of_axes_is_that_of_torch(node: Node, does: Callable[[Tensor], Tensor]) -> None:
    sizes = torch.Size([2, 3, 5, 7])
    order = axes_order(node, 4)
    assert order is not None and [sizes[axis] for axis in order] == list(does(torch.empty(sizes)).shape)


def test_other_calls_have_no_order() -> None:
    assert axes_order(call(aten.view.default, [1]), 4) is None and axes_order(call(aten.t.default), 1) is None


def test_sizes_are_no_values() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    graph.call_function(aten.sym_size.int, (x, 0))
    reader = graph.call_function(aten.relu.default, (x,))
    assert value_readers(x) == [reader] and len(x.users) == 2


def test_views_copy_where_memory_lies_in_another_order() -> None:
    network = network_of(Does(lambda x: x.transpose(1, 2).contiguous().view(x.shape[0], -1)), 3, 4)
    graph = network.module.graph
    (contiguous,) = graph.find_nodes(op="call_function", target=aten.contiguous.default)
    contiguous.replace_all_uses_with(contiguous.args[0])
    network.tidy_()
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        network.run(network.examples)
    let_views_copy_(network)
    network.tidy_().verify()
    assert count(network, "view") == 0 and count(network, "reshape") == 1


def test_quantise_pairs_are_known() -> None:
    nodes = traced(Quantized()).module.graph.nodes
    found = {str(n.target) for n in nodes if is_quantised(n)}
    assert len(found) == 3 and all("quantize_per" in name for name in found)


def test_an_output_does_not_become_an_input() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    one = graph.call_function(aten.relu.default, (x,))
    two = graph.call_function(aten.relu.default, (one,))
    graph.output((two,))
    assert why_not_replace(two, x) and not why_not_replace(two, one) and not why_not_replace(one, x)
