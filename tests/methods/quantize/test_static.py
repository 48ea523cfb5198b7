"""Integers are the nearest ones, ranges are what was seen, and pairs stand where runtimes fuse them."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import Node

from slimline.errors import SlimlineError
from slimline.methods.quantize import static
from slimline.methods.quantize.static import (
    RANGES,
    VALUES_PER_BATCH,
    QuantizeStatic,
    Range,
    observe,
    op_name,
    weight_scales,
)
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network.network import Network
from slimline.network.surgery import set_weight
from slimline.network.trace import trace
from slimline.numerics.affine import quantize_symmetric
from slimline.numerics.formats import int_format
from slimline.runtimes.registry import RUNTIMES, open_artifact
from slimline.task import Samples, Task
from tests.runtimes.networks import exported
from tests.toys import patterns, toy, toy_task

OPS = ("aten.conv2d", "aten.linear", "aten.add", "aten.mean")


def task_of(x: NDArray[np.float32]) -> Task:
    return Task(validate={"x": x})


def pairs(network: Network) -> list[tuple[Node, list[str]]]:
    """Every value that is quantised, and what reads the integers' real values."""
    found = []
    for q in network.module.graph.nodes:
        if op_name(q) == "quantized_decomposed.quantize_per_tensor":
            (dequantize,) = q.users
            assert op_name(dequantize) == "quantized_decomposed.dequantize_per_tensor"
            assert dequantize.args[1:] == q.args[1:]
            value = q.args[0]
            assert isinstance(value, Node)
            found.append((value, sorted(user.name for user in dequantize.users)))
    return found


# --- ranges -----------------------------------------------------------------------------------------------------------


def test_ranges_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.standard_t(3, (50, 7)).astype(np.float32) for _ in range(4)]
    seen, everything = Range(), np.concatenate(batches).ravel()
    for batch in batches:
        seen.see(torch.from_numpy(batch))
    assert seen.bounds("minmax", 99.0) == (everything.min(), everything.max())
    for percentile in (99.99, 99.0, 90.0):
        expected = np.percentile(everything, [100 - percentile, percentile])
        np.testing.assert_allclose(seen.bounds("percentile", percentile), expected)


def test_percentiles_of_large_activations_come_from_an_even_part_of_them() -> None:
    values = torch.randn(20 * VALUES_PER_BATCH)
    seen = Range()
    seen.see(values)
    assert VALUES_PER_BATCH <= len(seen.kept[0]) < 1.1 * VALUES_PER_BATCH
    low, high = seen.bounds("percentile", 99.0)
    np.testing.assert_allclose([low, high], [-2.326, 2.326], atol=0.1)  # the 1 % and 99 % points of the normal
    assert seen.bounds("minmax", 99.0) == (float(values.min()), float(values.max()))


def test_what_was_observed_is_not_looked_at_again_unless_network_or_samples_change() -> None:
    task, method = toy_task(), QuantizeStatic(observer="minmax", ops=("aten.conv2d",))
    RANGES.key = ("", "")
    once = method.apply(toy(), task).network.weights()
    with patch.object(static, "_Watcher", side_effect=AssertionError("observed before")):
        again = method.apply(toy(), task).network.weights()
        replace(method, observer="percentile").apply(toy(), task)
        with pytest.raises(AssertionError, match="observed before"):
            replace(method, samples=100).apply(toy(), task)
        other = toy()
        set_weight(other, "stem.weight", other.weights()["stem.weight"].detach() * 2)
        with pytest.raises(AssertionError, match="observed before"):
            method.apply(other, task)
    assert all(torch.equal(t, again[n]) for n, t in once.items())
    more = replace(method, ops=("aten.conv2d", "aten.linear"))
    wider = more.apply(toy(), task).network.weights()  # values that were not observed yet are added
    RANGES.key = ("", "")
    afresh = more.apply(toy(), task).network.weights()
    assert all(torch.equal(t, afresh[n]) for n, t in wider.items())


def test_what_is_observed_is_what_flows() -> None:
    network = toy()
    images, _ = patterns(100, seed=4)
    (relu,) = (n for n in network.module.graph.nodes if n.name == "relu")
    found = observe(network, {relu}, Samples({"image": images}))["relu"]
    weights = network.weights()
    x = F.conv2d(torch.from_numpy(images), weights["stem.weight"], padding=1)
    mean, variance = weights["stem_norm.running_mean"], weights["stem_norm.running_var"]
    x = F.relu(F.batch_norm(x, mean, variance, weights["stem_norm.weight"], weights["stem_norm.bias"]))
    assert found.low == 0.0
    assert found.high == pytest.approx(float(x.detach().max()), rel=1e-5)


# --- integers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "largest"), [("int8", 127), ("int8_narrow", 127)])
def test_weights_are_off_by_at_most_half_a_step(weight: str, largest: int) -> None:
    folded = FoldBatchNorm().apply(toy()).network
    quantised = QuantizeStatic(weight=weight, ops=OPS).apply(folded, toy_task()).network.weights()
    real = folded.weights()
    for layer in ("stem", "inner", "outer", "head"):
        integers, step = quantised[f"{layer}.weight_quantized"], quantised[f"{layer}.weight_scale"]
        steps = step.view(-1, *[1] * (integers.ndim - 1))
        assert integers.dtype is torch.int8 and len(step) == len(integers)
        error = (integers.double() * steps - real[f"{layer}.weight"].double()).abs()
        assert float((error / steps).detach().max()) <= 0.5 + 1e-4
        assert (integers.flatten(1).abs().amax(1) == largest).all()  # the largest weight of a channel uses the range
        assert (quantised[f"{layer}.weight_zero_point"] == 0).all()


def test_a_bias_has_the_step_of_its_accumulator() -> None:
    """s = s_x s_w: integers of a convolution's sums and of its bias add up without rescaling."""
    folded = FoldBatchNorm().apply(toy()).network
    network = QuantizeStatic(ops=OPS).apply(folded, toy_task()).network
    weights = network.weights()
    (first,) = (value for value, _ in pairs(network) if value.op == "placeholder")
    step = float(str(next(iter(first.users)).args[1]))
    bias = next(name for name in weights if name.startswith("stem.bias") and name.endswith("_scale"))
    torch.testing.assert_close(weights[bias], weights["stem.weight_scale"] * step)
    assert weights[bias.replace("_scale", "_quantized")].dtype is torch.int32


class OneLayer(nn.Module):
    """A linear layer and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_the_error_of_one_layer_stays_inside_its_bound(activation: str) -> None:
    """|error_j| <= sum_i (|w_ji| s_x + |x_i| s_j) / 2 + s_x s_j / 4 + s_x s_j / 2, and it is not far below it.

    Each input is off by at most s_x / 2, each weight by s_j / 2, the bias by half of s_x s_j.
    """
    network = trace(OneLayer(), [torch.randn(2, 9)])
    x = np.random.default_rng(0).normal(size=(200, 9)).astype(np.float32)
    method = QuantizeStatic(observer="minmax", activation=activation)
    quantised = method.apply(network, task_of(x)).network
    s_x, s_w = (x.max() - x.min()) / 255, quantised.weights()["layer.weight_scale"].numpy()
    w = network.weights()["layer.weight"].detach().numpy()
    bound = (s_x * abs(w).sum(1) + abs(x).sum(1, keepdims=True) * s_w) / 2 + s_x * s_w * (9 / 4 + 1 / 2)
    inputs = {"x": torch.from_numpy(x)}
    error = (network.run(inputs)[0] - quantised.run(inputs)[0]).numpy()
    assert (abs(error) <= bound * 1.0001).all()
    assert abs(error).max() > 0.2 * bound.max()


def test_fewer_calibration_samples_than_asked_for_will_do() -> None:
    network = toy()
    assert QuantizeStatic(samples=100_000).apply(network, toy_task(train=30)).changed


# --- where pairs stand ------------------------------------------------------------------------------------------------


def test_pairs_of_a_residual_network() -> None:
    """Behind the input, the pool, every relu and the mean; none before a relu or a pool, none behind the output."""
    network = Recipe([FoldBatchNorm(), QuantizeStatic(ops=OPS)]).apply(toy(), toy_task()).network
    assert {value.name: readers for value, readers in pairs(network)} == {
        "image": ["conv2d"],
        "max_pool2d": ["add", "conv2d_1"],
        "relu_1": ["conv2d_2"],
        "conv2d_2": ["add"],
        "relu_2": ["mean"],
        "mean": ["linear"],
    }


class Chain(nn.Module):
    """conv - relu6 - max pool - conv - sigmoid, and a slice of what the second conv reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = F.max_pool2d(F.relu6(self.first(x)), 2)
        return torch.sigmoid(self.second(pooled)), torch.tanh(pooled[:, :2])


def quantised(module: nn.Module, **values: object) -> tuple[Network, dict[str, str]]:
    network = trace(module.eval(), {"x": torch.randn(2, 3, 12, 12)})
    x = torch.randn(40, 3, 12, 12).numpy()
    outcome = QuantizeStatic(**values).apply(network, task_of(x))  # type: ignore[arg-type]
    return outcome.network.verify(), outcome.skipped


def test_whoever_reads_a_quantised_result_reads_the_integers() -> None:
    """A runtime fuses a convolution with the pair behind it only when nothing reads the value before the pair."""
    network, _ = quantised(Chain())
    places = dict(pairs(network))
    by_name = {value.name: readers for value, readers in places.items()}
    assert by_name == {"x": ["conv2d"], "max_pool2d": ["conv2d_1", "slice_1"], "conv2d_1": ["sigmoid"]}
    for value in places:
        assert value.op == "placeholder" or [op_name(u) for u in value.users] == [
            "quantized_decomposed.quantize_per_tensor"
        ]


class Ends(nn.Module):
    """A convolution that is returned as it is, and one that is returned through a relu."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x), F.relu(self.second(x))


def test_outputs_stay_in_floating_point() -> None:
    network, _ = quantised(Ends())
    assert {value.name: readers for value, readers in pairs(network)} == {"x": ["conv2d", "conv2d_1"]}


class Odd(nn.Module):
    """A weight that is computed, an addition of a constant, and a layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.shift = nn.Parameter(torch.randn(3, 3, 1, 1)), nn.Parameter(torch.randn(1, 3, 1, 1))
        self.twice = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight * 2) + self.shift
        result: Tensor = self.twice(self.twice(x)) * 1.5
        return result


def test_what_stays_in_floating_point_is_listed_with_its_reason() -> None:
    network, skipped = quantised(Odd(), ops=["aten.conv2d", "aten.add", "aten.mul"])
    assert skipped == {
        "conv2d": "its weight is computed",
        "add": "its other operand is a constant",
        "mul": "its other operand is a constant",
        "mul_1": "its other operand is a constant",
    }
    integers = [name for name, tensor in network.weights().items() if tensor.dtype is torch.int8]
    assert len(integers) == 2  # each call of the layer has integers of its own


class Attention(nn.Module):
    """Self-attention with an additive mask and constant positions, as exported encoders hold them."""

    def __init__(self, masked: float) -> None:
        super().__init__()
        self.masked = masked
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.positions = nn.Embedding(16, 8)
        self.register_buffer("order", torch.arange(6)[None])

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        x = x + self.positions(self.order)
        counted = (present + present).to(x.dtype)  # a sum of whole numbers
        mask = (1.0 - present[:, None, :].to(x.dtype)) * self.masked
        scores = self.query(x) @ self.key(x).transpose(1, 2) + mask
        result: Tensor = torch.softmax(scores, -1) @ self.value(x) * counted[:, :, None]
        if self.masked < -1e9:  # a sum with a mask that no softmax reads
            result = result * torch.sigmoid(scores + mask).sum(-1, keepdim=True)
        return result


@pytest.mark.parametrize("masked", [-1e4, torch.finfo(torch.float32).min])
def test_a_mask_does_not_swallow_the_scores_of_attention(masked: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 6, 8)).astype(np.float32)
    present = (np.arange(6) < rng.integers(2, 7, (64, 1))).astype(np.int64)
    inputs = {"x": torch.from_numpy(x), "present": torch.from_numpy(present)}
    network = trace(Attention(masked).eval(), {k: v[:2] for k, v in inputs.items()})
    task = Task(validate={"x": x, "present": present})
    outcome = QuantizeStatic(ops=("aten.linear", "aten.add"), observer="minmax").apply(network, task)
    expected, got = network.run(inputs)[0], outcome.network.verify().run(inputs)[0]
    assert float((got - expected).abs().max()) < 0.05 * float(expected.abs().max())
    reasons = set(outcome.skipped.values())
    assert {
        "its other operand is a constant",
        "holds whole numbers",
        "a softmax reads it, and what is added there may be a mask",
    } <= reasons
    assert ("holds values beyond 1e+09, as masks do" in reasons) == (masked < -1e9)
    assert any(t.dtype is torch.int8 for t in outcome.network.weights().values())


def test_only_the_operators_asked_for_are_touched() -> None:
    network, _ = quantised(Chain(), ops=("aten.linear",))
    assert pairs(network) == []


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_agree_with_the_reference_graph(runtime: str, tmp_path: Path) -> None:
    """Where the runtime's facts put the pairs, its integers give the answers that torch computes from the pairs."""
    facts = RUNTIMES[runtime].facts
    method = QuantizeStatic(ops=sorted(facts.quantized_ops), activation=facts.activation, weight=facts.weight)
    network = Recipe([FoldBatchNorm(), method]).apply(toy(), toy_task()).network
    images, _ = patterns(64, seed=8)
    ours = network.run({"image": torch.from_numpy(images)})[0].numpy()
    theirs = np.array(open_artifact(exported(network, runtime, tmp_path), 1).run({"image": images})[0])
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.98
    assert abs(ours - theirs).mean() < 0.02 * abs(ours).mean()


def test_it_needs_data() -> None:
    with pytest.raises(SlimlineError, match="Static quantisation needs data"):
        QuantizeStatic().apply(toy())


def test_a_bias_beside_small_weights_is_not_cut_off() -> None:
    """int32 holds a bias of 0.2 in steps of 1e-12 only up to 0.002; the weights get a coarser step instead."""
    weight, bias = torch.tensor([[1e-9, -1e-9], [0.5, 0.25]]), torch.tensor([0.2, 0.1])
    scales = weight_scales(weight, bias, 0.01, int_format("int8"))
    stored = quantize_symmetric(bias, scales * 0.01, int_format("int32"))
    torch.testing.assert_close(stored * (scales * 0.01), bias, rtol=1e-6, atol=0)
    assert scales[1] == pytest.approx(0.5 / 127)


def test_a_channel_of_zeros_gets_the_largest_scale_of_its_layer() -> None:
    scales = weight_scales(torch.tensor([[0.0, 0.0], [0.5, 0.25], [0.1, 0.0]]), None, 0.01, int_format("int8"))
    assert scales.tolist() == pytest.approx([0.5 / 127, 0.5 / 127, 0.1 / 127])


def test_named_layers_stay_in_floating_point() -> None:
    network, task = toy(), toy_task()
    outcome = QuantizeStatic(skip=("inner",)).apply(network, task)
    stored = outcome.network.weights()
    assert stored["inner.weight"].dtype == torch.float32 and "outer.weight" not in stored
    assert list(outcome.skipped.values()) == ["is to be skipped"]


def test_a_layer_to_skip_that_is_not_there_is_named_with_those_near_it() -> None:
    with pytest.raises(SlimlineError, match="names 'iner', which is no layer; near names: inner"):
        QuantizeStatic(skip=("iner",)).apply(toy(), toy_task())
