import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.invariants import verify
from slimline.network.network import Network
from slimline.network.surgery import set_weight
from slimline.network.trace import trace
from tests.network.networks import NETWORKS, network_of


@pytest.mark.parametrize("name", NETWORKS)
def test_traced_networks_hold_the_invariants(name: str) -> None:
    network = network_of(name)
    assert network.verify() is network


def test_a_weight_that_nothing_reads_is_named() -> None:
    network = network_of("plain adds")
    set_weight(network, "left.over", torch.ones(2))
    with pytest.raises(SlimlineError, match=r"never reads: \['left\.over'\]"):
        verify(network)
    verify(network.tidy_())


def test_a_weight_that_is_not_contiguous_is_named() -> None:
    network = network_of("plain adds")
    head = network.module.get_submodule("head")
    head.weight = nn.Parameter(torch.ones(12, 5).T)
    with pytest.raises(SlimlineError, match=r"head\.weight is not contiguous"):
        verify(network)


def test_inputs_and_outputs_are_counted() -> None:
    network = network_of("plain adds")
    network.output_names = ("one", "two")
    with pytest.raises(SlimlineError, match="1 outputs but 2 names"):
        verify(network)
    network = network_of("plain adds")
    network.examples["second"] = torch.ones(2)
    with pytest.raises(SlimlineError, match="1 inputs but 2 example inputs"):
        verify(network)


class Summed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).t()


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x])


@pytest.mark.parametrize(("module", "shape"), [(Summed(), r"\(\)"), (Turned(), r"\(4, 1\)"), (Doubled(), r"\(2, 4\)")])
def test_every_output_starts_with_the_batch(module: nn.Module, shape: str) -> None:
    with pytest.raises(SlimlineError, match=rf"Output output has shape {shape} for a batch of 1"):
        trace(module, [torch.ones(2, 4)])


def test_an_edge_without_its_source_fails() -> None:
    network = network_of("plain adds")
    first = next(n for n in network.module.graph.nodes if n.op == "call_function")
    other = network_of("plain adds")
    foreign = next(n for n in other.module.graph.nodes if n.op == "placeholder")
    first.args = (foreign, *first.args[1:])
    with pytest.raises(RuntimeError):
        verify(network)


def test_a_network_in_training_is_checked_without_changing_its_statistics() -> None:
    network = network_of("plain adds").set_training_(True)
    before = {n: t.clone() for n, t in network.weights().items()}
    verify(network)
    assert network.is_training()
    assert all(torch.equal(t, before[n]) for n, t in network.weights().items())


def test_examples_of_any_length_are_enough() -> None:
    network: Network = network_of("plain adds")
    for count in (1, 2, 5):
        network.examples = {"x": torch.randn(count, 3, 8, 8)}
        verify(network)


def test_examples_that_the_network_cannot_run_give_a_sentence() -> None:
    network = trace(nn.Embedding(4, 3), [torch.tensor([[1, 2], [3, 0]])])
    network.examples = {"input": torch.tensor([[1, 9], [3, 0]])}
    with pytest.raises(SlimlineError, match=r"cannot run a batch of 1 of its example inputs \(IndexError: index out"):
        verify(network)
