"""Blocks are found where a shortcut passes unchanged; taking one out leaves the module without it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.network.axes import axis_groups
from slimline.network.residual import residual_blocks, stream_groups, take_out_
from slimline.network.trace import trace
from tests.methods.distill.students import demo
from tests.network.residual_networks import Stack
from tests.toys import toy


@pytest.mark.parametrize("gone", [[0], [2, 3], [0, 1, 2, 3]])
def test_what_is_left_is_the_module_without_the_blocks(gone: list[int]) -> None:
    torch.manual_seed(0)
    module, x = Stack(4).eval(), torch.randn(3, 3, 8, 8)
    network = trace(module, {"x": torch.randn(2, 3, 8, 8)})
    blocks, _ = residual_blocks(network)
    take_out_(network, [blocks[i] for i in gone])
    y = F.relu(module.stem(x))
    for i in range(4):
        y = F.relu(y) if i in gone else F.relu(y + module.blocks[i](y))
    torch.testing.assert_close(network.verify().run({"x": x})[0], module.head(y.mean((2, 3))).detach())


class Odd(nn.Module):
    """A sum for every reason to leave it, around one block that can go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.block = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.shared, self.inside, self.scaled, self.left, self.right = (nn.Conv2d(3, 3, 1) for _ in range(5))
        self.squeeze, self.wide = nn.Conv2d(3, 3, 8), nn.Conv2d(3, 3, 1)
        self.bias = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(x + self.one(x))  # the shortcut is the input
        x = self.left(x) + self.right(x)
        y = x + self.block(x)
        x = self.stem(x + self.one(y))  # spans the block; its weight is read elsewhere too
        x = x + torch.tanh(0.04 * x**3)  # an activation
        x = self.shared(x + self.shared(x))
        middle = self.inside(x)
        x = (x + F.relu(middle)) * middle
        x = torch.add(self.scaled(x), x, alpha=2) + self.bias
        x = self.squeeze(x)
        result: Tensor = (x + F.pad(self.wide(x), (0, 3, 0, 3))).flatten(1)
        return result


def test_every_other_sum_is_left_with_its_reason() -> None:
    torch.manual_seed(0)
    blocks, refused = residual_blocks(trace(Odd().eval(), {"x": torch.randn(2, 3, 8, 8)}))
    assert [block.name for block in blocks] == ["block"]
    assert list(refused.values()) == [
        "has the network's input as its shortcut",
        "has no operand that is computed from the other",
        "shares one.weight with other parts of the network",
        "computes without a layer, as an activation function does",
        "shares shared.weight with other parts of the network",
        "has conv2d_9 inside, which is read elsewhere too",
        "multiplies its shortcut by a number",
        "repeats its shortcut of shape (3, 1, 1) along an axis",
    ]


class Nested(nn.Module):
    """A long shortcut around blocks of its own, as super-resolution networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.tail = nn.Conv2d(3, 8, 1), Stack(2), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = y = self.stem(x)
        for block in self.body.blocks:
            y = y + block(y)
        result: Tensor = (x + self.tail(y)).flatten(1)
        return result


def test_only_the_innermost_blocks_go() -> None:
    blocks, refused = residual_blocks(trace(Nested().eval(), {"x": torch.randn(2, 3, 8, 8)}))
    assert [block.name for block in blocks] == ["body.blocks.0", "body.blocks.1"]
    assert refused == {"add_2": "spans other blocks"}


def test_the_blocks_of_the_toy_and_the_demo_are_found() -> None:
    assert [block.name for block in residual_blocks(toy())[0]] == ["inner"]
    blocks, refused = residual_blocks(demo())
    assert [block.name for block in blocks] == ["blocks.0"] and len(refused) == 2


class Streams(nn.Module):
    """A padded shortcut, a projected one, an activation written out and a bias that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 8, 1)
        self.side, self.hidden, self.back = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 12, 1)
        self.bias = nn.Parameter(torch.ones(16, 1, 1))
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(F.pad(x, (0, 0, 0, 0, 2, 2)) + self.outer(F.relu(self.inner(x))))
        y = self.hidden(x) + self.bias
        y = 0.5 * y * (1 + torch.tanh(0.8 * (y + 0.04 * y**3)))
        result: Tensor = self.head((self.side(x) + self.back(y)).mean((2, 3)))
        return result


def test_the_channels_of_residual_sums_are_told_from_those_inside_blocks() -> None:
    network = trace(Streams().eval(), {"x": torch.randn(2, 3, 8, 8)})
    found = axis_groups(network)
    streams = stream_groups(network, found)
    assert {g.name for g in found.groups} - streams == {"inner", "hidden"}
    assert {g.name: g.width for g in found.groups if g.name in streams} == {"stem": 4, "outer": 4, "side": 12}


class OneBlock(nn.Module):
    """A table, and one block that adds to what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner, self.outer = nn.Embedding(30, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        result: Tensor = self.head((x + self.outer(self.inner(x).relu())).mean(1))
        return result


def test_a_table_starts_a_stream() -> None:
    network = trace(OneBlock().eval(), {"ids": torch.randint(0, 30, (2, 5))})
    found = axis_groups(network)
    streams = stream_groups(network, found)
    assert {g.width for g in found.groups if g.name in streams} == {8} and "inner" not in streams


def test_the_streams_of_the_demo_are_its_stem_and_the_ends_of_its_blocks() -> None:
    network = demo()
    assert stream_groups(network, axis_groups(network)) == {"stem", "blocks.1.conv2", "blocks.2.conv2"}
