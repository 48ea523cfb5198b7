"""Scales and shifts per channel, against what torch computes with them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.methods.simplify.channel_affine import Affine, Plan, affine_of, data_of, moved, plan_before, plan_behind
from slimline.methods.simplify.channel_affine import table as table_of
from slimline.methods.simplify.free_shapes import free_shapes
from slimline.network.network import Network
from tests.methods.simplify.equality import Constant, Does, network_of

ARITHMETIC: list[Callable[[Tensor, nn.Module], Tensor]] = [
    lambda x, c: x + 3,
    lambda x, c: torch.add(x, 3, alpha=2),
    lambda x, c: torch.add(c(), x, alpha=2),
    lambda x, c: x - c(),
    lambda x, c: torch.sub(x, c(), alpha=3),
    lambda x, c: c() - x,
    lambda x, c: torch.sub(c(), x, alpha=3),
    lambda x, c: 5 - x,
    lambda x, c: torch.rsub(x, 5, alpha=2),
    lambda x, c: x * c(),
    lambda x, c: c() * x,
    lambda x, c: x / c(),
    lambda x, c: x / 4,
    lambda x, c: -x,
]


def last_call(network: Network) -> torch.fx.Node:
    return [n for n in network.module.graph.nodes if n.op == "call_function"][-1]


@pytest.mark.parametrize("does", ARITHMETIC)
def test_arithmetic_with_constants_is_read(does: Callable[[Tensor, nn.Module], Tensor]) -> None:
    network = network_of(Does(does, Constant(torch.rand(4, 1) + 0.5)), 4, 3)
    affine = affine_of(network, last_call(network))
    assert affine is not None and data_of(last_call(network)).op == "placeholder"
    x = torch.randn(3, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(affine.scale * x + affine.shift, network.run({"x": x})[0])


OTHERS: list[Callable[[Tensor, nn.Module], Tensor]] = [
    lambda x, c: c() / x,
    lambda x, c: x * x,
    lambda x, c: x + x.relu(),
    lambda x, c: torch.div(x, 4, rounding_mode="floor"),
    lambda x, c: x**2,
    lambda x, c: F.relu(x),
    lambda x, c: x * x.shape[0],
]


@pytest.mark.parametrize("does", OTHERS)
def test_everything_else_is_not(does: Callable[[Tensor, nn.Module], Tensor]) -> None:
    network = network_of(Does(does, Constant(torch.rand(4, 1) + 0.5)), 4, 3)
    assert affine_of(network, last_call(network)) is None


def test_a_table_has_one_value_for_each_key() -> None:
    keys, values = torch.tensor([[0, 1], [2, 1]]), torch.tensor([[7, 5], [6, 5]])
    found = table_of(keys, values, 3)
    assert found is not None and found.tolist() == [7, 5, 6]
    assert table_of(keys, torch.tensor([[7, 5], [6, 4]]), 3) is None  # 1 has two
    assert table_of(keys, values, 4) is None  # 3 has none


def plan(
    does: Callable[..., Tensor], shape: tuple[int, ...], *parts: nn.Module, forwards: bool, at: str = "mul"
) -> Plan | str:
    """What becomes of the multiplication in a network."""
    network = network_of(Does(does, *parts), *shape)
    (node,) = (n for n in network.module.graph.nodes if n.name == at)
    affine = affine_of(network, node)
    assert isinstance(affine, Affine)
    return (plan_behind if forwards else plan_before)(network, node, affine, free_shapes(network))


def per_channel(n: int, *behind: int) -> Constant:
    return Constant(torch.randn(n, *behind))


def each_for(times: int, channels: int, *behind: int) -> Constant:
    """A constant in which so many numbers in turn are equal."""
    return Constant(torch.randn(channels).repeat_interleave(times).view(-1, *behind))


@pytest.mark.parametrize("rows", [3, 5])
def test_a_scale_on_an_axis_that_is_none_of_channels_stays(rows: int) -> None:
    """A scale per row is not one per channel, even where there are as many rows as channels."""
    found = plan(lambda x, a, c: a(x) * c(), (rows, 4), nn.Linear(4, 5), per_channel(rows, 1), forwards=False)
    assert found == "its scales do not belong to the channels of linear"
    found = plan(lambda x, a, c: a(x * c()), (rows, 4), nn.Linear(4, 5), per_channel(rows, 1), forwards=True)
    assert found == "its scales do not belong to the channels that linear reads"


MOVED: list[tuple[Callable[..., Tensor], tuple[int, ...], nn.Module, Constant, bool, bool]] = [
    # a channel of the convolution lies in 4 places behind the flattening, and all 4 need the same scale
    (lambda x, a, c: a(x).flatten(1) * c(), (2, 2, 2), nn.Conv2d(2, 3, 1), each_for(4, 3), False, True),
    (lambda x, a, c: a(x).flatten(1) * c(), (2, 2, 2), nn.Conv2d(2, 3, 1), per_channel(12), False, False),
    (lambda x, a, c: a(x).permute(0, 2, 3, 1) * c(), (2, 5, 5), nn.Conv2d(2, 3, 1), per_channel(3), False, True),
    (lambda x, a, c: a(x).permute(0, 2, 3, 1) * c(), (2, 3, 3), nn.Conv2d(2, 3, 1), per_channel(3, 1), False, False),
    (lambda x, a, c: F.pixel_shuffle(a(x), 2) * c(), (2, 3, 3), nn.Conv2d(2, 8, 1), per_channel(2, 1, 1), False, True),
    (lambda x, a, c: a((x * c()).flatten(1)), (3, 2, 2), nn.Linear(12, 3), per_channel(3, 1, 1), True, True),
    (lambda x, a, c: a((x * c()).permute(0, 2, 3, 1)), (3, 2, 2), nn.Linear(3, 2), per_channel(3, 1, 1), True, True),
    (lambda x, a, c: a((x * c()).permute(0, 2, 3, 1)), (3, 2, 3), nn.Linear(3, 2), per_channel(3), True, False),
    (lambda x, a, c: a(F.pixel_shuffle(x * c(), 2)), (8, 2, 2), nn.Conv2d(2, 3, 1), per_channel(8, 1, 1), True, False),
    (lambda x, a, c: a(F.pixel_shuffle(x * c(), 2)), (8, 2, 2), nn.Conv2d(2, 3, 1), each_for(4, 2, 1, 1), True, True),
    (lambda x, a, c: a(x * c()), (3, 2, 2), nn.Conv2d(3, 3, 1), Constant(torch.full((3, 2, 2), 1.5)), True, True),
]


@pytest.mark.parametrize(("does", "shape", "layer", "constant", "forwards", "fits"), MOVED)
def test_scales_find_their_channels_behind_moves(
    does: Callable[..., Tensor],
    shape: tuple[int, ...],
    layer: nn.Module,
    constant: Constant,
    forwards: bool,
    fits: bool,
) -> None:
    network = network_of(Does(does, layer, constant), *shape)
    (node,) = network.module.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor)
    affine = affine_of(network, node)
    assert affine is not None
    found = (plan_behind if forwards else plan_before)(network, node, affine, free_shapes(network))
    assert isinstance(found, Plan) is fits, found
    if isinstance(found, Plan):
        x = torch.randn(3, *shape, dtype=torch.float64)
        before = network.run({"x": x})[0]
        assert found.carry_out_(network, node) == "parts.0"
        torch.testing.assert_close(network.tidy_().verify().run({"x": x})[0], before)


@pytest.mark.parametrize(
    ("does", "forwards", "why"),
    [
        (lambda x, a: a(x).relu() * 2, False, "does not follow a convolution or linear layer"),
        (lambda x, a: (y := a(x)) * 2 + y, False, "linear is read by other operators too"),
        (lambda x, a: a(a(x)) * 2, False, "the weight of linear_1 is shared or computed"),
        (lambda x, a: a((x * 2).relu()), True, "is not followed by a convolution or linear layer"),
        (lambda x, a: a(y := x * 2) + y, True, "mul is read by several operators"),
        (lambda x, a: a(y := (x * 2).unsqueeze(1)) + y, True, "unsqueeze is read by several operators"),
        (lambda x, a: a(a(x * 2)), True, "the weight of linear is shared or computed"),
        (lambda x, a: x * 2, True, "is not followed by a convolution or linear layer"),
    ],
)
def test_why_not(does: Callable[[Tensor, nn.Module], Tensor], forwards: bool, why: str) -> None:
    assert plan(does, (4,), nn.Linear(4, 4), forwards=forwards) == why


def test_a_constant_that_stretches_or_converts_what_it_meets_stays() -> None:
    wide = plan(lambda x, a, c: a(x) * c(), (4,), nn.Linear(4, 1), per_channel(3), forwards=False)
    assert isinstance(wide, str) and wide.startswith("it changes the shape")


def test_moves_are_those_of_torch() -> None:
    network = network_of(
        Does(lambda x: F.pixel_shuffle(x, 2)[:, 0].unsqueeze(1).transpose(2, 3).reshape(-1, 36)), 4, 3, 3
    )
    moves = [n for n in network.module.graph.nodes if n.op == "call_function" and "sym" not in n.name]
    x = torch.arange(72).view(2, 4, 3, 3)
    ours = moved(x, moves, free_shapes(network))
    assert torch.equal(ours, F.pixel_shuffle(x, 2)[:, 0].unsqueeze(1).transpose(2, 3).reshape(-1, 36))
