"""An ordered list of methods; YAML in, YAML out."""

import difflib
from dataclasses import dataclass
from typing import Any

import yaml

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, registry
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.checkpoint import remove_checkpoint
from slimline.training.curve import Curve
from slimline.training.engine import processes
from slimline.training.finished import Finished
from slimline.training.private import with_training_samples
from slimline.training.workspace import Workspace


@dataclass(frozen=True)
class Recipe:
    """Methods in the order in which they are applied."""

    methods: tuple[Method, ...] = ()

    def __init__(self, methods: list[Method] | tuple[Method, ...] = ()) -> None:
        object.__setattr__(self, "methods", tuple(methods))

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        """Apply every method in turn; the network given stays as it is and is the teacher of recovery.

        Raises:
            SlimlineError: a method cannot follow what an earlier one left, or what was done to the network before.
        """
        self.check_order()
        needy = next((m for m in self.methods if "float weights" in m.needs), None)
        if needy is not None and _is_quantised(network):
            raise SlimlineError(
                f"{type(needy).__name__} needs float weights, but the network is quantised already: "
                "start from the network as it was trained."
            )
        task = task.with_original(network) if task is not None and task.original is None else task
        if task is not None and task.original is not None:
            task = with_training_samples(task, task.original, workspace=workspace)
        changed: list[str] = []
        skipped: dict[str, str] = {}
        curves: tuple[tuple[str, Curve], ...] = ()
        workspace = workspace or Workspace()
        for place, method in enumerate(self.methods):
            outcome = _applied(method, network, task, workspace.inside(f"{place + 1:02d}-{type(method).__name__}"))
            network = outcome.network
            changed += outcome.changed
            for what, why in outcome.skipped.items():  # two methods may have left the same thing alone
                skipped[what if what not in skipped else f"{what} ({method.line()})"] = why
            curves += outcome.curves
        return Outcome(network, changed, skipped, curves)

    def check_order(self) -> None:
        """Methods that need float weights cannot follow one that leaves integers."""
        left: set[str] = set()
        for method in self.methods:
            if "float weights" in method.needs and "int weights" in left:
                raise SlimlineError(
                    f"{type(method).__name__} needs float weights: put it before the quantisation in the recipe."
                )
            left |= method.leaves

    def leaves_integers(self) -> bool:
        """Whether the result holds integer weights."""
        return any("int weights" in m.leaves for m in self.methods)

    def lines(self) -> list[str]:
        """One line per method, for reports."""
        return [m.line() for m in self.methods]

    def to_yaml(self) -> str:
        """A YAML list of {method: {hyperparameter: value}} with the values that differ from their defaults."""
        text: str = yaml.safe_dump([{type(m).__name__: m.changed_fields()} for m in self.methods], sort_keys=False)
        return text

    @staticmethod
    def from_yaml(text: str) -> "Recipe":
        """Read what `to_yaml` wrote.

        Raises:
            SlimlineError: an unknown method or hyperparameter, or not a list of methods.
        """
        try:
            items = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SlimlineError(f"The recipe is not YAML: {str(error).splitlines()[0]}.") from error
        if not isinstance(items, list):
            raise SlimlineError("A recipe is a YAML list of methods, such as '- PruneChannels: {keep: 0.5}'.")
        return Recipe([_method(item) for item in items])


def _applied(method: Method, network: Network, task: Task | None, workspace: Workspace) -> Outcome:
    """What a method gives; where it trained before in this workspace, what it gave then."""
    finished = None
    if workspace.folder is not None:
        data = "" if task is None else task.read(network.input_names).identity()
        finished = Finished(workspace.folder, [method.line(), network.digest(), data])
    before = None if finished is None else finished.read()
    if before is not None:
        workspace.note(f"{method.line()} ended before: its result is taken from {workspace.folder}.")
        return Outcome(before[0], **before[1])
    outcome = method.apply(network, task, workspace)
    outcome.network.verify().history.append(method.line())
    if finished is not None and outcome.curves:
        failed = finished.keep(outcome.network, outcome.changed, outcome.skipped, outcome.curves)
        if failed:
            workspace.note(f"What was learnt cannot be kept in {workspace.folder} ({failed}).")
        elif processes()[0] == 0:
            remove_checkpoint(finished.folder)
    return outcome


def _is_quantised(network: Network) -> bool:
    return any(str(node.target).startswith("quantized_decomposed") for node in network.module.graph.nodes)


def _method(item: Any) -> Method:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise SlimlineError(f"The recipe entry {item!r} is not a method: write '- Name: {{hyperparameter: value}}'.")
    ((name, values),) = item.items()
    known = registry()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        raise SlimlineError(
            f"No method is called {name!r}{f'; did you mean {near[0]}' if near else ''}; known: "
            f"{', '.join(sorted(known))}."
        )
    try:
        return known[name](**(values or {}))
    except TypeError as error:
        raise SlimlineError(f"{name} in the recipe: {error}.") from error
