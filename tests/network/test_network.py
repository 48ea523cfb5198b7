import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.network.network import Network, get_tensor
from slimline.network.surgery import set_weight
from slimline.network.trace import trace
from tests.network.networks import NETWORKS, PlainAdds, network_of, randomise_, samples


class Modes(nn.Module):
    """A convolution, dropout and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop, self.norm = nn.Conv2d(3, 8, 1), nn.Dropout(0.5), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.drop(self.conv(x)))
        return result


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_what_the_module_computes(name: str) -> None:
    torch.manual_seed(0)
    module = randomise_(NETWORKS[name]())
    x = samples(name, 5, seed=3)
    with torch.no_grad():
        expected = module(x)
    torch.testing.assert_close(network_of(name).run({"x": x})[0], expected, rtol=1e-5, atol=1e-6)


def test_weights_are_those_of_the_module() -> None:
    torch.manual_seed(0)
    module = randomise_(PlainAdds())
    network = network_of("plain adds")
    state = {n: t for n, t in module.state_dict().items() if not n.endswith("num_batches_tracked")}
    weights = network.weights()
    assert set(weights) == set(state)
    assert all(torch.equal(weights[n], t) for n, t in state.items())
    assert network.parameter_count() == sum(t.numel() for t in state.values())
    trainable = {n for n, _ in network.module.named_parameters()}
    assert trainable == {n for n, _ in module.named_parameters()}


def test_a_copy_shares_nothing() -> None:
    network = network_of("plain adds")
    x = samples("plain adds", 3)
    expected, code = network.run({"x": x})[0], network.module.code
    copy = network.copy()
    for tensor in [*copy.weights().values(), *copy.examples.values()]:
        tensor.detach().zero_()
    copy.history.append("changed")
    copy.set_training_(True)
    assert torch.equal(network.run({"x": x})[0], expected)
    assert network.module.code == code and network.history == ["traced from PlainAdds"]
    assert network.examples["x"].abs().sum() > 0


def test_a_copy_has_the_same_digest_and_any_change_another() -> None:
    network = network_of("plain adds")
    assert network.copy().digest() == network.digest()
    name, weight = next((n, t) for n, t in network.weights().items() if t.is_floating_point() and t.numel())
    nudged = network.copy()
    changed = weight.detach().clone()
    changed.flatten()[-1] += 1e-3
    set_weight(nudged, name, changed)
    assert nudged.digest() != network.digest()
    half = network.copy()
    set_weight(half, name, weight.detach().to(torch.bfloat16))
    assert half.digest() != network.digest()
    rewired = network.copy()
    call = next(n for n in rewired.module.graph.nodes if n.op == "call_function")
    with rewired.module.graph.inserting_after(call):
        twice = rewired.module.graph.call_function(torch.ops.aten.neg.default, (call,))
    call.replace_all_uses_with(twice, delete_user_cb=lambda user: user is not twice)
    rewired.module.recompile()
    assert rewired.digest() != network.digest()


def test_training_mode_acts_as_that_of_the_module() -> None:
    """Batch norm normalises with the batch and updates its statistics as torch does; dropout drops."""
    module = Modes().eval()
    network = trace(module, [torch.randn(4, 3, 5, 5)])
    x = torch.randn(16, 3, 5, 5)
    assert not network.is_training()
    network.set_training_(True)
    assert network.is_training()
    module.train()
    torch.manual_seed(5)
    ours = network.run({"x": x})[0]
    torch.manual_seed(5)
    with torch.no_grad():
        theirs = module(x)
    torch.testing.assert_close(ours, theirs)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(network.weights()[f"norm.{name}"], getattr(module.norm, name))
    network.set_training_(False)
    module.eval()
    with torch.no_grad():
        torch.testing.assert_close(network.run({"x": x})[0], module(x))
    before = network.weights()["norm.running_mean"].clone()
    assert torch.equal(network.run({"x": x})[0], network.run({"x": x})[0])
    assert torch.equal(network.weights()["norm.running_mean"], before)


def test_a_norm_without_statistics_of_its_own_is_the_same_in_both_modes() -> None:
    """There is nothing else it could use, as where a weight is standardised."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            weight = F.batch_norm(self.conv.weight.flatten(2).transpose(0, 1), None, None, training=True)
            return F.conv2d(x, weight.transpose(0, 1).unflatten(2, (1, 1)), self.conv.bias)

    module, x = Own().eval(), torch.randn(2, 3, 4, 4)
    network = trace(module, {"x": x})
    for training in (True, False):
        network.set_training_(training)
        assert not network.is_training()
        torch.testing.assert_close(network.run({"x": x})[0], module(x).detach())


def test_inputs_are_given_by_name() -> None:
    class Difference(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a - 2 * b

    network = trace(Difference(), [torch.randn(2, 3), torch.randn(2, 3)])
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    assert network.input_names == ("a", "b")
    torch.testing.assert_close(network.run({"b": b, "a": a})[0], a - 2 * b)
    assert not network.run({"a": a.requires_grad_(), "b": b})[0].requires_grad


def test_tidying_drops_dead_nodes_and_the_weights_they_read() -> None:
    network: Network = network_of("plain adds")
    graph = network.module.graph
    expected = network.run({"x": samples("plain adds", 2)})[0]
    set_weight(network, "dead.weight", torch.ones(3))
    set_weight(network, "unread", torch.ones(3))
    with graph.inserting_before(next(iter(graph.nodes)).next):
        weight = graph.create_node("get_attr", "dead.weight")
        graph.call_function(F.relu, (weight,))
    assert "dead.weight" in network.weights()
    network.tidy_().verify()
    assert "dead.weight" not in network.weights()
    stored = {n for n, _ in network.module.named_parameters()} | {n for n, _ in network.module.named_buffers()}
    assert stored == set(network.weights())
    assert torch.equal(network.run({"x": samples("plain adds", 2)})[0], expected)


def test_a_tensor_is_found_by_its_dotted_name() -> None:
    network = network_of("plain adds")
    assert get_tensor(network.module, "blocks.0.4.running_var") is network.weights()["blocks.0.4.running_var"]
    with pytest.raises(AttributeError):
        get_tensor(network.module, "blocks.7.weight")
