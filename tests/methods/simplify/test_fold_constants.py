"""Constants are stored with the values that the graph computed, within the bound, and nothing random is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from slimline.methods.recipe import Recipe
from slimline.methods.share.codebook import ShareWeights
from slimline.methods.simplify.fold_constants import FoldConstants, computed, constants
from slimline.network.cost import weight_bytes
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.methods.simplify.equality import Constant, Does, applied, count, network_of
from tests.runtimes.networks import Quantized, traced
from tests.toys import toy

aten = torch.ops.aten


def test_what_no_input_reaches_is_constant() -> None:
    network = network_of(Does(lambda x, c: x * (c() + torch.arange(3)).exp() + x.shape[0], Constant(torch.ones(3))), 3)
    found = {n.name: sorted(names) for n, names in constants(network).items()}
    assert found == {
        "parts_0_value": ["parts.0.value"],
        "arange": [],
        "add": ["parts.0.value"],
        "exp": ["parts.0.value"],
    }
    values = computed(network, constants(network))
    torch.testing.assert_close(list(values.values())[-1], torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).exp())


def test_weight_norm_is_stored_as_the_weight_of_its_layer() -> None:
    """g v / |v|, per output channel; trainable as both were."""
    network = network_of(Does(lambda x, a: a(x), weight_norm(nn.Conv2d(3, 4, 2))), 3, 5, 5)
    g, v = (t for name, t in network.weights().items() if "original" in name)
    outcome = applied(FoldConstants(), network)
    assert outcome.changed == ["parts.0.weight"] and count(outcome.network) == 1
    weight = outcome.network.weights()["parts.0.weight"]
    norm = v.detach().flatten(1).pow(2).sum(1).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(weight.detach(), g.detach() * v.detach() / norm)
    assert weight.requires_grad and not any("original" in name for name in outcome.network.weights())


def test_tables_are_stored_and_stay_no_parameters() -> None:
    network = network_of(Does(lambda x, c: x + c().cumsum(0)[torch.arange(4) % 2], Constant(torch.randn(2))), 4)
    outcome = applied(FoldConstants(), network)
    (stored,) = outcome.network.weights().values()
    assert count(outcome.network) == 1 and not stored.requires_grad and len(outcome.changed) == 1


def sizes(network: Network, **limits: float) -> tuple[int, int, dict[str, str]]:
    outcome = applied(FoldConstants(**limits), network)
    assert count(outcome.network, "tanh") == 0
    return weight_bytes(network), weight_bytes(outcome.network), outcome.skipped


def stretched(times: int, size: int = 8) -> Network:
    """A table of so many numbers of 8 bytes, repeated."""
    return network_of(Does(lambda x, c: x[:, :1] * c().tanh().repeat(times), Constant(torch.randn(size))), 3)


def test_a_result_is_stored_within_the_bound_only() -> None:
    """8 numbers of 8 bytes repeated 4 and 5 times, with nothing to spare; the table of 8 is stored in both cases."""
    before, after, skipped = sizes(stretched(4), spare=0.0)
    assert (before, after, skipped) == (64, 256, {})
    before, after, skipped = sizes(stretched(5), spare=0.0)
    assert (before, after) == (64, 64)  # the tanh of it
    assert list(skipped) == ["repeat"] and "would store 0.00 MiB" in skipped["repeat"]
    assert sizes(stretched(5), spare=0.001)[1] == 320 and sizes(stretched(5), growth=5.0, spare=0.0)[1] == 320


def test_a_small_result_of_a_large_one_is_stored_and_a_large_one_not() -> None:
    """600 x 500 numbers of 8 bytes are 2.29 MiB, made of nothing; their sums are few."""
    network = network_of(Does(lambda x: x[:, :1] * torch.ones(600, 500, dtype=torch.float64).cumsum(1).sum(0)), 3)
    outcome = applied(FoldConstants(), network)
    assert len(outcome.changed) == 1 and count(outcome.network, "ones", "cumsum", "sum") == 0
    network = network_of(Does(lambda x: (x[:, :1, None] * torch.ones(600, 500, dtype=torch.float64)).sum(2)), 3)
    outcome = applied(FoldConstants(), network)
    assert not outcome.changed and list(outcome.skipped.values()) == [
        "would store 2.29 MiB in the place of 0.00 MiB of weights"
    ]


def test_a_weight_that_stays_for_others_is_not_replaced() -> None:
    """A transposed copy of a table that is also looked up would be stored beside it."""

    def tied(x: Tensor, table: nn.Module) -> Tensor:
        weight: Any = table.weight
        return F.embedding(x.argmax(1), weight) @ weight.t()

    network = network_of(Does(tied, nn.Embedding(300, 500)), 5)
    outcome = applied(FoldConstants(), network)
    (why,) = outcome.skipped.values()
    assert not outcome.changed and why == "would store 1.14 MiB in the place of 0.00 MiB of weights"
    alone = network_of(Does(lambda x, table: x @ table.weight.t(), nn.Embedding(300, 500)), 500)
    assert len(applied(FoldConstants(), alone).changed) == 1


RANDOM: list[Callable[[Tensor, nn.Module], Tensor]] = [
    lambda x, c: x + 0 * torch.rand(3),
    lambda x, c: x + 0 * torch.rand_like(c()),
    lambda x, c: x + 0 * torch.bernoulli(c().sigmoid()),
    lambda x, c: x + 0 * F.dropout(c(), 0.5, training=True),
]


@pytest.mark.parametrize("does", RANDOM)
def test_nothing_random_is_stored(does: Callable[[Tensor, nn.Module], Tensor]) -> None:
    network = network_of(Does(does, Constant(torch.randn(3))), 3)
    for node in network.module.graph.find_nodes(op="call_function", target=aten.dropout.default):
        node.update_arg(2, True)  # tracing switches it off
    network.module.recompile()
    outcome = FoldConstants().apply(network)
    drawn = ("rand", "rand_like", "bernoulli", "dropout")
    assert count(outcome.network, *drawn) == count(network, *drawn) == 1


def test_a_dropout_that_is_switched_off_is_no_obstacle() -> None:
    network = network_of(Does(lambda x, c: x + F.dropout(c(), 0.5, training=False).exp(), Constant(torch.randn(3))), 3)
    assert count(applied(FoldConstants(), network).network) == 1


def test_dequantised_weights_stay_integers() -> None:
    network = traced(Quantized())
    outcome = FoldConstants().apply(network)
    assert not outcome.changed and outcome.network.module.code == network.module.code


def test_what_depends_on_the_batch_is_no_constant() -> None:
    network = network_of(Does(lambda x, c: x + c().expand(x.shape[0], 3), Constant(torch.randn(1, 3))), 3)
    assert not applied(FoldConstants(), network).changed


def test_parts_of_a_split_are_stored_each() -> None:
    network = network_of(Does(lambda x, c: x * c().chunk(2)[0] + c().chunk(2)[1], Constant(torch.randn(6))), 3)
    outcome = applied(FoldConstants(), network)
    assert len(outcome.network.weights()) == 2 and count(outcome.network) == 2


def test_a_name_in_use_is_not_taken() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.exp, self.value = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.exp + self.value.exp()

    network = trace(Named().double(), {"x": torch.randn(2, 3, dtype=torch.float64)})
    outcome = applied(FoldConstants(), network)
    assert outcome.changed == ["exp_2"] and sorted(outcome.network.weights()) == ["exp", "exp_2"]


def test_a_codebook_is_not_written_out_again() -> None:
    """The weights that it stands for are constants too, but it is there to be small."""
    network = Recipe([ShareWeights(clusters=16, smallest=64)]).apply(toy()).network
    outcome = FoldConstants().apply(network)
    assert outcome.network.parameter_count() == network.parameter_count()
    assert torch.uint8 in {t.dtype for t in outcome.network.weights().values()}
