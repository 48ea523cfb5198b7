"""Distillation with something done besides: how a method takes part in training without a loop of its own.

Methods do not import each other across folders, so the one that trains is found by its name, as in a recipe; what is
to be done at every step goes along in the workspace.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, needs_data, registry
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.hook import Hook
from slimline.training.workspace import Workspace

TRAINER = "Distill"


def trainer(who: Method, own: Mapping[str, Any], more: Mapping[str, Any]) -> Method:
    """The `Distill` that trains for another method.

    Args:
        own: hyperparameters of `Distill` that the other method has itself.
        more: those that it passes on, as its ``training``.

    Raises:
        SlimlineError: one that `Distill` does not have, or that is said twice.
    """
    name = type(who).__name__
    for twice in own.keys() & more.keys():
        raise SlimlineError(f"{name}(training=...) says {twice}, which {name} has itself: give it there.")
    try:
        return registry()[TRAINER](**own, **more)
    except TypeError as error:
        raise SlimlineError(f"{name}(training={dict(more)}) is not for {TRAINER}: {error}.") from error


def trained(
    who: Method, by: Method, network: Network, task: Task | None, workspace: Workspace | None, hook: Hook
) -> Outcome:
    """What a training makes of a network while a hook takes part; its curve goes under the name of ``who``.

    Raises:
        SlimlineError: no data, or no original.
    """
    name = type(who).__name__
    needs_data(name, task, network)
    if task is None or task.original is None:
        raise SlimlineError(
            f"{name} needs the original network: apply it in a Recipe, or pass task.with_original(network)."
        )
    workspace = workspace or Workspace()
    outcome = by.apply(network, task, replace(workspace, hooks=(*workspace.hooks, hook)))
    return replace(outcome, curves=tuple((who.line(), curve) for _, curve in outcome.curves))
