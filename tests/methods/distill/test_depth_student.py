"""Blocks are what they should be, the right ones go, and what is left computes what a network without them computes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.distill.depth_student import DepthStudent, spread_evenly
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.methods.distill.students import demo, marks_of_student, relative_error_in_onnxruntime
from tests.network.networks import network_of
from tests.network.residual_networks import Encoder, Stack
from tests.runtimes.networks import Residual, traced
from tests.toys import Toy


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


def test_a_network_without_blocks_is_one_sentence() -> None:
    with pytest.raises(SlimlineError, match=r"no residual block that can be taken out \(add has no operand that is"):
        DepthStudent().apply(traced(Residual()))
    with pytest.raises(SlimlineError, match=r"\(the network has no sums\): use WidthStudent or SeparableStudent"):
        DepthStudent().apply(network_of("flatten"))


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
