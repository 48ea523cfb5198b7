"""What is looked up in a codebook learns as the weights themselves would, brought back to it after every step."""

import pytest
import torch
from torch import Tensor, nn

from slimline.methods.share.codebook import ShareWeights
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.training.codebooks import weights_of_entries
from slimline.training.keep_zeros import KeepZeros, zeros_to_keep
from slimline.training.plan import Plan
from slimline.training.recover import recover
from tests.training.small import Layers, Made, curves, layers, module, squared


def shared(clusters: int = 5, rows: int = 0) -> Network:
    """`Layers` of whose first layer, 16 x 3, the weights are looked up."""
    method = ShareWeights(clusters=clusters, rows=rows, smallest=1, layers=("first",))
    return method.apply(layers()).network


def clusters_of(network: Network, rows: int) -> tuple[Tensor, Tensor]:
    """(16, 3): the first layer's weight, taken from what a copy without the rest answers, and the place of each."""
    weight = probe(network)
    books = network.weights()["first.weight_codebook"].detach()
    book = torch.arange(16)[:, None].expand(16, 3) // (rows or 16)
    nearest = (weight[:, :, None] - books[book]).abs().argmin(2)
    assert torch.equal(books[book, nearest], weight)
    return weight, book * books.shape[1] + nearest


def probe(network: Network) -> Tensor:
    """What the node that the first linear layer reads its weight from holds."""
    seen = {}
    linear = next(n for n in network.module.graph.nodes if n.target is torch.ops.aten.linear.default)

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            seen[n] = super().run_node(n)
            return seen[n]

    Watch(network.module).run(torch.zeros(2, 3))
    found: Tensor = seen[linear.args[1]].detach()
    return found


@pytest.mark.parametrize(("clusters", "rows"), [(5, 0), (16, 0), (4, 0), (2, 0), (17, 0), (3, 4), (6, 5)])
def test_entries_stand_for_the_weights_that_equal_them(clusters: int, rows: int) -> None:
    network = shared(clusters, rows)
    _, place = clusters_of(network, rows)
    (found,) = weights_of_entries(network).values()
    expected = torch.bincount(place.flatten(), minlength=found.numel()).clamp_min(1)
    assert found.flatten().tolist() == expected.tolist()


@pytest.mark.parametrize(("clusters", "rows"), [(5, 0), (17, 0), (3, 4)])
def test_training_is_that_of_the_weights_brought_back_to_their_codebook_after_every_step(
    clusters: int, rows: int
) -> None:
    """By hand: a dense layer all of whose gradients are the means over their clusters."""
    start = shared(clusters, rows)
    weight, place = clusters_of(start, rows)
    model = module(Layers)
    assert isinstance(model, Layers)
    model.first.weight.data.copy_(weight)
    groups = [{"params": [model.first.weight, model.second.weight], "weight_decay": 0.05}]
    groups += [{"params": [model.first.bias, model.second.bias], "weight_decay": 0.0}]
    by_hand = torch.optim.SGD(groups, 0.05, momentum=0.9, nesterov=True)
    for step in range(12):
        batch = curves(step)
        by_hand.zero_grad()
        nn.MSELoss()(model(batch.inputs["x"]), batch.targets[0]).backward()
        gradient = model.first.weight.grad
        assert gradient is not None
        sums = torch.zeros(int(place.max()) + 1).index_add(0, place.flatten(), gradient.flatten())
        gradient.copy_((sums / torch.bincount(place.flatten()).clamp_min(1))[place])
        for group in by_hand.param_groups:
            group["lr"] = 0.05
        by_hand.step()
    plan = Plan(12, 0.05, weight_decay=0.05, schedule="constant", gradient_norm=1e9)
    trained, _ = recover(start, Made(curves), squared, plan)
    torch.testing.assert_close(probe(trained), model.first.weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(trained.weights()["second.weight"], model.second.weight, rtol=1e-4, atol=1e-6)
    assert (probe(trained) - weight).abs().max() > 0.01


def test_zeros_that_share_a_value_stay_zeros() -> None:
    """Half of the weights are zeros; of five values one is zero, too few to be meant where weights are stored."""
    sparse = layers()
    weight = sparse.weights()["first.weight"].detach()
    weight.flatten()[::2] = 0.0
    start = ShareWeights(clusters=11, smallest=1, layers=("first",)).apply(sparse).network
    assert not probe(start)[weight == 0].any()
    masks = zeros_to_keep(start)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"first.weight_codebook": 1}
    trained, _ = recover(start, Made(curves), squared, Plan(12, 0.05), hooks=[KeepZeros(masks)])
    assert torch.equal(probe(trained) == 0, probe(start) == 0)


def test_what_is_handed_back_learns_elsewhere_as_any_other_network() -> None:
    trained, _ = recover(shared(), Made(curves), squared, Plan(2, 0.05))
    assert not any(weight._backward_hooks for weight in trained.weights().values())


class Looked(nn.Module):
    """A row of a table, looked up by a stored number and read at every place, as the kind of a token often is."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.kinds, self.head = nn.Embedding(6, 8), nn.Embedding(2, 8), nn.Linear(8, 4)
        self.register_buffer("kind", torch.zeros(1, 6, dtype=torch.int64))
        self.register_buffer("place", torch.arange(6))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(x + (self.kinds(self.kind) + self.places(self.place)))
        return result


def test_tables_that_were_in_the_network_are_no_codebooks() -> None:
    assert weights_of_entries(trace(Looked(), [torch.zeros(2, 6, 8)])) == {}
    assert weights_of_entries(layers()) == {}


@pytest.mark.parametrize("layer", ["kinds", "places"])
def test_a_shared_table_counts_once_wherever_its_rows_are_read(layer: str) -> None:
    network = trace(Looked(), [torch.zeros(2, 6, 8)])
    rows = network.weights()[f"{layer}.weight"]
    (found,) = weights_of_entries(ShareWeights(clusters=2, smallest=1, layers=(layer,)).apply(network).network).items()
    assert found[0] == f"{layer}.weight_codebook"
    assert int(found[1].sum()) == rows.numel()
