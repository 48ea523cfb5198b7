"""What is counted is what the rewritten network costs; what is left alone has a reason, every mistake a sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.factorize import cp, separable, spatial, svd, tucker, whitened
from slimline.methods.factorize.cp import FactorizeCP
from slimline.methods.factorize.factors import layers, macs
from slimline.methods.factorize.separable import FactorizeSeparable
from slimline.methods.factorize.spatial import FactorizeSpatial
from slimline.methods.factorize.svd import FactorizeSVD
from slimline.methods.factorize.tucker import FactorizeTucker
from slimline.methods.method import Method
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.network import cost
from slimline.network.trace import trace
from slimline.runtimes.onnx_file import write_onnx
from tests.methods.factorize.chains import FLAT, POINTWISE, WIDE, one_layer, random_weight, rewritten, the_layer
from tests.toys import patterns, toy, toy_task

ROOMS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "svd": (svd, svd.decompose, (2,)),
    "spatial": (spatial, spatial.decompose, (2,)),
    "separable": (separable, separable.decompose, (2,)),
    "tucker": (tucker, FactorizeTucker().decompose, (2, 3)),
    "cp": (cp, FactorizeCP().decompose, (3, 3)),
}
KINDS = FLAT | POINTWISE | WIDE
TAKES = {"svd": POINTWISE, "spatial": WIDE, "separable": FLAT | WIDE, "tucker": FLAT | WIDE, "cp": FLAT | WIDE}


class Odd(nn.Module):
    """Layers that cannot be factorised, one for each reason."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped, self.depthwise = nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 1, groups=8)
        self.back, self.twice = nn.ConvTranspose2d(8, 8, 3), nn.Conv2d(8, 8, 1)
        self.scaled, self.broken = nn.Linear(8, 8), nn.Linear(8, 8)
        with torch.no_grad():
            self.broken.weight[0, 0] = float("nan")

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.back(self.depthwise(self.grouped(x)))))
        x = F.linear(x.mean((2, 3)), self.scaled.weight * 2)
        result: Tensor = self.broken(x)
        return result


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in TAKES.items() for kind in kinds])
def test_macs_are_those_of_the_rewritten_network(name: str, kind: str) -> None:
    room, decompose, ranks = ROOMS[name]
    network, _ = one_layer(KINDS[kind])
    layer = the_layer(network)
    assert layer.macs == cost.macs(network)
    assert macs(layer, room.parts(layer, ranks)) == cost.macs(rewritten(network, ranks, room.parts, decompose))


def test_why_layers_are_left_alone() -> None:
    network = trace(Odd(), [torch.randn(2, 8, 6, 6)])
    outcome = FactorizeSVD(multiple=1).apply(network)
    assert outcome.changed == []
    assert outcome.skipped == {
        "grouped": "has a kernel of 3 x 3; belongs to a convolution of 2 groups",
        "depthwise": "belongs to a convolution of 8 groups",
        "back": "is a transposed convolution",
        "twice": "has a weight that is shared",
        "linear": "has a weight that is computed",
        "broken": "has a weight with values that are not finite",
    }
    skipped = FactorizeTucker().apply(network).skipped
    assert skipped["depthwise"] == "has a kernel of 1 x 1" and skipped["broken"].startswith("has a weight with values")


def test_a_quantised_layer_is_named_as_such() -> None:
    quantised = QuantizeStatic().apply(toy(), toy_task()).network
    assert set(FactorizeTucker().apply(quantised).skipped.values()) == {"has a quantised weight"}


def test_a_layer_that_would_not_get_cheaper_stays() -> None:
    """Of 4 x 16 multiply-adds, rank 4 takes 4 (4 + 16); of 64 positions, a rank of 1 takes 9 and 16 for each."""
    outcome = FactorizeSVD(rank=4, layers=("head",)).apply(toy())
    assert outcome.skipped == {"head": "would not get cheaper: rank 4 takes 80 multiply-adds, the layer itself 64"}
    assert outcome.network.module.code == toy().module.code
    outcome = FactorizeSeparable(budget=0.01, layers=("stem",)).apply(toy())
    assert outcome.skipped == {"stem": "rank 1 takes 1600 of 9216 multiply-adds, more than the budget of 0.01"}


def test_a_name_that_is_no_layers_is_refused_with_near_ones() -> None:
    with pytest.raises(SlimlineError, match=r"FactorizeSVD\(layers=...\) names 'heat', which is no layer; near .*head"):
        FactorizeSVD(layers=("heat",)).apply(toy())


def test_a_rank_that_is_too_large_is_refused() -> None:
    sentence = r"FactorizeSVD\(rank=9\) is too large: the rank of head is 4 at most; choose 1 to 4\."
    with pytest.raises(SlimlineError, match=sentence):
        FactorizeSVD(rank=9, layers=("head", "outer")).apply(toy())
    outcome = FactorizeSVD(rank=9).apply(toy())  # not asked for by name: those that allow it are taken
    assert outcome.changed == ["outer"] and outcome.skipped["head"] == "has rank 4 at most, fewer than 9"
    with pytest.raises(SlimlineError, match=r"FactorizeSVD\(rank=17\) is too large: the rank of outer is 16 at most"):
        FactorizeSVD(rank=17).apply(toy())


def test_only_layers_that_are_named_are_touched_or_told() -> None:
    outcome = FactorizeTucker(layers=("inner", "head")).apply(toy())
    assert outcome.changed == ["inner"] and outcome.skipped == {"head": "is a linear layer"}


class Names(nn.Module):
    """Weights of one owner, and one without an owner."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ParameterDict({"query": random_weight(16, 16), "key": random_weight(16, 16, seed=1)})
        self.alone = nn.Parameter(random_weight(16, 16, seed=2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(F.linear(x, self.block["query"]), self.block["key"])
        return F.linear(x, self.alone)


def test_weights_without_a_name_of_their_own() -> None:
    network = trace(Names(), [torch.randn(2, 16)])
    assert [layer.name for layer in layers(network, (), "Test")[0]] == ["block.query", "block.key", "alone"]
    outcome = FactorizeSVD(rank=2).apply(network)
    assert set(outcome.network.weights()) == {
        f"{name}_{part}.weight" for name in ("block.query", "block.key", "alone") for part in ("first", "last")
    }
    twice = FactorizeSVD(rank=1, layers=("block.query_first",)).apply(outcome.network).network
    assert {"block.query_first.first.weight", "block.query_first.last.weight"} <= set(twice.weights())


class Tied(nn.Module):
    """Two layers with one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
        self.two.bias = self.one.bias

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.two(self.one(x)) + self.one.bias * 0
        return result


def test_a_bias_stays_on_the_last_factor_even_when_others_read_it() -> None:
    network, x = trace(Tied(), [torch.randn(2, 16)]), torch.randn(5, 16)
    outcome = FactorizeSVD(rank=7, layers=("one",)).apply(network)
    one, two = (network.weights()[f"{n}.weight"].detach() for n in ("one", "two"))
    bias = network.weights()["one.bias"].detach()
    u, s, v = np.linalg.svd(one.numpy())
    low = torch.from_numpy((u[:, :7] * s[:7]) @ v[:7])
    expected = F.linear(F.linear(x, low, bias), two, bias)
    torch.testing.assert_close(outcome.network.run({network.input_names[0]: x})[0], expected, rtol=1e-4, atol=1e-5)
    assert {"one.last.bias", "one.bias"} <= set(outcome.network.weights())


@pytest.mark.parametrize("method", [FactorizeTucker(), FactorizeCP(), FactorizeSpatial(), FactorizeSeparable()])
def test_what_comes_out_is_pruned_and_exported_like_any_network(method: Method, tmp_path: Path) -> None:
    chain: Any = replace(method, layers=("inner",))  # type: ignore[call-arg]
    network = Recipe([chain, FactorizeSVD(layers=("outer",))]).apply(toy()).network
    smaller = PruneChannels(keep=0.5, importance="l1", multiple=1).apply(network)
    assert (
        "inner.last" in smaller.changed or "inner.pointwise" in smaller.changed or "inner.horizontal" in smaller.changed
    )
    assert cost.macs(smaller.network) < 0.6 * cost.macs(network)
    write_onnx(smaller.network, tmp_path / "chain.onnx")
    images = patterns(5, seed=9)[0]
    (ours,) = onnxruntime.InferenceSession(tmp_path / "chain.onnx").run(None, {"image": images})
    expected = smaller.network.run({"image": torch.from_numpy(images)})[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


def test_the_whitened_layers_are_refused_like_the_others() -> None:
    with pytest.raises(SlimlineError, match=r"FactorizeWhitened\(layers=...\) names 'outre', .* near names: outer"):
        whitened.FactorizeWhitened(layers=("outre",)).apply(toy(), toy_task())
