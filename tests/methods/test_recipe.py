"""A recipe applies its methods in order, reads back what it wrote, and refuses an order that cannot work."""

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.methods.distill.distill import Distill
from slimline.methods.method import Method
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from tests.toys import patterns, toy, toy_task

WHOLE = Recipe(
    [
        PruneChannels(widths={"stem": 8}, keep=0.75, importance="l1"),
        Distill(epochs=0.5, views=2),
        FoldBatchNorm(),
        QuantizeStatic(observer="minmax", ops=("aten.conv2d",)),
    ]
)


def test_yaml_reads_back_as_the_same_recipe() -> None:
    assert Recipe.from_yaml(WHOLE.to_yaml()) == WHOLE
    assert Recipe.from_yaml(WHOLE.to_yaml()).lines() == WHOLE.lines()
    assert Recipe.from_yaml(Recipe().to_yaml()) == Recipe()


def test_yaml_is_short_and_can_be_written_by_hand() -> None:
    assert Recipe([PruneChannels(keep=0.25), FoldBatchNorm()]).to_yaml() == (
        "- PruneChannels:\n    keep: 0.25\n- FoldBatchNorm: {}\n"
    )
    by_hand = "- FoldBatchNorm\n- QuantizeStatic:\n- PruneChannels: {keep: 0.25}\n"
    assert Recipe.from_yaml(by_hand).methods == (FoldBatchNorm(), QuantizeStatic(), PruneChannels(keep=0.25))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- FoldBatchNorms", r"No method is called 'FoldBatchNorms'; did you mean FoldBatchNorm;"),
        ("- PruneChannels: {keeep: 1}", "PruneChannels in the recipe: .*keeep"),
        ("- PruneChannels: {keep: 7}", "out of range"),
        ("- PruneChannels: {keep: half}", "is not a number"),
        ("- PruneChannels: [1, 2]", "PruneChannels in the recipe"),
        ("PruneChannels: {}", "A recipe is a YAML list"),
        ("- [FoldBatchNorm]", "is not a method"),
        ("- {FoldBatchNorm: {}, PruneChannels: {}}", "is not a method"),
        ("- 3", "is not a method"),
        ("", "A recipe is a YAML list"),
        ("- {a: [}", "The recipe is not YAML"),
        ("- !!python/object/apply:os.system [ls]", "The recipe is not YAML"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        Recipe.from_yaml(text)


def test_methods_are_applied_in_order_and_leave_their_lines() -> None:
    network = toy()
    recipe = Recipe([PruneChannels(keep=0.5, importance="l1"), FoldBatchNorm()])
    outcome = recipe.apply(network, toy_task())
    assert outcome.network.history == [*network.history, *recipe.lines()]
    assert network.history == toy().history
    by_hand = FoldBatchNorm().apply(PruneChannels(keep=0.5, importance="l1").apply(toy()).network).network
    image = {"image": torch.from_numpy(patterns(7, seed=5)[0])}
    assert torch.equal(outcome.network.run(image)[0], by_hand.run(image)[0])


def test_the_network_given_is_the_teacher() -> None:
    """With random weights in the middle the recovered network still answers as the network given, not as the pruned."""
    network, task = toy(), toy_task(labels=False)
    recovered = Recipe([PruneChannels(keep=0.5), Distill(epochs=8.0, batch=32)]).apply(network, task).network
    pruned = Recipe([PruneChannels(keep=0.5)]).apply(network, task).network
    image = {"image": torch.from_numpy(patterns(200, seed=6)[0])}
    goal = network.run(image)[0]
    distance = [float((goal - n.run(image)[0]).square().mean()) for n in (pruned, recovered)]
    assert distance[1] < 0.5 * distance[0]


@pytest.mark.parametrize("late", [FoldBatchNorm(), PruneChannels(), Distill(), QuantizeStatic()])
def test_float_weights_cannot_be_asked_for_after_quantisation(late: Method) -> None:
    recipe = Recipe([QuantizeStatic(), late])
    with pytest.raises(SlimlineError, match=f"{type(late).__name__} needs float weights: put it before"):
        recipe.apply(toy(), toy_task())


@pytest.mark.parametrize("late", [FoldBatchNorm(), PruneChannels(), Distill(), QuantizeStatic()])
def test_nor_of_a_network_that_came_quantised(late: Method) -> None:
    quantised = Recipe([FoldBatchNorm(), QuantizeStatic()]).apply(toy(), toy_task()).network
    with pytest.raises(SlimlineError, match=f"{type(late).__name__} needs float weights, but the network is quantised"):
        Recipe([late]).apply(quantised, toy_task())


def test_what_leaves_integers() -> None:
    assert WHOLE.leaves_integers() and not Recipe([FoldBatchNorm()]).leaves_integers()
    network = WHOLE.apply(toy(), toy_task()).network
    assert {"torch.int8", "torch.int32"} <= {str(t.dtype) for t in network.weights().values()}


def test_reasons_and_changes_of_every_method_are_collected() -> None:
    outcome = WHOLE.apply(toy(), toy_task())
    assert {"stem", "all trainable weights"} <= set(outcome.changed)
    assert outcome.skipped["head.weight axis 0"] == "is an output of the network"
    assert outcome.curve is not None and np.isfinite(outcome.curve.losses).all()
