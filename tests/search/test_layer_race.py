"""Only what is measured faster is kept, and what is measured computes what the layer computes in its network."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.measure.statistics import Ratio
from slimline.methods.factorize.cp import FactorizeCP
from slimline.methods.factorize.factors import layers
from slimline.methods.factorize.svd import FactorizeSVD
from slimline.methods.factorize.tucker import FactorizeTucker
from slimline.methods.method import Method, Outcome
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.network.shapes import recorded
from slimline.network.trace import trace
from slimline.runtimes.registry import open_artifact
from slimline.runtimes.runtime import Array, Artifact
from slimline.search.layer_race import LAYER_RACE, LayerRace, faster, owner
from slimline.task import Samples
from tests.toys import patterns, toy


def test_a_layer_is_rewritten_only_where_the_whole_interval_says_faster() -> None:
    ratios = {
        "clear": Ratio(1.5, 1.4, 1.6, 3),
        "noise": Ratio(1.1, 0.9, 1.3, 3),
        "slower": Ratio(0.8, 0.7, 0.9, 3),
        "same": Ratio(1.0, 1.0, 1.0, 3),
    }
    kept, left = faster(ratios)
    assert kept == ("clear",)
    assert left["noise"] == "is not measured to be faster: 1.10 times the speed, 0.90 to 1.30"
    assert set(left) == {"noise", "slower", "same"}


def test_a_new_weight_belongs_to_the_longest_name_it_begins_with() -> None:
    names = ["block", "block.conv", "alone"]
    weights = ["block.conv.first.weight", "block.last.weight", "alone_core.weight", "other.first.weight"]
    assert [owner(w, names) for w in weights] == ["block.conv", "block", "alone", ""]


class Fake:
    """In the place of a race: keeps what the contestants answer, and says how their multiply-adds compare."""

    def __init__(self, batch: int = 1) -> None:
        self.plan = replace(LAYER_RACE, batch=batch)
        self.answers: list[dict[str, Array]] = []
        self.inputs: list[Array] = []

    def __call__(
        self, contestants: Mapping[str, Artifact], inputs: Mapping[str, Array], plan: Any, threads: int
    ) -> Any:
        assert plan == self.plan and threads == 3
        runners = {label: open_artifact(artifact, 1) for label, artifact in contestants.items()}
        self.answers.append({label: np.array(runner.run(inputs)[0]) for label, runner in runners.items()})
        self.inputs.append(inputs["x"])
        return self

    def ratio(self, slow: str, fast: str) -> Ratio:
        assert (slow, fast) == ("layer", "rewritten")
        return Ratio(2.0, 1.9, 2.1, 3)


def value_of(network: Network, node: str, images: Array) -> Array:
    given = [torch.from_numpy(images)]
    return recorded(network, given, lambda n, value: value if n.name == node else None)[node].detach().numpy()


@pytest.mark.parametrize("method", [FactorizeTucker(), FactorizeCP(), FactorizeSVD()])
def test_every_layer_runs_alone_on_what_it_reads(method: Method, tmp_path: Path) -> None:
    before = toy()
    outcome = method.apply(before)
    assert len(outcome.changed) == 2
    images, run = patterns(20, seed=3)[0], Fake()
    place = ("torch", "")
    ratios = LayerRace(place, 3, tmp_path, run=run).ratios(before, outcome, Samples({"image": images}))
    assert list(ratios) == outcome.changed and ratios[outcome.changed[0]].value == 2.0
    calls = {layer.name: layer.node for layer in layers(before, (), "Test")[0]}
    for name, answers, read in zip(outcome.changed, run.answers, run.inputs, strict=True):
        call = calls[name]
        np.testing.assert_allclose(answers["layer"], value_of(before, call.name, images[:16]), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(read, value_of(before, call.all_input_nodes[0].name, images[:16]))
        alone = type(method)(layers=(name,)).apply(before).network  # type: ignore[call-arg]
        reader = next(iter(call.users)).name  # what the rewritten layer puts out is what this node reads in its place
        (node,) = [n for n in alone.module.graph.nodes if n.name == reader]
        place_of_call = next(iter(call.users)).all_input_nodes.index(call)
        last = node.all_input_nodes[place_of_call].name
        np.testing.assert_allclose(answers["rewritten"], value_of(alone, last, images[:16]), rtol=1e-4, atol=1e-4)


def test_only_the_layers_that_are_named_are_raced(tmp_path: Path) -> None:
    """A network rewritten twice: the layers that the second method made are layers like any other."""
    before = toy()
    first = FactorizeTucker(layers=("inner",)).apply(before).network
    second = FactorizeSVD(layers=("outer",)).apply(first)
    both = second.network
    run = Fake()
    images = Samples({"image": patterns(20, seed=3)[0]})
    assert list(LayerRace(("torch", ""), 3, tmp_path, run=run).ratios(first, second, images)) == ["outer"]
    assert macs(both) < macs(first) < macs(before)
    assert len(run.answers) == 1 and sorted(p.name for p in tmp_path.iterdir()) == ["000-layer", "000-rewritten"]


class Folded(nn.Module):
    """Eight rows of every image are samples of their own for the layer, or, of all samples, its last axis."""

    def __init__(self, turned: bool = False) -> None:
        super().__init__()
        self.inner, self.turned = nn.Linear(8, 64), turned

    def forward(self, image: Tensor) -> Tensor:
        rows = image.flatten(0, 2)
        if self.turned:
            rows = rows.reshape(-1, 64).mean(0).reshape(8, 8)[:5]
        result: Tensor = self.inner(rows).mean() + image.flatten(1)
        return result


def folded(turned: bool) -> tuple[Network, Outcome, Samples]:
    network = trace(Folded(turned).eval(), {"image": torch.randn(2, 1, 8, 8)})
    return network, FactorizeSVD(rank=4).apply(network), Samples({"image": patterns(20, seed=3)[0]})


def test_what_is_folded_into_the_first_axis_is_work_of_one_sample(tmp_path: Path) -> None:
    network, outcome, samples = folded(turned=False)
    run = Fake(batch=8)
    assert list(LayerRace(("torch", ""), 3, tmp_path, run=run).ratios(network, outcome, samples)) == ["inner"]
    assert run.inputs[0].shape == (16 * 8, 8)


def test_a_layer_that_reads_no_samples_is_told(tmp_path: Path) -> None:
    network, outcome, samples = folded(turned=True)
    with pytest.raises(SlimlineError, match="inner cannot be raced alone: what it reads has no axis of samples first"):
        LayerRace(("torch", ""), 3, tmp_path, run=Fake()).ratios(network, outcome, samples)
