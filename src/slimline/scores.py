"""Scores per sample: against labels, or against the original network's own answers; and what those answers are.

Every score here lies at most at 1, which is what the original gets against itself. Without labels a score says how
well the candidate agrees with the original, never how often either is right.

What the first output of a network is, when the user names no score (`first_output`); the first rule that holds counts:

1. whole numbers: the share of equal entries;
2. probabilities or their logarithms (they sum to one along an axis): class scores, compared by their argmax;
3. a name that speaks of embeddings, features or hidden states: cosine;
4. a name that speaks of logits, probabilities or classes: class scores;
5. rows of length one: cosine;
6. a linear layer or a convolution last, whose answers are decided (entropy of their softmax below `DECIDED` of the
   largest possible) and not always the same class: class scores;
7. vectors of at least `FEWEST_OF_A_VECTOR` numbers: cosine;
8. anything else: relative error.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from slimline.errors import SlimlineError
from slimline.network.network import Network

Array = NDArray[Any]
Scores = NDArray[np.float64]
ScoreFunction = Callable[[list[Array], Array], Scores]
"""(outputs, labels) -> one score per sample, higher is better."""

DECIDED = 0.8
FEWEST_OF_A_VECTOR = 16
UNIT_TOLERANCE = 1e-3
SOFTMAX_TOLERANCE = 0.05
"""Sums of probabilities may be this far from one when the graph ends in a softmax: 8-bit ones are rounded."""
CLASS_WORDS = frozenset(
    ("logit", "logits", "prob", "probs", "probability", "probabilities", "softmax", "class", "classes")
)
EMBEDDING_WORDS = frozenset(
    ("embed", "embeds", "embedding", "embeddings", "feature", "features", "hidden", "pooler", "latent")
)

SOFTMAX = frozenset(("softmax.int", "_softmax.default", "log_softmax.int", "_log_softmax.default"))
LINEAR = frozenset(
    f"{name}.default"
    for name in ("linear", "addmm", "mm", "matmul", "bmm", "conv1d", "conv2d", "conv3d", "convolution")
) | {"conv2d.padding", "conv1d.padding"}
SAME_NUMBERS = frozenset(
    ("reshape.default", "view.default", "_unsafe_view.default", "flatten.using_ints", "permute.default",
     "transpose.int", "squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default", "clone.default",
     "contiguous.default", "alias.default", "to.dtype", "_to_copy.default", "dropout.default", "slice.Tensor")
)  # fmt: skip
"""Operators that hand on the numbers they get; `quantized_decomposed` ones do so but for rounding."""


@dataclass(frozen=True)
class FirstOutput:
    """What the first output of the original is, found once, from its answers to some of the user's samples."""

    name: str
    of: int
    """Number of outputs of the network."""
    shape: tuple[int, ...]
    """Of one sample."""
    score: str
    """The score for such outputs when the user names none."""
    why: str
    axis: int
    """Where the classes lie, if it holds class scores; the batch is axis 0."""
    probabilities: bool = False
    """Whether the network ends in a softmax: the classes of every row sum to one."""
    integers: bool = False

    @property
    def positions(self) -> bool:
        """Whether there is an answer per position (a map or a sequence), not one per sample."""
        return len(self.shape) > 1


# --- the scores ----------------------------------------------------------------------------------------------------


def accuracy(outputs: list[Array], labels: Array) -> Scores:
    """1 where the largest of (N, classes) outputs is the label, else 0.

    Raises:
        SlimlineError: the outputs are not (N, classes) or a label is not a class number.
    """
    logits = outputs[0]
    if logits.ndim != 2 or len(logits) != len(labels):
        raise SlimlineError(
            f"The model's output has shape {logits.shape}, which does not match {len(labels)} class labels: "
            "accuracy needs (samples, classes); give Task(score=your_function) for other outputs, or a score that "
            "needs no labels: agreement, cosine or relative."
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise SlimlineError(
            f"Labels of shape {labels.shape} and type {labels.dtype} are not class numbers: accuracy needs one "
            f"integer per sample."
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= logits.shape[1]):
        raise SlimlineError(
            f"The model has {logits.shape[1]} classes but the labels run from {labels.min()} to {labels.max()}: "
            "the output does not match the labels."
        )
    right: Scores = (logits.argmax(1) == labels).astype(np.float64)
    return right


def agreement(outputs: list[Array], original: Array, axis: int | None = None) -> Scores:
    """Share of a sample's positions whose largest class is that of the original; of equal entries for whole numbers.

    Args:
        outputs: the candidate's outputs; the first counts. (N, classes) is one position per sample.
        original: the original's first output.
        axis: where the classes lie; `class_axes` tells when it is left out.

    Raises:
        SlimlineError: the shapes differ, or floating-point outputs have no axis of at least two classes.
    """
    ours = _same_shape(outputs[0], original)
    if not np.issubdtype(original.dtype, np.floating):
        return _share(ours == original)
    axis = axis if axis is not None else next(iter(class_axes(original.shape)), 0)
    if axis == 0 or original.shape[axis] < 2:
        raise SlimlineError(
            f"The model's output has shape {original.shape}: agreement needs (samples, classes), or a map with an axis "
            "of classes; use score cosine or relative, or give Task(score=your_function), for other outputs."
        )
    # A position with a NaN has no largest class, and agrees with nothing.
    return _share((ours.argmax(axis) == original.argmax(axis)) & ~np.isnan(ours).any(axis))


def cosine(outputs: list[Array], original: Array) -> Scores:
    """Cosine similarity of each sample's flattened first output with the original's.

    Two zero vectors agree (1), a zero and another vector do not (0), and neither does what is not finite (0).

    Raises:
        SlimlineError: the shapes differ, the original's output is not finite, or it is one number per sample.
    """
    ours, theirs = _flat(outputs[0], original)
    if theirs.shape[1] < 2:
        raise SlimlineError(
            "The model's output is one number per sample, of which a cosine compares only the sign: use score relative."
        )
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    products = np.einsum("ij,ij->i", ours, theirs)
    similar = np.divide(products, lengths, out=np.zeros(len(ours)), where=lengths > 0)
    scores: Scores = np.where((ours == theirs).all(1), 1.0, np.clip(similar, -1.0, 1.0))
    return scores


def relative(outputs: list[Array], original: Array) -> Scores:
    """1 - min(1, |ours - original| / |original|) with Euclidean norms over each sample's first output.

    Raises:
        SlimlineError: the shapes differ, or the original's output is not finite.
    """
    ours, theirs = _flat(outputs[0], original)
    error, size = np.linalg.norm(ours - theirs, axis=1), np.linalg.norm(theirs, axis=1)
    away = np.divide(error, size, out=(error > 0).astype(np.float64), where=size > 0)
    scores: Scores = 1.0 - np.minimum(1.0, away)
    return scores


SCORES: dict[str, ScoreFunction] = {
    "accuracy": accuracy,
    "agreement": agreement,
    "cosine": cosine,
    "relative": relative,
}
"""By name; what they compare with is the labels for ``accuracy``, the original's first output for the others."""


def describe(score: str, output: FirstOutput | None = None) -> str:
    """A named score in words; those that need no labels say that they are not accuracy."""
    how = {
        "agreement": "share of equal argmax",
        "cosine": "cosine similarity of the outputs",
        "relative": "1 - relative error of the outputs",
    }.get(score)
    if output is not None and score == "agreement" and output.integers:
        how = "share of equal entries"
    elif output is not None and score == "agreement" and output.positions:
        how = "share of positions with equal argmax"
    words = "accuracy on labels" if how is None else f"agreement with the original network ({how}), not accuracy"
    more = output is not None and output.of > 1
    return f"{words}, of '{output.name}', the first of {output.of} outputs" if more and output is not None else words


def _same_shape(ours: Array, original: Array) -> Array:
    if ours.shape != original.shape:
        raise SlimlineError(f"The candidate's output has shape {ours.shape} and the original's {original.shape}.")
    return ours


def _share(equal: Array) -> Scores:
    shares: Scores = equal.reshape(len(equal), -1).mean(1, dtype=np.float64)
    return shares


def _flat(ours: Array, original: Array) -> tuple[Scores, Scores]:
    """Both as (N, numbers) in float64; rows of ours that are not finite are made as wrong as can be."""
    _same_shape(ours, original)
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (ours, original))
    bad = np.flatnonzero(~np.isfinite(b).all(1))
    if bad.size:
        raise SlimlineError(
            f"The original's output for sample {bad[0]} has NaN or infinity: remove that sample, or give "
            "Task(score=your_function)."
        )
    broken = ~np.isfinite(a).all(1)
    a[broken] = np.where((b[broken] == 0).all(1, keepdims=True), 1.0, 0.0)
    return a, b


# --- what the first output is -------------------------------------------------------------------------------------


def first_output(network: Network, answers: Array) -> FirstOutput:
    """What ``answers``, the network's first output for some samples, are: class scores, embeddings or else.

    The rules stand at the top of this file.

    Raises:
        SlimlineError: an answer is NaN.
    """
    name, integers = network.output_names[0], not np.issubdtype(answers.dtype, np.floating)
    if not integers and np.isnan(answers).any():
        raise SlimlineError(
            f"The original's output {name!r} is NaN for some of the samples: look for values in the data that it was "
            "not trained on."
        )
    last = last_operators(network)
    values = answers.astype(np.float64)
    summing, logarithms = _summing_axis(values, bool(last & SOFTMAX)) if not integers else (None, False)
    axis = summing if summing is not None else next(iter(class_axes(answers.shape)), 1)
    score, why = _rule(name, values, axis, integers, summing is not None, bool(last & LINEAR))
    return FirstOutput(
        name, len(network.output_names), answers.shape[1:], score, why, axis, summing is not None and not logarithms,
        integers,
    )  # fmt: skip


def _rule(name: str, values: Scores, axis: int, integers: bool, sums: bool, linear: bool) -> tuple[str, str]:
    words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))
    vector = values.ndim > 1 and values.shape[-1] > 1
    classes = bool(class_axes(values.shape))
    if integers:
        return "agreement", "it holds whole numbers"
    if sums:
        return "agreement", "its classes are probabilities that sum to one"
    if vector and words & EMBEDDING_WORDS:
        return "cosine", f"its name {name!r} speaks of an embedding"
    if classes and words & CLASS_WORDS:
        return "agreement", f"its name {name!r} speaks of classes"
    if vector and np.abs(np.linalg.norm(values, axis=-1) - 1).max() < UNIT_TOLERANCE:
        return "cosine", "its rows have length one"
    if classes and linear and _decides(values, axis):
        return "agreement", "its last layer is linear and its answers are those of a classifier"
    if values.ndim in (2, 3) and values.shape[-1] >= FEWEST_OF_A_VECTOR:
        return "cosine", f"it holds vectors of {values.shape[-1]} numbers that do not look like class scores"
    return "relative", "it looks neither like class scores nor like an embedding"


def class_axes(shape: Sequence[int]) -> list[int]:
    """Axes that may hold classes, the likeliest first: the only one of (N, C), the last of (N, T, C), and of
    (N, C, H, W) and (N, H, W, C) the shorter of the second and the last."""
    axes = {0: [], 1: [], 2: [1], 3: [2, 1]}.get(len(shape), [1, len(shape) - 1])
    if len(shape) > 3:
        axes = sorted(axes, key=lambda axis: shape[axis])
    return [axis for axis in axes if shape[axis] > 1]


def _summing_axis(values: Scores, softmax: bool) -> tuple[int | None, bool]:
    """The axis along which values, or their exponentials, are probabilities; and whether it is the exponentials."""
    tolerance = SOFTMAX_TOLERANCE if softmax else UNIT_TOLERANCE
    positive, negative = bool((values >= 0).all()), bool((values <= UNIT_TOLERANCE).all())
    for logarithms in (False, True) if positive or negative else ():
        if not (negative if logarithms else positive):
            continue
        numbers = np.exp(values) if logarithms else values
        for axis in class_axes(values.shape):
            if np.abs(numbers.sum(axis) - 1).max() <= tolerance:
                return axis, logarithms
    return None, False


def _decides(logits: Scores, axis: int) -> bool:
    """Whether the softmax of logits is far from uniform on average and not always largest at the same place."""
    answers = logits.argmax(axis)
    shifted = np.exp(logits - logits.max(axis, keepdims=True))
    p = shifted / shifted.sum(axis, keepdims=True)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis).mean() / log(logits.shape[axis])
    return bool((answers != answers.flat[0]).any() and entropy < DECIDED)


def last_operators(network: Network) -> set[str]:
    """Names such as ``softmax.int`` of the operators that made the first output's numbers.

    Operators that only hand numbers on are looked through, and so is the addition of a constant.
    """
    output = next(n for n in network.module.graph.nodes if n.op == "output")
    returned = output.args[0]
    node = returned[0] if isinstance(returned, (tuple, list)) else returned
    while isinstance(node, Node) and node.op == "call_function":
        name = str(node.target).removeprefix("aten.")
        sources = [a for a in node.all_input_nodes if a.op != "get_attr"]
        handed_on = name in SAME_NUMBERS or name.startswith("quantized_decomposed.") or name == "add.Tensor"
        if not handed_on or len(sources) != 1:
            return {name}
        node = sources[0]
    return set()
