"""What a network would cost with other widths, without building it."""

import math
from collections import Counter
from collections.abc import Mapping

from slimline.network.axes import AxisGroups
from slimline.network.cost import Layer, layers
from slimline.network.ids import Ids
from slimline.network.network import Network
from slimline.network.propagation import Propagation


class CostModel:
    """MACs of every layer for hypothetical widths, without building the network.

    A layer's MACs are proportional to the product of the surviving shares of its weight's output and input axis. What
    several groups share, such as the places of heads, is left in proportion to the product of their shares.
    """

    def __init__(self, network: Network, groups: AxisGroups) -> None:
        self.layers: list[Layer] = [x for x in layers(network) if x.weight_shape]
        self.widths = {g.name: g.width for g in groups.groups}
        walk = groups.propagation
        nodes = {n.name: n for n in network.module.graph.nodes}
        self.weights = {name: tuple(t.shape) for name, t in network.weights().items()}
        axes = dict(walk.weight_axes)
        self.computed = {x.name: x.weight_shape for x in self.layers if self._weight(x) not in self.weights}
        for layer in self.layers:  # weights that are normalised before they are used have axes, but are not stored
            if layer.name in self.computed:
                axes[layer.name] = walk.of(nodes[layer.node].args[1])
        owners = {int(index): g.name for g in groups.groups for index in g.ids}
        self.blocks = {
            (name, axis): _blocks(walk, ids, owners)
            for name, several in axes.items()
            for axis, ids in enumerate(several)
            if ids is not None
        }

    def macs_by_layer(self, widths: Mapping[str, int]) -> dict[str, float]:
        """MACs per sample of every layer, all its calls together, when the named groups keep that many channels."""
        result: dict[str, float] = {}
        for layer in self.layers:
            share = self._share_left(self._weight(layer), widths, axes=2)
            result[layer.name] = result.get(layer.name, 0.0) + layer.macs * share
        return result

    def parameters(self, widths: Mapping[str, int]) -> float:
        """Numbers that are stored, those of tables and norms too."""
        return sum(
            math.prod(shape) * self._share_left(name, widths, len(shape)) for name, shape in self.weights.items()
        )

    def _weight(self, layer: Layer) -> str:
        return f"{layer.name}.weight" if f"{layer.name}.weight" in self.weights else layer.name

    def _share_left(self, weight: str, widths: Mapping[str, int], axes: int) -> float:
        """Share of a weight that is left on its first axes."""
        share = 1.0
        shape = self.weights[weight] if weight in self.weights else self.computed[weight]
        for axis, size in enumerate(shape[:axes]):
            gone = 0.0
            for shared, count in self.blocks.get((weight, axis), {}).items():
                left = math.prod(widths.get(group, self.widths[group]) / self.widths[group] for group in shared)
                gone += count * (1 - left)
            share *= 1 - gone / size
        return share

    def macs(self, widths: Mapping[str, int]) -> float:
        return sum(self.macs_by_layer(widths).values())

    def bytes(self, widths: Mapping[str, int]) -> float:
        """Parameters of the layers, as a stand-in for bytes in any one format."""
        whole, left = self.macs_by_layer({}), self.macs_by_layer(widths)
        parameters = {x.name: x.parameters for x in self.layers}
        return sum(parameters[name] * left[name] / macs for name, macs in whole.items() if macs)

    def layers_of(self, group: str) -> list[str]:
        """Layers that get cheaper when the group shrinks."""
        return [
            x.name
            for x in self.layers
            if any(group in shared for axis in (0, 1) for shared in self.blocks.get((self._weight(x), axis), {}))
        ]


def _blocks(walk: Propagation, ids: Ids, owners: Mapping[int, str]) -> Counter[tuple[str, ...]]:
    """How many positions of an axis depend on exactly these groups; those that depend on none are left out."""
    depend = (tuple(sorted({owners[p] for p in walk.plain(i) if p in owners})) for i in ids.tolist())
    return Counter(groups for groups in depend if groups)
