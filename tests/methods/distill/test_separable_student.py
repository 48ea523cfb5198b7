"""The two weights are the best there are, and the rewritten network computes what their composition computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.distill.separable_student import SeparableStudent
from slimline.network.cost import layers, macs
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.methods.distill.students import demo, marks_of_student, relative_error_in_onnxruntime
from tests.numerics.compositions import composition
from tests.toys import toy

LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(8, 12, 5, stride=2, padding=3), (8, 17)),
    (nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), (8, 9, 8)),
    (nn.Conv2d(9, 12, (3, 5), stride=(1, 2), padding=(0, 2), dilation=(2, 1)), (9, 10, 11)),
    (nn.Conv2d(8, 12, 4, padding="same", dilation=2), (8, 9, 9)),
    (nn.Conv2d(8, 12, 3, padding="valid", stride=2), (8, 9, 9)),
    (nn.Conv3d(8, 12, 3, padding=1, stride=(1, 2, 1)), (8, 4, 5, 6)),
]


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[str(layer) for layer, _ in LAYERS])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_the_network_computes_what_the_composed_weight_computes(
    layer: nn.Module, shape: tuple[int, ...], rank: int
) -> None:
    network = trace(nn.Sequential(layer, nn.ReLU()), [torch.randn(2, *shape)])
    outcome = SeparableStudent(rank=rank).apply(network)
    assert outcome.changed == ["0"] and not outcome.skipped
    weights = outcome.network.weights()
    assert set(weights) == {"0.depthwise.weight", "0.pointwise.weight"} | {n for n in network.weights() if "bias" in n}
    dense = network.copy()
    dense.weights()["0.weight"].data.copy_(
        composition(weights["0.depthwise.weight"], weights["0.pointwise.weight"], rank).detach()
    )
    inputs = {"input": torch.randn(5, *shape)}
    torch.testing.assert_close(outcome.network.run(inputs), dense.run(inputs), rtol=1e-4, atol=1e-5)


class Left(nn.Module):
    """One layer for every reason to leave a convolution as it is, and one that is rewritten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.point, self.grouped = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, groups=4)
        self.twice, self.up, self.last = nn.Conv2d(16, 16, 3), nn.ConvTranspose2d(16, 16, 3), nn.Conv2d(16, 1, 3)
        self.normed, self.dense = nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3)), nn.Conv2d(16, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.grouped(self.point(self.stem(x)))))
        result: Tensor = self.last(self.dense(self.normed(self.up(x))))
        return result


def test_what_is_left_alone_is_named_with_its_reason() -> None:
    network = trace(Left(), {"x": torch.randn(2, 3, 20, 20)})
    outcome = SeparableStudent().apply(network)
    reasons = outcome.skipped
    assert outcome.changed == ["dense"]
    assert reasons["stem"] == "reads 3 channels, fewer than 8"
    assert reasons["point"] == "is pointwise already"
    assert reasons["grouped"] == "belongs to a convolution of 4 groups"
    assert reasons["twice"] == "has a weight that is shared or computed"
    assert reasons["up"] == "is a transposed convolution"
    assert reasons["last"] == "would not get cheaper with 1 outputs, 9 positions and rank 1"
    assert list(reasons.values()).count("has a weight that is shared or computed") == 2 and len(reasons) == 7
    assert SeparableStudent(fewest=3).apply(network).changed == ["stem", "dense"]


def test_a_network_with_nothing_to_rewrite_is_one_sentence() -> None:
    with pytest.raises(SlimlineError, match=r"no convolution to rewrite \(stem reads 1 channels, fewer than 17; inner"):
        SeparableStudent(fewest=17).apply(toy())
    with pytest.raises(SlimlineError, match=r"\(the network has none\): use WidthStudent or DepthStudent"):
        SeparableStudent().apply(trace(nn.Linear(3, 2), [torch.randn(2, 3)]))


def wide(network: Network) -> int:
    """MACs after the rewrite, from the table of layers: k x k positions and outputs instead of their product."""
    total = 0
    for layer in layers(network):
        outputs, inputs, *kernel = [*layer.weight_shape, 1, 1]
        positions = int(np.prod(kernel))
        separated = layer.kind == "conv2d" and positions > 1 and inputs >= 8
        total += layer.macs * (positions + outputs) // (outputs * positions) if separated else layer.macs
    return total


@pytest.mark.parametrize("network", [toy(), demo()], ids=["toy", "demo"])
def test_macs_fall_as_the_paper_says(network: Network) -> None:
    outcome = SeparableStudent().apply(network)
    assert macs(outcome.network) == wide(network) < 0.5 * macs(network)


def test_the_bias_stays_behind_the_pointwise_convolution() -> None:
    network = trace(nn.Sequential(nn.Conv2d(8, 16, 3)), [torch.randn(2, 8, 6, 6)])
    result = SeparableStudent().apply(network).network
    calls: list[Any] = [n for n in result.module.graph.nodes if n.op == "call_function"]
    assert calls[0].args[2] is None and str(calls[1].args[2].target) == "0.bias"
    weights = result.weights()
    x = torch.randn(2, 8, 6, 6)
    by_hand = F.conv2d(F.conv2d(x, weights["0.depthwise.weight"], groups=8), weights["0.pointwise.weight"])
    torch.testing.assert_close(result.run({"input": x})[0], (by_hand + weights["0.bias"][:, None, None]).detach())


def test_the_exported_file_answers_as_the_network_does(tmp_path: Path) -> None:
    assert relative_error_in_onnxruntime(SeparableStudent().apply(demo()).network, tmp_path) <= 1e-4


def test_distillation_brings_it_closer_to_the_original() -> None:
    before, after = marks_of_student(SeparableStudent())
    assert after.error < 0.5 * before.error and after.accuracy >= 0.95
