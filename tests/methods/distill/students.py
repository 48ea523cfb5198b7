"""What the tests of the students share: the demo's network, its exported twin, and how well one does on the toy."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import slimline as sl
from slimline.methods.method import Method
from slimline.methods.recipe import Recipe
from slimline.network.network import Network
from slimline.runtimes.registry import get_runtime, open_artifact
from slimline.runtimes.runtime import Artifact
from tests.toys import patterns, toy, toy_task

DEMO = Path(sl.__file__).parent / "demo" / "network.slim"


@functools.cache
def _demo() -> Network:
    return sl.load(DEMO)


def demo() -> Network:
    """The residual network that `slimline demo` ships."""
    return _demo().copy()


def relative_error_in_onnxruntime(network: Network, folder: Path) -> float:
    """The largest difference between exported file and network for batches of 1 and 3, in units of the answer."""
    name, example = next(iter(network.examples.items()))
    path = get_runtime("onnxruntime").export(network, folder)
    runner = open_artifact(Artifact(path, "onnxruntime"), 1)
    errors = []
    for batch in (1, 3):
        x = np.random.default_rng(batch).random((batch, *example.shape[1:]), np.float32)
        expected = network.run({name: torch.from_numpy(x)})[0].numpy()
        (answer,) = runner.run({name: x})
        assert answer.shape == expected.shape and expected.std() > 0
        errors.append(float(abs(answer - expected).max() / abs(expected).max()))
    return max(errors)


@dataclass(frozen=True)
class Marks:
    """How well a network does on 500 toy images that nothing was trained on."""

    accuracy: float
    error: float
    """Mean squared difference from the toy's answers, in units of their variance."""


def marks(network: Network) -> Marks:
    """Of a network in the place of the toy."""
    x, y = patterns(500, seed=77)
    answers, wanted = (n.run({"image": torch.from_numpy(x)})[0].numpy() for n in (network, toy()))
    return Marks(float((answers.argmax(1) == y).mean()), float(((answers - wanted) ** 2).mean() / wanted.var()))


def marks_of_student(student: Method) -> tuple[Marks, Marks]:
    """Before and after it learned, without labels, from the toy's answers."""
    before = student.apply(toy(), toy_task()).network
    recipe = Recipe([student, sl.Distill(epochs=12, learning_rate=0.05, batch=32)])
    after = recipe.apply(toy(), toy_task(labels=False, train=512)).network
    return marks(before), marks(after)
