"""What a tracker shows is what happened, read back from its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from slimline.network.network import Network
from slimline.training.plan import Plan
from slimline.training.recover import recover
from slimline.training.watch import activation_histograms, sparsity, weight_histograms
from slimline.training.workspace import Workspace
from tests.toys import patterns, toy
from tests.training.small import Made, cross_entropy, images, layers, pictures


def test_sparsity_is_the_share_of_zeros_among_weights_of_two_or_more_axes() -> None:
    network = layers()  # 48 and 32 weights, and biases
    assert sparsity(network) == 0
    with torch.no_grad():
        network.weights()["first.weight"][:4] = 0
        network.weights()["first.bias"].zero_()
    assert sparsity(network) == pytest.approx(12 / 80)


def test_weights_of_two_or_more_axes_are_drawn() -> None:
    drawn = weight_histograms(toy())
    assert set(drawn) == {f"weights/{name}.weight" for name in ("stem", "inner", "outer", "head")}
    assert torch.equal(drawn["weights/head.weight"], toy().weights()["head.weight"])


def test_what_every_layer_answers_is_drawn() -> None:
    network, image = toy(), torch.from_numpy(patterns(4, seed=1)[0])
    drawn = activation_histograms(network, {"image": image})
    assert all(name.startswith("activations/") for name in drawn) and len(drawn) == 4
    shapes = [tuple(x.shape) for x in drawn.values()]
    assert shapes == [(4, 16, 8, 8), (4, 24, 4, 4), (4, 16, 4, 4), (4, 4)]
    first, *_, last = drawn.values()
    torch.testing.assert_close(first, F.conv2d(image, network.weights()["stem.weight"].detach(), padding=1))
    torch.testing.assert_close(last, network.run({"image": image})[0])


def read_back(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (found,) = {path.parent for path in folder.rglob("*tfevents*") if path.parent.name == "training"}
    events = EventAccumulator(str(found), {"histograms": 0, "scalars": 0})
    events.Reload()
    return events


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's and tensorflow's own code
def test_event_files_hold_the_curve_and_the_histograms(tmp_path: Path) -> None:
    def score(network: Network) -> float:
        return -float(cross_entropy(network.run(pictures(99).inputs), pictures(99)))

    workspace = Workspace(tmp_path, tracker="tensorboard")
    _, curve = recover(
        images(), Made(pictures), cross_entropy, Plan(50, 0.05, judge_every=25), score, workspace=workspace
    )
    events = read_back(tmp_path)
    tags = events.Tags()
    expected = {
        "loss": (curve.steps, curve.losses),
        "learning_rate": (curve.steps, curve.rates),
        "sparsity": (curve.steps, curve.sparsity),
        "score": (curve.judged, curve.scores),
    }
    assert curve.steps == [20, 40, 50] and curve.judged == [0, 25, 50]
    for name, (steps, values) in expected.items():
        (tag,) = [tag for tag in tags["scalars"] if tag.replace(" ", "_") == name]
        drawn = events.Scalars(tag)
        assert [event.step for event in drawn] == steps
        np.testing.assert_allclose([event.value for event in drawn], values, rtol=1e-6)
    names = {"weights/one.weight", "weights/two.weight", "weights/head.weight"}
    assert names <= set(tags["histograms"]) and len(tags["histograms"]) == 6
    for tag in tags["histograms"]:
        drawn = events.Histograms(tag)
        assert [event.step for event in drawn] == [0, 25, 50]
    before = images().weights()["one.weight"].detach().double()
    first = events.Histograms("weights/one.weight")[0].histogram_value
    assert first.num == before.numel() and first.sum == pytest.approx(float(before.sum()), rel=1e-5)
    assert (first.min, first.max) == pytest.approx((float(before.min()), float(before.max())), rel=1e-5)
