"""What a network would cost with other widths, without building it."""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from slimline.network.axes import AxisGroups
from slimline.network.cost import Layer, layers
from slimline.network.network import Network


class CostModel:
    """MACs of every layer for hypothetical widths, without building the network.

    A layer's MACs are proportional to the product of the surviving shares of its weight's output and input axis. What
    several groups share, such as the places of heads, is left in proportion to the product of their shares.
    """

    def __init__(self, network: Network, groups: AxisGroups) -> None:
        self.layers: list[Layer] = [x for x in layers(network) if x.weight_shape]
        self.weights = {name: tuple(t.shape) for name, t in network.weights().items()}
        self.widths = {g.name: g.width for g in groups.groups}
        self.blocks = _blocks(groups)

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
        for axis, size in enumerate(self.weights[weight][:axes]):
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


def _blocks(groups: AxisGroups) -> dict[tuple[str, int], Counter[tuple[str, ...]]]:
    """(weight, axis) -> how many positions depend on exactly these groups."""
    depend: dict[tuple[str, int], dict[int, tuple[str, ...]]] = {}
    for group in groups.groups:
        for place, channels in group.slices.items():
            on = depend.setdefault(place, {})
            for position in np.concatenate(channels).tolist():
                on[position] = (*on.get(position, ()), group.name)
    return {place: Counter(on.values()) for place, on in depend.items()}
