"""Where the channels of groups lie in the values that a network computes, and means of what lies there."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from slimline.methods.readers import batches
from slimline.network.axes import Group, axis_groups
from slimline.network.network import Network
from slimline.network.shapes import recorded
from slimline.task import Samples

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Place:
    """Where a group's channels lie in the value of a node."""

    node: str
    axis: int
    positions: list[list[int]]
    """Of every channel along the axis; a value may hold only some of them."""


def places(network: Network, groups: Sequence[Group]) -> dict[str, list[Place]]:
    """By the name of the group, in the order of the graph: values that hold its channels and come of other values."""
    found = axis_groups(network)
    walk = found.propagation
    channels = {int(i): (g, channel) for g in groups for channel, i in enumerate(found[g.name].ids)}
    computed = [n.name for n in network.module.graph.nodes if any(x.name in walk.shapes for x in n.all_input_nodes)]
    result: dict[str, list[Place]] = {group.name: [] for group in groups}
    for name in (name for name in computed if name in walk.axes):
        held: dict[str, Place] = {}
        for axis, ids in enumerate(walk.axes[name]):
            for position, index in enumerate([] if ids is None else ids.tolist()):
                for group, channel in (channels[p] for p in walk.plain(index) & channels.keys()):
                    place = held.setdefault(group.name, Place(name, axis, [[] for _ in range(group.width)]))
                    if place.axis == axis:  # of a value that holds a group on two axes the first counts
                        place.positions[channel].append(position)
        for group_name, place in held.items():
            result[group_name].append(place)
    return result


def means(
    network: Network, wanted: Mapping[K, tuple[Place, Callable[[Tensor], Tensor]]], samples: Samples
) -> dict[K, NDArray[np.float64]]:
    """Means of functions of the numbers that lie at every channel; NaN where a value does not hold the channel."""
    network = network.copy().set_training_(False)
    totals = {key: np.zeros(len(place.positions)) for key, (place, _) in wanted.items()}
    counts = {key: np.zeros(len(place.positions)) for key, (place, _) in wanted.items()}

    def look(node: Node, value: Tensor) -> None:
        for key, (place, function) in wanted.items():
            if place.node == node.name:
                rows = value.double().movedim(place.axis, 0)
                rows = rows.reshape(len(rows), -1)
                sums = function(rows).sum(1).numpy()
                totals[key] += [sums[positions].sum() for positions in place.positions]
                counts[key] += [len(positions) * rows.shape[1] for positions in place.positions]

    for inputs in batches(network, samples):
        recorded(network, inputs, look)
    with np.errstate(invalid="ignore"):
        return {key: totals[key] / counts[key] for key in wanted}
