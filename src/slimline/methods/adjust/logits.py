"""Logit adjustment: classes that are answered rarely get back what compression took from them.

Menon, Jayasumana, Rawat, Jain, Veit, Kumar (2021). Long-tail learning via logit adjustment. arXiv:2007.07314,
the post-hoc form.

    b'_y = b_y - t log pi_y        pi_y: how often class y is answered

Ours differs: pi is that of the original's answers on training samples; a class that it never gave there is left where
the commonest one is, and all are shifted so that the commonest keeps its bias. The bias of the last layer takes it in,
so it costs nothing when the network runs.
Helps: compression hits rare classes first (Hooker et al. 2019, arXiv:1911.05248): a pruned recogniser of text answers
"blank" where it is unsure, and drops characters.
Does not: change anything where all classes are equally common; help outputs that are no class scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, needs_data, param, register
from slimline.methods.remembered import Remembered
from slimline.network.calls import layer_of
from slimline.network.network import Network, get_tensor
from slimline.network.surgery import set_bias_
from slimline.scores import SAME_NUMBERS, SOFTMAX, FirstOutput
from slimline.task import Array, Samples, Task
from slimline.training.workspace import Workspace

BATCH = 32
LAYERS = frozenset(f"{name}.default" for name in ("linear", "conv1d", "conv2d", "conv3d")) | {"conv2d.padding"}
SAME_ANSWER = 1e-3
"""Adjusting the bias has to give the answers that adjusting the answers gives, up to so much of the largest."""


@register
@dataclass(frozen=True)
class AdjustLogits(Method):
    """Raise the bias of the classes that the original answers rarely."""

    strength: float = param(0.2, low=0.0, high=2.0, doc="t: 0 changes nothing, 1 makes up for the whole imbalance")
    samples: int = param(256, low=1, high=100000, doc="training samples whose answers are counted")

    needs = frozenset({"data", "float weights"})
    cites = ("menon2021longtail",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        samples = needs_data("Logit adjustment", task, network).take(slice(0, self.samples))
        assert task is not None
        if task.original is None:
            raise SlimlineError(
                "AdjustLogits needs the original network: apply it in a Recipe, or pass task.with_original(network)."
            )
        task = task.decided(task.original)
        result, output = network.copy(), task.output
        found = last_layer(result, task)
        if isinstance(found, str) or output is None or task.original is None:
            return Outcome(result, [], {"output": str(found)})
        shift = self.strength * rarity(class_frequencies(task.original, samples, output))
        name = _raise_bias_(result, found, shift)
        if not _as_predicted(network, result, shift, output):
            reason = "the bias of its last layer is not added to its answers alone"
            return Outcome(network.copy(), [], {"output": reason})
        return Outcome(result, [name], {})


def _raise_bias_(network: Network, layer: Node, shift: Tensor) -> str:
    """Add to the bias of a layer, which gets one if it has none; the name of the layer."""
    bias = layer.args[2] if len(layer.args) > 2 else None
    before = get_tensor(network.module, str(bias.target)).detach() if isinstance(bias, Node) else None
    weight = str(layer.args[1].target)  # type: ignore[union-attr]
    new = shift if before is None else before + shift
    set_bias_(network, layer, new.to(get_tensor(network.module, weight).dtype))
    network.tidy_()
    return layer_of(weight)


def rarity(frequencies: Tensor) -> Tensor:
    """-log pi, zero for the commonest class and for those that are never answered."""
    shares = frequencies / frequencies.max()
    return torch.where(shares > 0, -shares.clamp_min(1e-30).log(), 0.0).float()


def class_frequencies(original: Network, samples: Samples, output: FirstOutput) -> Tensor:
    """pi: the share of every class among the original's answers, (classes,)."""
    known = FREQUENCIES.of(original, samples)
    if output.name not in known:
        counts = torch.zeros(output.shape[output.axis - 1], dtype=torch.float64)
        for start in range(0, len(samples), BATCH):
            answers = original.run(samples.take(slice(start, start + BATCH)).tensors())[0]
            counts += torch.bincount(answers.argmax(output.axis).flatten(), minlength=len(counts))
        known[output.name] = counts / counts.sum()
    return known[output.name]


FREQUENCIES = Remembered[Tensor]()


def last_layer(network: Network, task: Task) -> Node | str:
    """The layer whose bias is added to every class score of the first output, or why there is none.

    Args:
        task: decided for the original.
    """
    output = task.output
    if output is None or not task.compares_classes:
        return "its first output holds no class scores"
    (results,) = next(n for n in network.module.graph.nodes if n.op == "output").args
    node = results[0] if isinstance(results, (list, tuple)) else results
    while isinstance(node, Node) and len(node.users) == 1:
        name = str(node.target).removeprefix("aten.")
        if name in LAYERS:
            weight = node.args[1]
            if not isinstance(weight, Node) or weight.op != "get_attr":
                return "the weight of its last layer is computed"
            if len(get_tensor(network.module, str(weight.target))) != output.shape[output.axis - 1]:
                return "its last layer does not give one number per class"
            return node
        if name not in SAME_NUMBERS | SOFTMAX or not node.args:
            return f"{node.name} stands between its last layer and the class scores"
        node = node.args[0]
    return "its class scores are read by other operators too"


def adjusted(answers: Tensor, shift: Tensor, output: FirstOutput) -> Tensor:
    """What the first output, (N, ...), becomes when ``shift`` is added to the logits along the output's axis."""
    along = shift.view([-1 if axis == output.axis else 1 for axis in range(answers.ndim)])
    if output.probabilities and bool((answers >= 0).all()):
        raised = answers * along.exp()
        return raised / raised.sum(output.axis, keepdim=True)
    sums = answers.exp().sum(output.axis)
    if bool(((sums - 1).abs() < SAME_ANSWER).all()):  # logarithms of probabilities
        return (answers + along).log_softmax(output.axis)
    return answers + along


def _as_predicted(before: Network, after: Network, shift: Tensor, output: FirstOutput) -> bool:
    expected = adjusted(before.run(before.examples)[0].float(), shift, output)
    got = after.run(after.examples)[0].float()
    return bool((got - expected).abs().max() <= SAME_ANSWER * expected.abs().max())


def scores_by_strength(
    network: Network, task: Task, strengths: Sequence[float], samples: int = AdjustLogits.samples
) -> Mapping[float, float]:
    """The task's mean score on its validation samples for every strength, from one run of the network.

    Args:
        task: with the original; its score is what decides.
    """
    original = task.original
    assert original is not None
    task = task.decided(original)
    output, validate = task.output, task.validate
    counted = needs_data("Logit adjustment", task, network).take(slice(0, samples))
    assert output is not None
    rare = rarity(class_frequencies(original, counted, output))
    found: dict[float, list[Array]] = {strength: [] for strength in strengths}
    for start in range(0, len(validate), BATCH):
        few = validate.take(slice(start, start + BATCH))
        answers = network.run(few.tensors())
        reference = [] if task.labels_decide(few) else [o.numpy() for o in original.run(few.tensors())]
        others = [o.numpy() for o in answers[1:]]
        for strength, scores in found.items():
            ours = [adjusted(answers[0], strength * rare, output).numpy(), *others]
            scores.append(task.per_sample(ours, few, reference))
    return {strength: float(np.concatenate(scores).mean()) for strength, scores in found.items()}
