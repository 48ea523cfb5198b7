"""Taps: the same network with inner values among its outputs, and where those of two networks can be compared.

A tapped network shares its weights with the one it was made of. Its graph is a copy with a longer output; its
`GraphModule` is built over the module of the original, from which torch.fx takes the parameters and buffers that the
graph reads, as the very same objects. A gradient step on the tapped network is one on the original, and a batch norm
that learns statistics writes them for both; one goes on with the original when the taps are not needed any more.
What puts another tensor in the place of one ends the sharing of that one (`put_tensor`, `set_weight`, buffers that move
to another device): do that before tapping, or take the taps off the network it was done to (`without_taps`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from slimline.errors import SlimlineError, near_names
from slimline.network.calls import argument
from slimline.network.network import Network, get_tensor
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED, WEIGHTED
from slimline.network.shapes import node_shapes

aten = torch.ops.aten
WEIGHTS_OF = ":weights"
"""``NAME:weights`` taps the distributions inside a fused attention, which the graph itself never holds."""
FUSED_ATTENTION = aten.scaled_dot_product_attention.default
SOFTMAX = {aten.softmax.int, aten._softmax.default}
ACTIVATIONS = {
    aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default, aten.leaky_relu.default,
    aten.prelu.default, aten.elu.default, aten.selu.default, aten.silu.default, aten.gelu.default, aten.mish.default,
    aten.hardswish.default, aten.tanh.default, aten.softplus.default,
}  # fmt: skip
"""Without the sigmoid, which mostly makes gates."""
CHANNELS_LAST = {aten.linear.default, aten.layer_norm.default, aten.rms_norm.default, aten.embedding.default}
CHANNELS_FIRST = {*CONVOLUTIONS, *TRANSPOSED, aten.batch_norm.default, aten.group_norm.default}
NORMS = {aten.batch_norm.default, aten.layer_norm.default, aten.group_norm.default, aten.rms_norm.default}
PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.mm.default}
SIZES = {aten.sym_size.int, aten.sym_numel.default}
Item = TypeVar("Item")


def with_taps(network: Network, names: Sequence[str]) -> Network:
    """A network that shares its weights with the given one and also returns some of the values inside it.

    Args:
        names: nodes of the graph, or ``NAME:weights`` for the distributions (N, heads, T, T) of a fused attention.
            Their values follow the network's own outputs, in this order, and have these names.

    The mode of batch norm and dropout stands in the graph, so the tapped network starts in the mode that the given one
    is in now; from then on, `set_training_` of the one does not reach the other.

    Raises:
        SlimlineError: no value of the network has such a name.
    """
    shapes = node_shapes(network)
    graph, copies, outputs = _copied(network)
    taps = []
    for name in names:
        base = name.removesuffix(WEIGHTS_OF)
        if base not in shapes:
            raise SlimlineError(f"No tensor in the network is called {base!r}; near names: {near_names(base, shapes)}.")
        taps.append(copies[base] if base == name else _weights_node(copies[base]))
    return _sharing(network, graph, (*outputs, *taps), (*network.output_names, *names))


def without_taps(network: Network, count: int) -> Network:
    """A tapped network, or a copy of one, without its last ``count`` outputs; it shares its weights."""
    graph, _, outputs = _copied(network)
    kept = len(outputs) - count
    return _sharing(network, graph, outputs[:kept], network.output_names[:kept])


def _copied(network: Network) -> tuple[Graph, dict[str, Node], tuple[Node, ...]]:
    """A copy of the graph that ends before its output, its nodes by name, and what its outputs were."""
    graph, copies = Graph(), dict[Node, Node]()
    outputs: Any = graph.graph_copy(network.module.graph, copies)
    return graph, {node.name: copy for node, copy in copies.items()}, tuple(outputs)


def _sharing(network: Network, graph: Graph, outputs: tuple[Node, ...], names: tuple[str, ...]) -> Network:
    graph.output(outputs)
    graph.eliminate_dead_code()
    return replace(
        network, module=GraphModule(network.module, graph), output_names=names, history=list(network.history)
    )


def _weights_node(attention: Node) -> Node:
    """A new node behind a fused attention that computes its distributions."""
    if attention.target is not FUSED_ATTENTION:
        raise SlimlineError(
            f"{attention.name} is no scaled_dot_product_attention and holds no attention weights: "
            f"tap it without {WEIGHTS_OF!r}."
        )
    given = attention.args
    mask = argument(attention, 3, "attn_mask")
    causal, scale = argument(attention, 5, "is_causal", False), attention.kwargs.get("scale")
    with attention.graph.inserting_after(attention):
        return attention.graph.call_function(attention_weights, (given[0], given[1], mask, causal, scale))


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(query key^T scale + mask): what `scaled_dot_product_attention` multiplies its values by.

    Args:
        query, key: (N, heads, T, d) and (N, heads, S, d); fewer heads of keys serve several queries each.
        mask: True where one may look, or numbers that are added; its shape broadcasts to the result's.

    Returns:
        (N, heads, T, S). A query that may look nowhere looks everywhere alike.
    """
    if key.shape[1] != query.shape[1]:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    lowest = torch.finfo(scores.dtype).min  # infinity would make a row without anything to look at NaN
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, lowest) if mask.dtype is torch.bool else (scores + mask).clamp_min(lowest)
    return scores.softmax(-1)


def tap_points(student: Network, teacher: Network, most: int = 4) -> list[tuple[str, str]]:
    """Pairs (student's node, teacher's node) whose values can be compared: ends of blocks, in the order of the graph.

    Two values are comparable when they agree in everything but their number of channels. The end of a block is a
    residual addition, or the norm or activation that alone reads it; for maps of a size at which no block ends so, it
    is the last activation. Outputs are left out. A copy keeps the names of its nodes: where the last ends of both
    networks have the same name and operator, pairs are those of equal names. Else, among the values of the same size,
    the last go together, and those before them in proportion, as layers in Jiao et al. (2020), arXiv:1909.10351.

    Args:
        most: more pairs than that are thinned out, evenly over the depth; the last stays.

    Returns:
        An empty list when there is nothing to compare.
    """
    return _thinned(_pairs(_Flow(student).block_ends(), _Flow(teacher).block_ends()), most)


def attention_points(student: Network, teacher: Network, most: int = 4) -> list[tuple[str, str]]:
    """Pairs (student's tap, teacher's tap) of self-attention distributions (N, heads, T, T) over the same T places.

    A tap is a softmax node, or ``NAME:weights`` of a fused attention. Pairs are found as in `tap_points`; the numbers
    of heads may differ.
    """
    return _thinned(_pairs(_attentions(student), _attentions(teacher)), most)


def channel_axes(network: Network, names: Sequence[str]) -> list[int]:
    """The axes of the nodes' values that hold their channels: those of the layers which the values come from.

    Raises:
        SlimlineError: a name is not that of a value which the network computes from its inputs.
    """
    axes = _Flow(network).axes
    unknown = [name for name in names if name not in axes]
    if unknown:
        raise SlimlineError(f"{unknown[0]!r} is no value that the network computes from its inputs: name one that is.")
    return [axes[name] for name in names]


@dataclass(frozen=True)
class _End:
    """A value that may be compared with that of another network in the same place."""

    name: str
    operator: object
    place: tuple[int, tuple[int, ...]]
    """Its channel axis, and its shape without batch and channels."""


def _pairs(ours: list[_End], theirs: list[_End]) -> list[tuple[str, str]]:
    """Of equal names when the last ones agree, else in proportion among those of the same place."""
    if ours and theirs and ours[-1] == theirs[-1]:  # numbers in names count up, so a different depth shows here
        return [(end.name, end.name) for end in ours if end in theirs]
    pairs = dict[str, str]()
    for place in {end.place for end in ours}:
        left, right = ([e.name for e in ends if e.place == place] for ends in (ours, theirs))
        count = min(len(left), len(right))
        pairs |= dict(zip(_thinned(left, count), _thinned(right, count), strict=True))
    return [(end.name, pairs[end.name]) for end in ours if end.name in pairs]


def _thinned(items: list[Item], most: int) -> list[Item]:
    """The last of each of ``most`` equal parts."""
    if len(items) <= most:
        return items
    return [items[(part + 1) * len(items) // most - 1] for part in range(most)]


def _attentions(network: Network) -> list[_End]:
    shapes, batch, found = node_shapes(network), _batch(network), []
    for node in network.module.graph.nodes:
        if node.target in SOFTMAX:
            shape, name = shapes[node.name], node.name
            last = argument(node, 1, "dim") in (-1, len(shape) - 1)
        elif node.target is FUSED_ATTENTION:
            query, key = (shapes[source.name] for source in node.args[:2])
            shape, name, last = (*query[:-1], key[-2]), node.name + WEIGHTS_OF, True
        else:
            continue
        if last and len(shape) == 4 and shape[0] == batch and shape[2] == shape[3] > 1:
            found.append(_End(name, node.target, (1, shape[2:])))
    return found


class _Flow:
    """What becomes of a network's inputs: the nodes that carry them on, and how they hang together.

    A node carries the *signal* when it depends on an input and on a stored weight. Masks, sizes and tables of
    positions, which reach into every layer, do not.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.shapes = node_shapes(network)
        self.nodes = list(network.module.graph.nodes)
        self.order = {node: i for i, node in enumerate(self.nodes)}
        self.outputs = set(self.nodes[-1].all_input_nodes)
        self.signal, self.stored = self._signal()
        self.layers = {node for node in self.signal if any(map(self._is_matrix, node.all_input_nodes))}
        looked_up = WEIGHTED | PRODUCTS  # a weight that is computed of stored ones
        self.layers |= {node for node in self.signal if node.target in looked_up and node.args[1] in self.stored}
        self.before = self._before()
        self.axes = self._axes()

    def _signal(self) -> tuple[set[Node], set[Node]]:
        """What depends on inputs and on weights, and what on weights alone."""
        fed, weighted = set(), set()
        for node in self.nodes:
            if node.op == "placeholder":
                fed.add(node)
            elif node.op == "get_attr":
                weighted |= {node} if get_tensor(self.network.module, str(node.target)).is_floating_point() else set()
            elif node.op == "call_function" and node.target not in SIZES:
                fed |= {node} if fed.intersection(node.all_input_nodes) else set()
                weighted |= {node} if weighted.intersection(node.all_input_nodes) else set()
        return fed & weighted, weighted - fed

    def _is_matrix(self, node: Node) -> bool:
        return node.op == "get_attr" and len(self.shapes[node.name]) > 1

    def _before(self) -> dict[Node, int]:
        """For every node the set of itself and all signal it depends on, as the bits of a number."""
        before: dict[Node, int] = {}
        for node in self.nodes:
            before[node] = 1 << self.order[node] if node in self.signal else 0
            for source in node.all_input_nodes:
                before[node] |= before[source]
        return before

    def _depends(self, node: Node, on: Node) -> bool:
        return bool(self.before[node] >> self.order[on] & 1)

    def _axes(self) -> dict[str, int]:
        """The channel axis of every signal."""
        axes: dict[str, int] = {}
        for node in self.nodes:
            if node in self.signal and node.name in self.shapes:
                axes[node.name] = self._axis(node, axes)
        return axes

    def _axis(self, node: Node, axes: dict[str, int]) -> int:
        rank = len(self.shapes[node.name])
        if node.target in CHANNELS_FIRST:
            return 1
        if node.target in CHANNELS_LAST or (node.target in PRODUCTS and node.args[1] in self.stored):
            return rank - 1
        sources = [s.name for s in node.all_input_nodes if s.name in axes and len(self.shapes[s.name]) == rank]
        if not sources:
            return rank - 1 if rank == 3 else min(1, rank - 1)  # (N, T, D), (N, C, H, W), (N, C)
        axis, args = axes[sources[0]], node.args
        if node.target is aten.permute.default:
            return [int(d) % rank for d in args[1]].index(axis)  # type: ignore[union-attr, arg-type]
        if node.target is aten.transpose.int:
            a, b = int(args[1]) % rank, int(args[2]) % rank  # type: ignore[arg-type]
            return {a: b, b: a}.get(axis, axis)
        return axis

    def block_ends(self) -> list[_End]:
        """Ends of residual blocks, and the last activation of every size without any, in the order of the graph."""
        residual = [node for node in self.nodes if self._is_residual(node)]
        inner = {node for node in residual if set(node.users) <= set(residual)}  # one of several sums in a row
        ends = {end.name: end for node in residual if node not in inner for end in self._end(self._settled(node))}
        covered = {end.place[1] for end in ends.values()}
        trunk = self._trunk()
        last: dict[object, _End] = {}
        for node in self.nodes:
            if node.target in ACTIVATIONS and node in self.signal:
                # What a gate is made of has one place too, but lies beside the trunk.
                found = [e for e in self._end(node) if node in trunk or math.prod(e.place[1]) > 1]
                last |= {end.place: end for end in found if end.place[1] not in covered}
        ends |= {end.name: end for end in last.values()}
        return [ends[node.name] for node in self.nodes if node.name in ends]

    def _end(self, node: Node) -> list[_End]:
        """The node as an end, if it may be one."""
        shape = self.shapes.get(node.name, ())
        if node in self.outputs or len(shape) < 2 or shape[0] != _batch(self.network):
            return []
        axis = self.axes[node.name]
        return [_End(node.name, node.target, (axis, (*shape[1:axis], *shape[axis + 1 :])))] if axis else []

    def _is_residual(self, node: Node) -> bool:
        """Whether a sum joins a branch of layers with a shortcut around it."""
        operands = node.args[:2]
        if node.target is not aten.add.Tensor or not all(x in self.signal for x in operands):
            return False
        a, b = operands
        assert isinstance(a, Node) and isinstance(b, Node)
        same = self.shapes[a.name] == self.shapes[b.name]
        return same and (self._is_shortcut(a, b) or self._is_shortcut(b, a))

    def _is_shortcut(self, node: Node, branch: Node) -> bool:
        """Whether a value, followed back, comes from where a branch with at least one layer starts.

        Without the layer, rotated queries, relative positions and activations written as sums would count too.
        """
        while not self._depends(branch, node):
            sources = [source for source in node.all_input_nodes if source in self.signal]
            if len(sources) != 1:
                return False
            node = sources[0]
        between = (z for z in self.layers if z is not node)
        return any(self._depends(branch, z) and self._depends(z, node) for z in between)

    def _settled(self, node: Node) -> Node:
        """A sum, or the last of the norms and activations that alone read it."""
        while len(node.users) == 1 and (user := next(iter(node.users))).target in NORMS | ACTIVATIONS:
            node = user
        return node

    def _trunk(self) -> set[Node]:
        """The signal that every path to the outputs passes: no edge leads around it."""
        reaching = 0
        for output in self.outputs:
            reaching |= self.before[output]
        found, farthest = set(), 0
        for node in self.nodes:
            if node in self.signal and reaching >> self.order[node] & 1:
                found |= {node} if farthest <= self.order[node] else set()
                reached = [self.order[u] for u in node.users if reaching >> self.order[u] & 1]
                farthest = max([farthest, *reached])
        return found


def _batch(network: Network) -> int:
    return len(next(iter(network.examples.values())))
