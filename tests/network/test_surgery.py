import pytest
import torch
from torch import Tensor, nn

from slimline.network.surgery import set_bias_, set_weight, unused_name
from slimline.network.trace import trace
from tests.network.networks import network_of, samples


def test_a_stored_weight_is_what_the_graph_reads() -> None:
    network = network_of("plain adds")
    set_weight(network, "head.weight", torch.zeros(5, 12))
    set_weight(network, "head.bias", torch.arange(5.0))
    output = network.run({"x": samples("plain adds", 3)})[0]
    assert torch.equal(output, torch.arange(5.0).expand(3, 5))


def test_floating_point_weights_are_trainable_unless_told_otherwise() -> None:
    network = network_of("plain adds")
    set_weight(network, "head.weight", torch.ones(5, 12))
    assert isinstance(network.weights()["head.weight"], nn.Parameter)
    set_weight(network, "head.weight", torch.ones(5, 12), trainable=False)
    assert not isinstance(network.weights()["head.weight"], nn.Parameter)
    assert "head.weight" not in dict(network.module.named_parameters())
    set_weight(network, "new.place.integers", torch.ones(3, dtype=torch.int8))
    assert dict(network.module.named_buffers())["new.place.integers"].dtype == torch.int8


def test_the_network_does_not_share_the_tensor_it_was_given() -> None:
    network, value = network_of("plain adds"), torch.ones(5, 12)
    set_weight(network, "head.weight", value)
    value.zero_()
    assert network.weights()["head.weight"].min() == 1


def test_unused_names() -> None:
    network = network_of("plain adds")
    assert unused_name(network, "stem.bias") == "stem.bias"
    assert unused_name(network, "stem.weight") == "stem.weight_2"
    set_weight(network, "stem.weight_2", torch.ones(1))  # stored, though the graph does not read it yet
    assert unused_name(network, "stem.weight") == "stem.weight_3"
    assert unused_name(network, "stem_norm.running_mean") == "stem_norm.running_mean_2"


@pytest.mark.parametrize("had_one", [True, False])
def test_a_bias_is_of_this_call_alone(had_one: bool) -> None:
    """Another call of the same layer keeps the bias that it had."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3, bias=had_one)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), self.layer(2 * x)

    x = torch.randn(4, 3)
    network = trace(Twice().eval(), {"x": x})
    before = network.run({"x": x})
    layer = next(n for n in network.module.graph.nodes if "linear" in str(n.target))
    set_bias_(network, layer, torch.tensor([5.0, 6.0, 7.0]))
    after = network.tidy_().verify().run({"x": x})
    weight = network.weights()["layer.weight"]
    assert torch.allclose(after[0], x @ weight.T + torch.tensor([5.0, 6.0, 7.0]))
    assert torch.equal(after[1], before[1])
