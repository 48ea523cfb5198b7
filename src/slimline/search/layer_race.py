"""Layers that a method rewrote, each raced against what it was, alone, in the runtime that counts.

Fewer multiply-adds are not always fewer milliseconds: two small operators may take longer than one large one. In the
whole network the difference of one layer drowns in the noise of all others, so every layer runs on its own, on what it
reads in the network. What no longer counts then is fusion with its neighbours: the network in which the faster layers
are rewritten together still has to win its own race.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from slimline.errors import SlimlineError
from slimline.measure.latency import RacePlan, race
from slimline.measure.statistics import Ratio
from slimline.methods.method import Outcome
from slimline.network.network import Network, get_tensor
from slimline.network.shapes import recorded
from slimline.network.trace import put_tensor
from slimline.runtimes.registry import get_runtime
from slimline.runtimes.runtime import Artifact
from slimline.task import Samples

LAYER_RACE = RacePlan(launches=(3, 5), rounds=5, target_width=0.05, burst_seconds=0.02, warmup_seconds=0.1)
SAMPLES = 16
"""Samples whose values the layers read: the milliseconds hardly depend on the values."""


class Raced(Protocol):
    """What a race tells."""

    def ratio(self, slow: str, fast: str) -> Ratio:
        """Latency of ``slow`` divided by that of ``fast``."""


def faster(ratios: Mapping[str, Ratio]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The layers to rewrite, and by name why others stay.

    Args:
        ratios: latency of each layer divided by that of what would take its place.
    """
    kept = tuple(name for name, r in ratios.items() if r.low > 1)
    left = {
        name: f"is not measured to be faster: {r.value:.2f} times the speed, {r.low:.2f} to {r.high:.2f}"
        for name, r in ratios.items()
        if name not in kept
    }
    return kept, left


@dataclass(frozen=True)
class LayerRace:
    """Where layers are raced, and how."""

    place: tuple[str, str]
    """Runtime and variant."""
    threads: int
    folder: Path
    """Gets the files; it has to be empty."""
    plan: RacePlan = LAYER_RACE
    run: Callable[..., Raced] = race

    def ratios(self, before: Network, rewritten: Outcome, samples: Samples) -> dict[str, Ratio]:
        """How many times faster every layer is that a method rewrote.

        Args:
            rewritten: what the method made of ``before``: the new weights begin with the name of their layer.

        Raises:
            SlimlineError: a layer cannot run alone.
        """
        names, after = rewritten.changed, rewritten.network
        known = set(before.weights())
        old = calls_of(before, {w: name for w in known for name in names if name in (w, w.rpartition(".")[0])})
        new = calls_of(after, {w: name for w in set(after.weights()) - known if (name := owner(w, names))})
        sources = {name: _source(calls) for name, calls in old.items()}
        values = read_values(before, {s.name for s in sources.values()}, samples.take(slice(0, SAMPLES)))
        found = {}
        for number, name in enumerate(names):
            read = values[sources[name].name]
            batch = self._batch(name, read, min(SAMPLES, len(samples)))
            sides = {"layer": (before, old[name]), "rewritten": (after, new[name])}
            contestants = {
                label: self._exported(alone(network, calls, read), f"{number:03d}-{label}")
                for label, (network, calls) in sides.items()
            }
            plan = replace(self.plan, batch=batch, samples=max(batch, self.plan.samples))
            raced = self.run(contestants, {"x": read.numpy()}, plan, self.threads)
            found[name] = raced.ratio("layer", "rewritten")
        return found

    def _batch(self, name: str, read: Tensor, samples: int) -> int:
        """Positions of the first axis that one sample takes: more than one where windows or words are folded into it.

        Raises:
            SlimlineError: they are no whole number.
        """
        each, rest = divmod(len(read), samples)
        if rest or not each:
            raise SlimlineError(f"The layer {name} cannot be raced alone: what it reads has no axis of samples first.")
        return each * self.plan.batch

    def _exported(self, network: Network, name: str) -> Artifact:
        home = self.folder / name
        home.mkdir()
        return Artifact(get_runtime(self.place[0]).export(network, home), *self.place)


def owner(weight: str, names: Sequence[str]) -> str:
    """The layer of a new weight: ``block.conv`` for ``block.conv.first.weight``; empty where it is no layer's."""
    return max((n for n in names if weight.startswith((f"{n}.", f"{n}_"))), key=len, default="")


def calls_of(network: Network, owners: Mapping[str, str]) -> dict[str, list[Node]]:
    """The calls of each layer, in order.

    Args:
        owners: weight -> layer.
    """
    found: dict[str, list[Node]] = {}
    for node in network.module.graph.nodes:
        weight = node.args[1] if node.op == "call_function" and len(node.args) > 1 else None
        if isinstance(weight, Node) and str(weight.target) in owners:
            found.setdefault(owners[str(weight.target)], []).append(node)
    return found


def _source(calls: Sequence[Node]) -> Node:
    source = calls[0].args[0]
    assert isinstance(source, Node)
    return source


def read_values(network: Network, nodes: set[str], samples: Samples) -> dict[str, Tensor]:
    """What nodes hold for these samples, by name."""
    inputs = samples.tensors()
    given = [inputs[name] for name in network.input_names]
    return recorded(network, given, lambda node, value: value.contiguous() if node.name in nodes else None)


def alone(network: Network, calls: Sequence[Node], read: Tensor) -> Network:
    """A network of these calls only, one after the other.

    Args:
        read: what the first one reads, with at least two samples.
    """
    graph, root = Graph(), nn.Module()
    copies = {_source(calls): graph.placeholder("x")}
    for call in calls:
        for stored in call.all_input_nodes:
            if stored.op == "get_attr" and stored not in copies:
                put_tensor(root, str(stored.target), get_tensor(network.module, str(stored.target)))
                copies[stored] = graph.get_attr(str(stored.target))
        copies[call] = graph.node_copy(call, copies.__getitem__)
    graph.output((copies[calls[-1]],))
    with torch.no_grad():
        return Network(GraphModule(root, graph), {"x": read[:2].clone()}, ("output",)).verify()
