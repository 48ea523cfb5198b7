"""Where tensors lie does not change what they say."""

import pytest
import torch
from torch import Tensor, nn

from slimline.network.trace import trace
from slimline.training.layout import channels_last, channels_last_, contiguous_, move_
from slimline.training.plan import Plan
from slimline.training.recover import recover
from tests.toys import patterns, toy
from tests.training.small import Made, cross_entropy, differences, pictures

CPU = torch.device("cpu")


def test_images_get_their_channels_innermost_and_other_tensors_stay() -> None:
    image = torch.randn(2, 3, 4, 5)
    assert channels_last(image).stride() == (60, 1, 15, 3) and torch.equal(channels_last(image), image)
    for shape in ((3,), (2, 3), (2, 3, 4), (2, 3, 4, 5, 6)):
        x = torch.randn(shape)
        assert channels_last(x) is x


def test_there_and_back_the_network_is_the_same() -> None:
    network, images = toy(), {"image": torch.from_numpy(patterns(8, seed=1)[0])}
    turned = channels_last_(network.copy())
    assert not turned.weights()["inner.weight"].is_contiguous()
    assert not turned.weights()["stem.weight"].is_contiguous() or turned.weights()["stem.weight"].shape[1] == 1
    torch.testing.assert_close(turned.run(images)[0], network.run(images)[0])
    back = contiguous_(turned)
    assert all(w.is_contiguous() for w in back.weights().values()) and differences(network, back) == []
    assert [name for name, _ in back.module.named_parameters()] == [n for n, _ in network.module.named_parameters()]
    back.verify()


def test_weights_are_contiguous_again_although_training_stores_them_channels_last() -> None:
    trained, _ = recover(toy(), Made(pictures), cross_entropy, Plan(2, 0.01))
    assert all(t.is_contiguous() for t in trained.weights().values())


def test_a_buffer_of_another_order_becomes_contiguous_and_stays_a_buffer() -> None:
    network = toy()
    before = torch.randn(2, 3, 4, 5).permute(0, 2, 3, 1)
    network.module.get_submodule("stem_norm").register_buffer("map", before)
    with network.module.graph.inserting_before(next(iter(network.module.graph.nodes))):
        network.module.graph.get_attr("stem_norm.map")
    after = contiguous_(network).weights()["stem_norm.map"]
    assert after.is_contiguous() and torch.equal(after, before) and not isinstance(after, nn.Parameter)


def test_what_is_frozen_stays_frozen() -> None:
    network = channels_last_(toy())
    network.module.get_parameter("inner.weight").requires_grad_(False)
    weights = contiguous_(network).weights()
    assert not weights["inner.weight"].requires_grad and weights["outer.weight"].requires_grad


def test_a_weight_with_two_names_stays_one() -> None:
    network = toy()
    network.module.get_submodule("outer").twin = network.module.get_parameter("inner.weight")
    first = next(iter(network.module.graph.nodes))
    with network.module.graph.inserting_before(first):
        network.module.graph.get_attr("outer.twin")
    weights = contiguous_(channels_last_(network)).weights()
    assert weights["outer.twin"] is weights["inner.weight"] and weights["inner.weight"].is_contiguous()


class Positions(nn.Module):
    """Adds the place of every number to it; the graph makes the places itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[1], device=x.device)


@pytest.mark.parametrize("device", [CPU, torch.device("meta")])
def test_what_the_graph_makes_moves_along(device: torch.device) -> None:
    network = move_(trace(Positions(), [torch.zeros(2, 5)]), device)
    (answer,) = network.run({"x": torch.zeros(2, 5, device=device)})
    assert answer.device == device
    if device == CPU:
        assert answer.tolist() == [[0.0, 1, 2, 3, 4]] * 2


def test_weights_move_along() -> None:
    moved = move_(toy(), torch.device("meta"))
    assert {w.device.type for w in moved.weights().values()} == {"meta"}
    assert moved.run({"image": torch.zeros(3, 1, 8, 8, device="meta")})[0].shape == (3, 4)
