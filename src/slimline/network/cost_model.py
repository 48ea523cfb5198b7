"""What a network would cost with other widths, without building it."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Node

from slimline.network.axes import AxisGroups
from slimline.network.cost import ATTENTION, EINSUM, RECURRENT, Layer, layers
from slimline.network.ids import Axes, Ids
from slimline.network.network import Network

Blocks = Counter[tuple[str, ...]]
"""Groups -> how many positions of an axis depend on exactly these; those that depend on none are left out."""


@dataclass(frozen=True)
class _Work:
    """Multiply-accumulates that fall with the axes over which they run."""

    layer: str
    macs: float
    axes: tuple[tuple[int, Blocks], ...]
    """Length of each axis, and on what its positions depend."""


class CostModel:
    """MACs of every layer for hypothetical widths, without building the network.

    MACs are proportional to the product of the surviving shares of the axes over which a layer runs: the output and
    input axis of a weight, every axis of a product of two activations. What several groups share, such as the places of
    heads, is left in proportion to the product of their shares.
    """

    def __init__(self, network: Network, groups: AxisGroups) -> None:
        self.walk = groups.propagation
        self.owners = {int(index): g.name for g in groups.groups for index in g.ids}
        self.widths = {g.name: g.width for g in groups.groups}
        self.layers = layers(network)
        nodes = {n.name: n for n in network.module.graph.nodes}
        self.work = [work for layer in self.layers for work in self._work(layer, nodes[layer.node])]
        self.stored = [self._axes(self.walk.weight_axes.get(n), t.shape) for n, t in network.weights().items()]

    def _work(self, layer: Layer, node: Node) -> list[_Work]:
        """What a layer computes, in parts that fall with other axes."""
        if layer.weight_shape:
            # What is read, which may be a stored weight turned or normalised; a recurrent layer reads several.
            recurrent = node.target in RECURRENT
            axes = self.walk.weight_axes.get(layer.weight) if recurrent else self.walk.of(node.args[1])
            return [_Work(layer.name, layer.macs, self._axes(axes, layer.weight_shape)[:2])]
        if node.target is ATTENTION:
            query, value = self._axes_of(node.args[0]), self._axes_of(node.args[2])
            places, made = query[-1][0], value[-1][0]
            one = layer.macs / (places + made)
            return [
                _Work(layer.name, places * one, query),
                _Work(layer.name, made * one, (*query[:-1], value[-1])),
            ]
        if node.target is EINSUM:
            return [_Work(layer.name, layer.macs, tuple(self._letters(node).values()))]
        return [_Work(layer.name, layer.macs, (*self._axes_of(node), self._axes_of(node.args[0])[-1]))]

    def _letters(self, node: Node) -> dict[str, tuple[int, Blocks]]:
        """The axes of an Einstein sum; where a factor repeats an axis of length 1, the other has its positions."""
        found: dict[str, tuple[int, Blocks]] = {}
        terms = str(node.args[0]).replace(" ", "").partition("->")[0].split(",")
        for term, factor in zip(terms, node.args[1], strict=True):  # type: ignore[arg-type]
            for letter, axis in zip(term, self._axes_of(factor), strict=False):
                if letter not in found or axis[0] > found[letter][0]:
                    found[letter] = axis
        return found

    def _axes_of(self, value: object) -> tuple[tuple[int, Blocks], ...]:
        return self._axes(self.walk.of(value), self.walk.shape(value))

    def _axes(self, several: Axes | None, shape: Sequence[int]) -> tuple[tuple[int, Blocks], ...]:
        """Length of each axis, and on what its positions depend; nothing where no ids are known."""
        each = several or [None] * len(shape)
        return tuple((n, self._blocks(ids)) for n, ids in zip(shape, each, strict=True))

    def _blocks(self, ids: Ids | None) -> Blocks:
        found = [] if ids is None else ids.tolist()
        depend = (tuple(sorted({self.owners[p] for p in self.walk.plain(i) if p in self.owners})) for i in found)
        return Counter(groups for groups in depend if groups)

    def macs_by_layer(self, widths: Mapping[str, int]) -> dict[str, float]:
        """MACs per sample of every layer, all its calls together, when the named groups keep that many channels."""
        result: dict[str, float] = {}
        for work in self.work:
            result[work.layer] = result.get(work.layer, 0.0) + work.macs * self._share_left(work.axes, widths)
        return result

    def parameters(self, widths: Mapping[str, int]) -> float:
        """Numbers that are stored, those of tables and norms too."""
        return sum(math.prod(n for n, _ in axes) * self._share_left(axes, widths) for axes in self.stored)

    def _share_left(self, axes: Sequence[tuple[int, Blocks]], widths: Mapping[str, int]) -> float:
        """Share of the positions of all these axes together that is left."""
        share = 1.0
        for length, blocks in axes:
            gone = 0.0
            for shared, count in blocks.items():
                left = math.prod(widths.get(group, self.widths[group]) / self.widths[group] for group in shared)
                gone += count * (1 - left)
            share *= 1 - gone / length
        return share

    def macs(self, widths: Mapping[str, int]) -> float:
        return sum(self.macs_by_layer(widths).values())

    def bytes(self, widths: Mapping[str, int]) -> float:
        """Parameters of the layers, as a stand-in for bytes in any one format."""
        whole, left = self.macs_by_layer({}), self.macs_by_layer(widths)
        parameters = {x.name: x.parameters for x in self.layers}
        return sum(parameters[name] * left[name] / macs for name, macs in whole.items() if macs)

    def layers_of(self, group: str) -> list[str]:
        """Layers with weights that get cheaper when the group shrinks."""
        with_weights = {x.name for x in self.layers if x.weight_shape}
        return [
            work.layer
            for work in self.work
            if work.layer in with_weights and any(group in shared for _, blocks in work.axes for shared in blocks)
        ]
