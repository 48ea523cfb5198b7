"""Axis groups: which slices of which weights have to be pruned together.

Every axis of every tensor in the graph carries one integer id per position, or nothing when it cannot be pruned
(batch, height, the input's own channels). Plain ids that live on the same weight axes form a *group*, each of them is a
*channel*: a filter, a neuron, a head with all its places, one place of all heads. The idea of coupled axes is
Fang et al. (2023), DepGraph, arXiv:2301.12900, section 3; ours propagates ids through the graph
(`slimline.network.propagation`) instead of building a dependency matrix between layers, so that concatenation, padding,
slicing, flattening and splitting into heads are arithmetic of ids.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimline.errors import SlimlineError, near_names
from slimline.network.calls import layer_of
from slimline.network.ids import Ids
from slimline.network.network import Network, get_tensor
from slimline.network.propagation import Propagation
from slimline.network.trace import put_tensor

Places = dict[tuple[str, int], list[int]]
"""(weight name, axis) -> positions of one channel."""


@dataclass(frozen=True)
class Group:
    """Channels that live on the same weight axes; any of them can be removed alone."""

    name: str
    """Name of the first layer that produces the group, by the order of the graph."""
    width: int
    slices: dict[tuple[str, int], list[NDArray[np.int64]]]
    """(weight name, axis) -> for every channel of the group, its positions on that axis."""
    ids: NDArray[np.int64] = field(repr=False, default_factory=lambda: np.zeros(0, np.int64))
    """The plain id of every channel."""
    inexact: str = ""
    """Why removing a channel is not the same as zeroing it; empty where it is."""

    @property
    def weights(self) -> list[str]:
        """Names of the weights that shrink with this group, in graph order."""
        return list(dict.fromkeys(name for name, _ in self.slices))

    @property
    def span(self) -> int:
        """Positions of a channel on the first axis of the group: 1 for a neuron, the width of a head for a head."""
        return len(next(iter(self.slices.values()))[0])

    @property
    def described(self) -> str:
        """``64`` channels, or ``12 x 32`` where each has several positions, as a head has."""
        return str(self.width) if self.span == 1 else f"{self.width} x {self.span}"

    def multiple(self, wanted: int) -> int:
        """Of what the width has to be a multiple so that the axis has a multiple of ``wanted`` positions."""
        return wanted // math.gcd(wanted, self.span)

    def narrowed(self, keep: float, multiple: int) -> int:
        """Channels that are left when a share of the positions is kept, as a multiple of ``multiple`` positions."""
        return snapped_width(self.width, keep, self.multiple(multiple))


@dataclass(frozen=True)
class AxisGroups:
    """The groups of a network, what cannot be pruned and why."""

    groups: list[Group]
    frozen: dict[tuple[str, int], str]
    """(weight name, axis) -> why no position of this axis can be removed."""
    propagation: Propagation = field(repr=False)

    def __getitem__(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        near = near_names(name, [g.name for g in self.groups])
        raise SlimlineError(f"No group is called {name!r}; near names: {near}.")


def axis_groups(network: Network) -> AxisGroups:
    """Find the groups of a network. Axes that no operator relates to a channel are not listed."""
    walk = Propagation(network)
    walk.run()
    walk.keep_every_axis()
    reasons, inexact = walk.frozen(), walk.inexact()
    stay = set(reasons)
    places: dict[int, Places] = {}
    frozen: dict[tuple[str, int], str] = {}
    for weight, axes in walk.weight_axes.items():
        for axis, ids in enumerate(axes):
            if ids is None:
                continue
            plain = [walk.plain(i) for i in ids.tolist()]
            stuck = [next((reasons[p] for p in sorted(each) if p in reasons), None) for each in plain]
            if all(each <= stay for each in plain) and stuck[0] is not None:
                frozen[weight, axis] = stuck[0]
            for position, each in enumerate(plain):
                for index in each - stay:
                    places.setdefault(index, {}).setdefault((weight, axis), []).append(position)
    groups = []
    for members in _alike(places):
        if len(members) > 1:
            groups.append(_group(walk, members, places, inexact))
        else:
            alone = places[members[0]].keys() - frozen.keys()
            frozen |= dict.fromkeys(alone, "its channels depend on each other: all or none")
    order = {w: i for i, w in enumerate(walk.weight_axes)}
    groups.sort(key=lambda g: (order[g.weights[0]], g.span))
    return AxisGroups(_unique_names(groups), frozen, walk)


def _alike(places: dict[int, Places]) -> list[list[int]]:
    """Channels that lie on the same axes with as many positions each, none of which they share.

    The heads of an attention and the places of its heads lie on the same axes, and each of the ones crosses each of the
    others: these are two lists.
    """
    found: dict[tuple[tuple[tuple[str, int], int], ...], list[tuple[set[int], list[int]]]] = {}
    for index, where in sorted(places.items(), key=lambda item: min(next(iter(item[1].values())))):
        # what one weight alone holds is never read, as the tail of a table of positions, or only ever repeated
        if len(where) < 2:
            continue
        classes = found.setdefault(tuple((place, len(positions)) for place, positions in where.items()), [])
        own = set(next(iter(where.values())))
        for taken, members in classes:
            if taken.isdisjoint(own):
                taken |= own
                members.append(index)
                break
        else:
            classes.append((own, [index]))
    return [members for classes in found.values() for _, members in classes]


def _group(walk: Propagation, members: list[int], places: dict[int, Places], inexact: dict[int, str]) -> Group:
    signature = tuple(places[members[0]])
    written = [name for name, axis in signature if axis == 0 and name.endswith("weight")]
    layers = [name for name in written if len(walk.weight_axes[name]) > 1]  # without norms, whose weight has one axis
    producers = layers or written or [signature[0][0]]
    members = sorted(members, key=lambda index: places[index][signature[0]])
    slices = {s: [np.array(places[index][s]) for index in members] for s in signature}
    why = next((inexact[index] for index in members if index in inexact), "")
    return Group(layer_of(producers[0]), len(members), slices, np.array(members), why)


def _unique_names(groups: list[Group]) -> list[Group]:
    """A second group of the same first layer is called ``layer#2``."""
    seen: dict[str, int] = {}
    renamed = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        name = group.name if seen[group.name] == 1 else f"{group.name}#{seen[group.name]}"
        renamed.append(replace(group, name=name))
    return renamed


def prune(network: Network, groups: AxisGroups, keep: dict[str, NDArray[np.int64]]) -> Network:
    """A smaller network with only the kept channels of the named groups; other groups stay whole.

    Args:
        keep: group name -> indices of the channels that stay, each in [0, width).

    Raises:
        SlimlineError: a group would vanish, or a name matches nothing.
    """
    walk = groups.propagation
    dead: set[int] = set()
    for name, kept in keep.items():
        group = groups[name]
        if len(kept) == 0:
            raise SlimlineError(f"Group {name} would vanish: keep at least one of its {group.width} channels.")
        dead |= set(np.delete(group.ids, kept).tolist())

    def alive(ids: Ids) -> NDArray[np.bool_]:
        return np.array([dead.isdisjoint(walk.plain(i)) for i in ids.tolist()], dtype=bool)

    smaller = network.copy()
    for weight, axes in walk.weight_axes.items():
        tensor: Tensor = get_tensor(smaller.module, weight)
        kept_tensor = tensor.detach()
        for axis, ids in enumerate(axes):
            mask = alive(ids) if ids is not None else None
            if mask is not None and not mask.any():
                raise SlimlineError(
                    f"Nothing would be left of axis {axis} of {weight}: keep more channels of one of the groups "
                    f"{', '.join(g.name for g in groups.groups if (weight, axis) in g.slices)}."
                )
            if mask is not None and not mask.all():
                kept_tensor = kept_tensor.index_select(axis, torch.from_numpy(np.flatnonzero(mask)))
        if kept_tensor.shape != tensor.shape:
            trainable = isinstance(tensor, torch.nn.Parameter)
            put_tensor(smaller.module, weight, torch.nn.Parameter(kept_tensor) if trainable else kept_tensor)
    for node in smaller.module.graph.nodes:
        if node.name in walk.rewrites:
            walk.rewrites[node.name](node, alive)
    smaller.module.recompile()
    return smaller.verify()


def snapped_width(width: int, keep: float, multiple: int) -> int:
    """Channels to keep of ``width``: the nearest multiple, at least one multiple; all of them when ``keep`` is 1."""
    return width if keep == 1 else min(width, max(min(multiple, width), round(width * keep / multiple) * multiple))
