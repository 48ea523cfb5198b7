"""Axis groups: which slices of which weights have to be pruned together.

Every axis of every tensor in the graph carries one integer id per position, or nothing when it cannot be pruned
(batch, height, the input's own channels). `slimline.network.rules` says, per operator, how the ids of its inputs become
the ids of its output and which ids are the same thing. Ids that were merged form a *channel*; channels that live on the
same weight axes form a *group*. The idea of coupled axes is Fang et al. (2023), DepGraph, arXiv:2301.12900, section 3;
ours propagates ids through the graph instead of building a dependency matrix between layers, so that
concatenation, padding, slicing and flattening are index arithmetic.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from slimline.errors import SlimlineError
from slimline.network.network import Network, get_tensor
from slimline.network.shapes import node_shapes
from slimline.network.trace import put_tensor

Ids = NDArray[np.int64]
Axes = list[Ids | None]
"""One entry per axis of a tensor: the id of every position, or None when the axis cannot be pruned."""
Alive = Callable[[Ids], NDArray[np.bool_]]
"""Tells for an array of ids which of them survive a pruning."""
Rewrite = Callable[[Node, Alive], None]


class Propagation:
    """Walks a graph once, carrying ids along; what the rules read and write."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.shapes = node_shapes(network)
        self.axes: dict[str, Axes] = {}
        """By node name."""
        self.weight_axes: dict[str, Axes] = {}
        """By weight name, so that a weight read twice has one set of ids."""
        self.rewrites: dict[str, Rewrite] = {}
        """How to change the constants of a node once some ids are gone, by node name."""
        self.frozen: dict[int, str] = {}
        self._parent: list[int] = []

    def fresh(self, count: int) -> Ids:
        """New ids, related to nothing yet."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def merge(self, a: Ids, b: Ids) -> None:
        """The positions of ``a`` and ``b`` live or die together, one by one."""
        assert a.shape == b.shape, f"axes of {a.shape} and {b.shape} positions cannot be merged"
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            self._parent[self.root(x)] = self.root(y)

    def freeze(self, axes: Iterable[Ids | None], reason: str) -> None:
        """These positions stay, and why."""
        for ids in axes:
            for index in [] if ids is None else ids.tolist():
                self.frozen.setdefault(index, reason)

    def of(self, value: object) -> Axes:
        """Axes of a node's value; a number or an absent input has none."""
        return self.axes.get(value.name, []) if isinstance(value, Node) else []

    def run(self) -> None:
        for node in self.network.module.graph.nodes:
            self.visit(node)

    def visit(self, node: Node) -> None:
        """Find the axes of one node; those before it have theirs."""
        from slimline.network.rules import rule_for

        if node.op == "get_attr":
            name = str(node.target)
            if name not in self.weight_axes:
                shape = get_tensor(self.network.module, name).shape
                self.weight_axes[name] = [self.fresh(n) for n in shape]
            self.axes[node.name] = self.weight_axes[name]
        elif node.op == "placeholder":
            self.axes[node.name] = [None] * len(self.shapes[node.name])
        elif node.op == "output":
            for value in node.args[0]:  # type: ignore[union-attr]
                self.freeze(self.of(value), "is an output of the network")
        elif node.op == "call_function":
            self.axes[node.name] = rule_for(node.target)(self, node)


@dataclass(frozen=True)
class Group:
    """Channels that live on the same weight axes; any of them can be removed alone."""

    name: str
    """Name of the first layer that produces the group, by the order of the graph."""
    width: int
    slices: dict[tuple[str, int], list[NDArray[np.int64]]]
    """(weight name, axis) -> for every channel of the group, its positions on that axis."""
    ids: NDArray[np.int64] = field(repr=False, default_factory=lambda: np.zeros(0, np.int64))
    """Root id of every channel."""

    @property
    def weights(self) -> list[str]:
        """Names of the weights that shrink with this group, in graph order."""
        return list(dict.fromkeys(name for name, _ in self.slices))


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
        import difflib

        names = [g.name for g in self.groups]
        near = difflib.get_close_matches(name, names, n=3) or names[:3]
        raise SlimlineError(f"No group is called {name!r}; near names: {', '.join(near)}.")


def axis_groups(network: Network) -> AxisGroups:
    """Find the groups of a network. Axes that no operator relates to a channel are not listed."""
    walk = Propagation(network)
    walk.run()
    reasons: dict[int, str] = {}
    for index, reason in walk.frozen.items():
        reasons.setdefault(walk.root(index), reason)
    places: dict[int, dict[tuple[str, int], list[int]]] = {}
    frozen: dict[tuple[str, int], str] = {}
    for weight, axes in walk.weight_axes.items():
        for axis, ids in enumerate(axes):
            if ids is None:
                continue
            roots = [walk.root(i) for i in ids.tolist()]
            stuck = [reasons[r] for r in roots if r in reasons]
            if len(stuck) == len(roots) and stuck:
                frozen[weight, axis] = stuck[0]
            for position, root in enumerate(roots):
                if root not in reasons:
                    places.setdefault(root, {}).setdefault((weight, axis), []).append(position)
    by_signature: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for root, where in places.items():
        # what one weight alone holds is never read, as the tail of a table of positions, or only ever repeated
        if len(where) > 1:
            by_signature.setdefault(tuple(where), []).append(root)
    groups = [_group(walk, signature, roots, places) for signature, roots in by_signature.items()]
    order = {w: i for i, w in enumerate(walk.weight_axes)}
    groups.sort(key=lambda g: order[g.weights[0]])
    return AxisGroups(_unique_names(groups), frozen, walk)


def _group(
    walk: Propagation,
    signature: tuple[tuple[str, int], ...],
    roots: list[int],
    places: dict[int, dict[tuple[str, int], list[int]]],
) -> Group:
    written = [name for name, axis in signature if axis == 0 and name.endswith("weight")]
    layers = [name for name in written if len(walk.weight_axes[name]) > 1]  # without norms, whose weight has one axis
    producers = layers or written or [signature[0][0]]
    roots = sorted(roots, key=lambda r: places[r][signature[0]])
    slices = {s: [np.array(places[r][s]) for r in roots] for s in signature}
    return Group(producers[0].rpartition(".")[0] or producers[0], len(roots), slices, np.array(roots))


def _unique_names(groups: list[Group]) -> list[Group]:
    """A second group of the same first layer is called ``layer#2``."""
    seen: dict[str, int] = {}
    renamed = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        name = group.name if seen[group.name] == 1 else f"{group.name}#{seen[group.name]}"
        renamed.append(Group(name, group.width, group.slices, group.ids))
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
        return np.array([walk.root(i) not in dead for i in ids.tolist()], dtype=bool)

    smaller = network.copy()
    for weight, axes in walk.weight_axes.items():
        tensor: Tensor = get_tensor(smaller.module, weight)
        kept_tensor = tensor.detach()
        for axis, ids in enumerate(axes):
            mask = alive(ids) if ids is not None else None
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
