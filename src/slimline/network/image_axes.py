"""Where the channels of images lie: on axis 1 as torch has them, or on the last as Keras and TensorFlow do."""

from torch.fx import Node

from slimline.network.ids import Axes, Ids
from slimline.network.network import Network
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED
from slimline.network.propagation import Propagation
from slimline.network.rules import rule_for, unknown

FLAT = {operator for operator, axes in (CONVOLUTIONS | TRANSPOSED).items() if axes == 2}
"""Not all that reads channels on axis 1: audio networks normalise over the frequencies of a turned spectrogram."""
FIRST, LAST = 1, 3
CHANNELS = {1, 3, 4}
"""Numbers of channels that pictures mostly have: grey, three colours, and with transparency."""


def image_axes(network: Network) -> dict[str, int | None]:
    """By input name the axis that holds the channels, 1 or 3; None for inputs that are no images.

    An input is one of images when it holds floating-point numbers and has 4 axes, the batch first. The first 2-d
    convolution that it flows into tells, since that reads channels on its axis 1. Where none does (patches that are cut
    out by a reshape, operators that mix axes on the way) the sizes decide: the last axis, if it has 1, 3 or 4 positions
    and axis 1 has another number of them; else axis 1.
    """
    images = [name for name, x in network.examples.items() if x.ndim == 4 and x.is_floating_point()]
    told = _told_by_convolutions(network, images)
    return {
        name: told.get(name, _likely(tuple(x.shape))) if name in images else None
        for name, x in network.examples.items()
    }


def _likely(shape: tuple[int, ...]) -> int:
    return LAST if shape[LAST] in CHANNELS and shape[FIRST] not in CHANNELS else FIRST


def _told_by_convolutions(network: Network, images: list[str]) -> dict[str, int]:
    """The axes of those images which a convolution reads in an order that can be followed."""
    told: dict[str, int] = {}
    if not images:
        return told
    walk, inputs, names = Propagation(network), dict[str, Axes](), iter(network.input_names)
    for node in network.module.graph.nodes:
        if node.op == "placeholder" and (name := next(names)) in images:
            # Pruning gives the axes of inputs no ids, since they stay; here they are what is followed.
            inputs[name] = walk.axes[node.name] = [walk.fresh(n) for n in walk.shapes[node.name]]
        else:
            _visit(walk, node)
        if node.target in FLAT:
            read = walk.of(node.args[0])
            found = {name: _channels(walk, axes, read) for name, axes in inputs.items() if name not in told}
            told |= {name: axis for name, axis in found.items() if axis in (FIRST, LAST)}
            if len(told) == len(images):
                break
    return told


def _visit(walk: Propagation, node: Node) -> None:
    """As in pruning; but where no rule is known, values that keep their shape are taken to keep their axes too."""
    shape = walk.shapes.get(node.name)
    if node.op != "call_function" or shape is None or rule_for(node.target) is not unknown:
        walk.visit(node)
    else:
        same = [walk.of(source) for source in node.all_input_nodes if walk.shapes.get(source.name) == shape]
        walk.axes[node.name] = [next((x[i] for x in same if x[i] is not None), None) for i in range(len(shape))]


def _channels(walk: Propagation, image: Axes, read: Axes) -> int | None:
    """The axis of an image that a convolution reads as channels, or the one that is left by height and width.

    Without the second, images of one channel would tell nothing: importers turn them by a reshape, in which an axis of
    size one cannot be followed.
    """
    channels, height, width = (_origin(walk, image, ids) for ids in read[1:])
    left = {1, 2, 3} - {height, width}
    return left.pop() if channels is None and len(left) == 1 else channels


def _origin(walk: Propagation, image: Axes, ids: Ids | None) -> int | None:
    """The one axis of an image from which positions come."""
    plain = _plain(walk, ids)
    found = [axis for axis, own in enumerate(image) if not plain.isdisjoint(_plain(walk, own))]
    return found[0] if len(found) == 1 else None


def _plain(walk: Propagation, ids: Ids | None) -> frozenset[int]:
    return frozenset() if ids is None else frozenset().union(*map(walk.plain, ids.tolist()))
