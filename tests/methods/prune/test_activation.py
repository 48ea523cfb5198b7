"""Shares of zeros against loops over what the activations put out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.prune.activation import activation_importance, makes_zeros
from slimline.network.axes import axis_groups
from slimline.network.trace import trace
from slimline.task import Task
from tests.network.networks import PlainAdds, network_of, randomise_, samples


def residual() -> PlainAdds:
    """The module of which `network_of` has the trace."""
    torch.manual_seed(0)
    module = PlainAdds()
    randomise_(module)
    return module


def alive(value: Tensor) -> list[float]:
    """The share of numbers of every channel of (N, C, H, W) that are not zero, one number after the other."""
    shares = []
    for channel in range(value.shape[1]):
        numbers = value[:, channel].flatten().tolist()
        shares.append(sum(number != 0 for number in numbers) / len(numbers))
    return shares


def test_a_residual_network_against_loops() -> None:
    """The trunk passes three ReLUs and counts with their mean; inside a block there is one."""
    network, x = network_of("plain adds"), samples("plain adds", 40)
    found = activation_importance(
        network, axis_groups(network).groups, Task(validate={"x": x.numpy()}, score="relative")
    )
    module, trunk = residual(), []
    assert torch.equal(module.stem.weight, network.weights()["stem.weight"])
    with torch.no_grad():
        y = F.relu(module.stem_norm(module.stem(x)))
        trunk.append(alive(y))
        for i, block in enumerate(module.blocks):
            np.testing.assert_allclose(found[f"blocks.{i}.0"], alive(block[:3](y)), rtol=1e-9)
            y = F.relu(y + block(y))
            trunk.append(alive(y))
    np.testing.assert_allclose(found["stem"], np.mean(trunk, 0), rtol=1e-9)


class Linear(nn.Module):
    """One hidden layer behind an activation."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.last, self.activation = nn.Linear(5, 4), nn.Linear(4, 2), activation

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.activation(self.hidden(x)))
        return result


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "relu": (F.relu, True),
    "relu6": (F.relu6, True),
    "clamp from zero on": (lambda x: x.clamp(0, 1), True),
    "clamp at zero": (lambda x: x.clamp_min(0), True),
    "clamp on both sides": (lambda x: x.clamp(-1, 1), False),
    "gelu": (F.gelu, False),
    "silu": (F.silu, False),
    "hardswish": (F.hardswish, False),
    "none": (lambda x: x, False),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_where_nothing_makes_zeros_it_is_the_mean_magnitude(name: str) -> None:
    activation, zeros = ACTIVATIONS[name]
    module = Linear(activation).eval()
    x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    network = trace(module, {"x": torch.from_numpy(x[:2])})
    found = activation_importance(network, axis_groups(network).groups, Task(validate={"x": x}, score="relative"))
    with torch.no_grad():
        hidden = activation(module.hidden(torch.from_numpy(x))).double().numpy()
    expected = [
        sum(v != 0 for v in column) / 50 if zeros else sum(abs(v) for v in column) / 50 for column in hidden.T.tolist()
    ]
    np.testing.assert_allclose(found["hidden"], expected, rtol=1e-6)


def test_a_channel_that_never_says_anything_goes_first() -> None:
    module = Linear(F.relu)
    module.hidden.bias.data[2] = -100
    x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    network = trace(module.eval(), {"x": torch.from_numpy(x[:2])})
    found = activation_importance(network, axis_groups(network).groups, Task(validate={"x": x}, score="relative"))
    assert found["hidden"][2] == 0 and np.delete(found["hidden"], 2).min() > 0


def test_places_of_a_kernel_and_samples_count_alike_whatever_the_batch() -> None:
    """70 samples are three batches, the last of six."""
    network, x = network_of("flatten"), samples("flatten", 70)
    found = activation_importance(
        network, axis_groups(network).groups, Task(validate={"x": x.numpy()}, score="relative")
    )
    weights = {name: w.detach() for name, w in network.weights().items()}
    y = F.conv2d(x, weights["features.0.weight"], weights["features.0.bias"], padding=1)
    y = F.batch_norm(
        y, weights["features.1.running_mean"], weights["features.1.running_var"], weights["features.1.weight"],
        weights["features.1.bias"],
    )  # fmt: skip
    np.testing.assert_allclose(found["features.0"], alive(F.relu(y)), atol=2e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("depthwise", ["relu6"]),
        ("plain adds", ["relu", "relu_", "relu_1", "relu__1", "relu_2"]),
        ("sequence", ["relu"]),
        ("attention", []),
    ],
)
def test_which_operators_make_zeros(name: str, expected: list[str]) -> None:
    """None of hardswish, GELU and tanh does."""
    assert [n.name for n in network_of(name).module.graph.nodes if makes_zeros(n)] == expected


def test_it_needs_data() -> None:
    network = network_of("plain adds")
    with pytest.raises(SlimlineError, match="Activation importance needs data"):
        activation_importance(network, axis_groups(network).groups, None)
