"""A student of the user's own: another architecture learns what the original answers.

Ba, Caruana (2014). Do Deep Nets Really Need to be Deep? arXiv:1312.6184, section 2.
Hinton, Vinyals, Dean (2015). Distilling the Knowledge in a Neural Network. arXiv:1503.02531.

    student(x) ~ teacher(x)        for every x of the training samples; the two share inputs and outputs, nothing else

Ours differs: nothing of the student is prescribed. It comes with the task (`Task(student=...)`, or ``student()`` of a
JOB.py), is traced on the original's example inputs and takes the original's place in the recipe; a `Distill` behind it
trains it.
Helps: where a better architecture for the target is known.  Does not: choose one, or use the original's weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, register
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from slimline.training.workspace import Workspace


@register
@dataclass(frozen=True)
class OwnStudent(Method):
    """Put the task's student in the place of the network."""

    needs = frozenset({"float weights"})
    cites = ("ba2014deep", "hinton2015distilling")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        if task is None or task.student is None:
            raise SlimlineError(
                "OwnStudent needs a student: pass Task(student=module), or define student() in the JOB.py."
            )
        student = fitted(task.student, network)
        return Outcome(student, ["the whole network"], {})


def fitted(student: Network | nn.Module, network: Network) -> Network:
    """The student as a network with the inputs and outputs of the original; a copy.

    The single input and the outputs of a student may be called anything; several inputs go by name.

    Raises:
        SlimlineError: it cannot be traced, or takes or returns something else than the original.
    """
    if isinstance(student, Network):
        traced = student.copy()
    else:
        traced = trace(student, network.examples if len(network.examples) > 1 else list(network.examples.values()))
    if len(network.examples) == len(traced.examples) == 1:
        traced = replace(traced, examples=dict(zip(network.input_names, traced.examples.values(), strict=True)))
    if traced.input_names != network.input_names:
        raise SlimlineError(
            f"The student has the inputs {', '.join(traced.input_names)}, but the network has "
            f"{', '.join(network.input_names)}: give the student the same inputs in the same order."
        )
    _same("input", traced.examples, network.examples)
    if sorted(traced.output_names) == sorted(network.output_names) and traced.output_names != network.output_names:
        raise SlimlineError(
            f"The student returns its outputs in the order {', '.join(traced.output_names)}, but the network in the "
            f"order {', '.join(network.output_names)}: return them in the same order."
        )
    ours, theirs = network.run(network.examples), traced.run(network.examples)
    if len(theirs) != len(ours):
        raise SlimlineError(f"The student has {len(theirs)} outputs and the network {len(ours)}: return as many.")
    names = network.output_names
    _same("output", dict(zip(names, theirs, strict=True)), dict(zip(names, ours, strict=True)))
    examples = {name: example.clone() for name, example in network.examples.items()}
    history = [*network.history, *traced.history]
    return replace(traced, examples=examples, output_names=names, history=history).verify()


def _same(what: str, student: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> None:
    """Check that samples have equal shapes and kinds of numbers."""
    for name, wanted in network.items():
        given = student[name]
        if given.shape[1:] != wanted.shape[1:] or given.dtype is not wanted.dtype:
            raise SlimlineError(
                f"The student's {what} {name} is {_described(given)} per sample, but the network's is "
                f"{_described(wanted)}: make them equal."
            )


def _described(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape[1:])}"
