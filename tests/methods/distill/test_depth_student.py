"""Blocks are what they should be, the right ones go, and what is left computes what a network without them computes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.distill.depth_student import DepthStudent, residual_blocks, spread_evenly
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.methods.distill.students import demo, marks_of_student, relative_error_in_onnxruntime
from tests.network.networks import network_of
from tests.runtimes.networks import Residual, traced
from tests.toys import Toy, toy


@pytest.mark.parametrize(
    ("count", "keep", "stay"),
    [
        (12, 0.5, [1, 3, 5, 7, 9, 11]),  # every other layer, as Fan et al. drop them
        (9, 1 / 3, [1, 4, 7]),
        (4, 0.75, [0, 2, 3]),
        (3, 0.5, [1]),
        (1, 0.5, []),
        (1, 0.6, [0]),
        (10, 0.7, [0, 2, 3, 5, 6, 7, 9]),
        (5, 0.0, []),
        (5, 1.0, [0, 1, 2, 3, 4]),
        (0, 0.5, []),
    ],
)
def test_what_stays_is_spread_evenly(count: int, keep: float, stay: list[int]) -> None:
    assert spread_evenly(count, keep) == stay


@pytest.mark.parametrize("count", range(1, 30))
@pytest.mark.parametrize("keep", [0.2, 0.4, 0.5, 0.8, 0.9])
def test_the_share_is_right_and_no_gap_is_long(count: int, keep: float) -> None:
    stay = spread_evenly(count, keep)
    assert abs(len(stay) - keep * count) <= 0.5 + 1e-6 and len(set(stay)) == len(stay)
    if stay:
        gaps = [b - a for a, b in zip([-1, *stay], [*stay, count], strict=True)]
        assert max(gaps) <= count / len(stay) + 1


class Stack(nn.Module):
    """Residual blocks of one shape; those not in ``run`` are left out by hand."""

    def __init__(self, blocks: int, run: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1))
            for _ in range(blocks)
        )
        self.run = run or tuple(range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for i in self.run:
            y = self.blocks[i](x).to(torch.float32)  # of which torch.export leaves an assertion
            x = F.relu(y + x) if i % 2 else F.relu(x + y)
        result: Tensor = self.head(x.mean((2, 3)))
        return result


class Encoder(nn.Module):
    """Transformer layers; those not in ``run`` are left out by hand, of post-norm ones all but the norms."""

    def __init__(self, pre_norm: bool, run: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 16), nn.Linear(16, 3)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=pre_norm) for _ in range(4)
        )
        self.run, self.pre_norm = run, pre_norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i, layer in enumerate(self.layers):
            if i in self.run:
                x = layer(x)
            elif not self.pre_norm:
                x = layer.norm2(layer.norm1(x))  # type: ignore[operator]
        result: Tensor = self.head(x.mean(1))
        return result


def same(student: Network, module: nn.Module, x: Tensor) -> bool:
    with torch.no_grad():
        expected = module.eval()(x)
    return torch.allclose(student.run({"x": x})[0], expected, rtol=1e-4, atol=1e-5)


def test_what_is_left_is_the_module_without_the_blocks() -> None:
    torch.manual_seed(0)
    whole, by_hand = Stack(5), Stack(5, run=(1, 3))
    by_hand.load_state_dict(whole.state_dict())
    network = trace(whole.eval(), {"x": torch.randn(2, 3, 8, 8)})
    outcome = DepthStudent(keep=0.5).apply(network)
    assert outcome.changed == ["blocks.0", "blocks.2", "blocks.4"]
    assert outcome.skipped == {f"blocks.{i}": "is one of the 2 of 5 blocks that stay" for i in (1, 3)}
    x = torch.randn(4, 3, 8, 8)
    assert same(outcome.network, by_hand, x) and not same(network, by_hand, x)
    assert {n.split(".")[1] for n in outcome.network.weights() if n.startswith("blocks")} == {"1", "3"}
    assert macs(outcome.network) == macs(trace(by_hand, {"x": x}))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_of_a_transformer_whole_layers_go(pre_norm: bool) -> None:
    torch.manual_seed(0)
    whole, by_hand = Encoder(pre_norm).eval(), Encoder(pre_norm, run=(1, 3)).eval()
    by_hand.load_state_dict(whole.state_dict())
    network = trace(whole, {"x": torch.randint(0, 30, (2, 5))})
    outcome = DepthStudent(keep=0.5).apply(network)
    assert outcome.changed == ["layers.0.self_attn", "layers.0", "layers.2.self_attn", "layers.2"]
    x = torch.randint(0, 30, (3, 5))
    assert same(outcome.network, by_hand, x) and not same(network, by_hand, x)
    head = 16 * 3
    assert 2 * (macs(outcome.network) - head) == macs(network) - head
    left = [str(n.target) for n in outcome.network.module.graph.nodes]
    assert sum("scaled_dot_product_attention" in name for name in left) == 2  # dead attention would still be run


def test_all_blocks_may_go_and_all_may_stay() -> None:
    torch.manual_seed(0)
    network = trace(Stack(3).eval(), {"x": torch.randn(2, 3, 8, 8)})
    assert not [n for n in DepthStudent(keep=0.0).apply(network).network.weights() if n.startswith("blocks")]
    outcome = DepthStudent(keep=1.0).apply(network)
    assert outcome.changed == [] and len(outcome.skipped) == 3
    assert torch.equal(outcome.network.run(network.examples)[0], network.run(network.examples)[0])


def test_a_share_that_takes_nothing_out_is_one_sentence() -> None:
    network = trace(Stack(3).eval(), {"x": torch.randn(2, 3, 8, 8)})
    with pytest.raises(SlimlineError, match=r"DepthStudent\(keep=0.9\) takes none of the 3 residual blocks out"):
        DepthStudent(keep=0.9).apply(network)


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
    outcome = DepthStudent(keep=0.0).apply(trace(Odd().eval(), {"x": torch.randn(2, 3, 8, 8)}))
    assert outcome.changed == ["block"]
    assert list(outcome.skipped.values()) == [
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
    outcome = DepthStudent(keep=0.5).apply(trace(Nested().eval(), {"x": torch.randn(2, 3, 8, 8)}))
    assert outcome.changed == ["body.blocks.0"]
    assert outcome.skipped == {
        "add_2": "spans other blocks",
        "body.blocks.1": "is one of the 1 of 2 blocks that stay",
    }


def test_a_network_without_blocks_is_one_sentence() -> None:
    with pytest.raises(SlimlineError, match=r"no residual block that can be taken out \(add has no operand that is"):
        DepthStudent().apply(traced(Residual()))
    with pytest.raises(SlimlineError, match=r"\(the network has no sums\): use WidthStudent or SeparableStudent"):
        DepthStudent().apply(network_of("flatten"))


def test_the_blocks_of_the_toy_and_the_demo_are_found() -> None:
    assert [block.name for block in residual_blocks(toy())[0]] == ["inner"]
    blocks, refused = residual_blocks(demo())
    assert [block.name for block in blocks] == ["blocks.0"] and len(refused) == 2


def test_the_toy_without_its_block_is_a_stem_and_a_head() -> None:
    module = Toy().eval()
    x = torch.randn(5, 1, 8, 8)
    student = DepthStudent().apply(trace(module, {"image": x})).network
    with torch.no_grad():
        by_hand = module.head(F.max_pool2d(F.relu(module.stem_norm(module.stem(x))), 2).mean((2, 3)))
    torch.testing.assert_close(student.run({"image": x})[0], by_hand)
    assert not [name for name in student.weights() if name.startswith(("inner", "outer"))]


def test_the_exported_file_answers_as_the_network_does(tmp_path: Path) -> None:
    assert relative_error_in_onnxruntime(DepthStudent().apply(demo()).network, tmp_path) <= 1e-4


def test_distillation_repairs_it() -> None:
    before, after = marks_of_student(DepthStudent())
    assert after.accuracy >= max(0.95, before.accuracy) and after.error < 0.5 * before.error
