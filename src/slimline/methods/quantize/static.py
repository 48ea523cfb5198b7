"""Static int8 quantisation: integers for weights and activations, ranges fixed from calibration samples.

Jacob et al. (2018). Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference.
arXiv:1712.05877.
Per-channel weights and percentile ranges: Wu et al. (2020), Integer Quantization for Deep Learning Inference,
arXiv:2004.09602.

    q = clamp(round(x / s) + z)        weights: symmetric, one s per output channel, z = 0
                                       activations: one s and z per tensor        bias: int32 with s = s_x s_w

Ours differs: where quantise/dequantise pairs stand is not fixed here but given by the runtime's facts (`ops`).
Helps: size, of what becomes integers by nearly four; speed where the runtime fuses the pairs (benchmarks/results:
demo, sources).
Does not: help layers whose runtime has no integer kernel; some networks with wide activation ranges lose much.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401  (registers the operators)
from torch import Tensor
from torch.fx import Interpreter, Node

from slimline.methods.method import Method, Outcome, check_names, needs_data, param, register
from slimline.methods.remembered import Remembered
from slimline.network.network import Network, get_tensor
from slimline.network.surgery import set_weight, unused_name
from slimline.numerics.affine import affine_parameters, quantize_symmetric, symmetric_scales
from slimline.numerics.formats import IntFormat, int_format
from slimline.scores import SOFTMAX
from slimline.task import Samples, Task
from slimline.training.workspace import Workspace

decomposed = torch.ops.quantized_decomposed
BATCH = 64
LARGEST_BIAS = 2.0**30
"""Integer that the largest bias may become: half of what 32 bits hold, so that the sum of products still fits."""
VALUES_PER_BATCH = 16384
"""Values of an activation kept from each batch for percentiles."""
WEIGHTED = ("aten.conv1d", "aten.conv2d", "aten.linear")
LARGEST_VALUE = 1e9
"""Beyond it a number stands for infinity, as in the masks of attention, and integers with it in range hold no other."""


@dataclass
class Range:
    """What was seen of one activation."""

    low: float = float("inf")
    high: float = float("-inf")
    kept: list[Tensor] = field(default_factory=list)
    whole: bool = False
    """The values are integers or truth values."""

    def see(self, value: Tensor) -> None:
        self.whole = not value.is_floating_point()
        flat = value.detach().flatten().float()
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        self.kept.append(flat[:: max(1, len(flat) // VALUES_PER_BATCH)].clone())

    def hopeless(self) -> str:
        """Why eight bits with one scale cannot stand for these values; empty when they can."""
        if self.whole:
            return "holds whole numbers"
        if not -LARGEST_VALUE <= self.low <= self.high <= LARGEST_VALUE:
            return f"holds values beyond {LARGEST_VALUE:g}, as masks do"
        return ""

    def bounds(self, observer: str, percentile: float) -> tuple[float, float]:
        """(low, high) by the observer: everything seen, or without the outermost share on each side."""
        if observer == "minmax":
            return self.low, self.high
        values = torch.cat(self.kept).numpy()
        low, high = np.percentile(values, [100 - percentile, percentile])
        return float(low), float(high)


@register
@dataclass(frozen=True)
class QuantizeStatic(Method):
    """Insert quantise/dequantise pairs in the standard reference form (`quantized_decomposed`)."""

    observer: str = param("percentile", choices=("minmax", "percentile"), doc="how activation ranges are chosen")
    percentile: float = param(99.99, low=90.0, high=100.0, doc="share of values inside the range, in percent")
    samples: int = param(512, low=1, high=100000, doc="calibration samples")
    activation: str = param("uint8", choices=("uint8", "int8"), doc="format of activations")
    weight: str = param("int8", choices=("int8", "int8_narrow"), doc="format of weights")
    ops: Sequence[str] = param(("aten.conv2d", "aten.linear", "aten.add"), doc="operators whose inputs are quantised")
    absorbed: Sequence[str] = param(
        ("aten.relu", "aten.relu6"), doc="operators that the runtime makes part of the one before them"
    )

    skip: Sequence[str] = param((), doc="layers that stay in floating point, by name")

    needs = frozenset({"data", "float weights"})
    leaves = frozenset({"int weights"})
    cites = ("jacob2018quantization", "wu2020integer")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        samples = needs_data("Static quantisation", task, network).take(slice(0, self.samples))
        result = network.copy().set_training_(False)
        chosen = [n for n in result.module.graph.nodes if op_name(n) in self.ops]
        known = sorted({layer_name(n) for n in result.module.graph.nodes} - {""})
        check_names("QuantizeStatic(skip=...)", self.skip, known, "layer")
        computed = computed_from_inputs(result)
        reasons = {n: unsupported(n, computed, self.skip) for n in chosen}
        chosen = [n for n in chosen if not reasons[n]]
        touched = {n: [*activations_of(n), *results_of(n, self.absorbed)] for n in chosen}
        ranges = observe(result, {v for values in touched.values() for v in values}, samples)
        for node, values in touched.items():
            reasons[node] += list(dict.fromkeys(filter(None, (ranges[v.name].hopeless() for v in values))))
        chosen = [n for n in chosen if not reasons[n]]
        results = {v for n in chosen for v in results_of(n, self.absorbed)}
        fmt, pairs = int_format(self.activation), _Pairs(result)
        for node in chosen:
            scales = []
            for value in activations_of(node):
                scale, zero_point = affine_parameters(*ranges[value.name].bounds(self.observer, self.percentile), fmt)
                scales.append(scale)
                node.replace_input_with(value, pairs.after(value, scale, zero_point, fmt))
            if op_name(node) in WEIGHTED:
                _quantize_weight_(result, node, scales[0], int_format(self.weight))
        for value in sorted(results, key=lambda v: v.name):
            scale, zero_point = affine_parameters(*ranges[value.name].bounds(self.observer, self.percentile), fmt)
            pair = pairs.after(value, scale, zero_point, fmt)
            for reader in [r for r in value.users if r is not pair.args[0]]:
                reader.replace_input_with(value, pair)
        skipped = {n.name: "; ".join(r) for n, r in reasons.items() if r}
        return Outcome(result.tidy_(), [n.name for n in chosen], skipped)


def layer_name(node: Node) -> str:
    """``blocks.0.conv1``: the name of the layer's weight without its last part; empty where it is computed."""
    weight = node.args[1] if op_name(node) in WEIGHTED else None
    return str(weight.target).rpartition(".")[0] if isinstance(weight, Node) and weight.op == "get_attr" else ""


def op_name(node: Node) -> str:
    """``aten.conv2d`` for every overload of it."""
    target = node.target
    return (
        f"{target.namespace}.{target._schema.name.split('::')[1]}" if isinstance(target, torch._ops.OpOverload) else ""
    )


def activations_of(node: Node) -> list[Node]:
    """The inputs of an operator that are activations, each once."""
    inputs = node.args[:1] if op_name(node) in WEIGHTED else node.args
    return list(dict.fromkeys(a for a in inputs if isinstance(a, Node) and a.op != "get_attr"))


def results_of(node: Node, absorbed: Sequence[str]) -> list[Node]:
    """The value behind which a pair has to stand for the operator to run on integers: its own, or that of the last of
    the absorbed operators that follow it.

    Max pooling runs on integers only without a pair of its own before it. A linear layer may leave its result in
    floating point, and so may what the network returns.
    """
    value = node
    while (
        (reader := _only_reader(value)) is not None and op_name(reader) in absorbed and len(activations_of(reader)) < 2
    ):
        value = reader
    pool = _only_reader(value)
    value = pool if pool is not None and op_name(pool) == "aten.max_pool2d" else value
    if op_name(node) == "aten.linear" or any(user.op == "output" for user in value.users):
        return []
    return [value]


def _only_reader(value: Node) -> Node | None:
    return next(iter(value.users)) if len(value.users) == 1 else None


def computed_from_inputs(network: Network) -> set[Node]:
    """The values that depend on an input of the network; the others are constants, however they are written."""
    found: set[Node] = set()
    for node in network.module.graph.nodes:
        if node.op == "placeholder" or not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def unsupported(node: Node, computed: set[Node], skip: Sequence[str] = ()) -> list[str]:
    """Why an operator stays in floating point; [] means it can be quantised.

    Args:
        computed: the values that are no constants.
        skip: layers that are to stay in floating point.
    """
    if op_name(node) in WEIGHTED:
        if layer_name(node) in skip:
            return ["is to be skipped"]
        weight = node.args[1]
        if not isinstance(weight, Node) or weight.op != "get_attr":
            return ["its weight is computed"]
        return []
    if op_name(node) in ("aten.add", "aten.mul"):
        if len([a for a in node.args if isinstance(a, Node) and a in computed]) < 2:
            return ["its other operand is a constant"]
        if any(str(user.target).removeprefix("aten.") in SOFTMAX for user in node.users):
            return ["a softmax reads it, and what is added there may be a mask"]
    return []


class _Watcher(Interpreter):
    def __init__(self, network: Network, watched: set[str]) -> None:
        super().__init__(network.module)
        self.ranges = {name: Range() for name in watched}

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n.name in self.ranges:
            self.ranges[n.name].see(value)
        return value


def observe(network: Network, values: set[Node], samples: Samples) -> dict[str, Range]:
    """Ranges of the given values over the samples, by node name; what was seen before is not looked at again."""
    seen = RANGES.of(network, samples)
    missing = {v.name for v in values} - set(seen)
    if not missing:
        return seen
    watcher = _Watcher(network, missing)
    for start in range(0, len(samples), BATCH):
        inputs = samples.take(slice(start, start + BATCH)).tensors()
        with torch.no_grad():
            watcher.run(*(inputs[name] for name in network.input_names))
    seen |= watcher.ranges
    return seen


RANGES = Remembered[Range]()


class _Pairs:
    """One quantise/dequantise pair per value, shared by all that read it."""

    def __init__(self, network: Network) -> None:
        self.graph = network.module.graph
        self.made: dict[Node, Node] = {}

    def after(self, value: Node, scale: float, zero_point: int, fmt: IntFormat) -> Node:
        if value not in self.made:
            arguments = (scale, zero_point, fmt.low, fmt.high, fmt.dtype)
            with self.graph.inserting_after(value):
                q = self.graph.call_function(decomposed.quantize_per_tensor.default, (value, *arguments))
            with self.graph.inserting_after(q):
                self.made[value] = self.graph.call_function(decomposed.dequantize_per_tensor.default, (q, *arguments))
        return self.made[value]


def _quantize_weight_(network: Network, node: Node, input_scale: float, fmt: IntFormat) -> None:
    name = str(node.args[1].target)  # type: ignore[union-attr]
    weight = get_tensor(network.module, name)
    bias = node.args[2] if len(node.args) > 2 else None
    bias_name = str(bias.target) if isinstance(bias, Node) and bias.op == "get_attr" else None
    stored_bias = None if bias_name is None else get_tensor(network.module, bias_name)
    scales = weight_scales(weight, stored_bias, input_scale, fmt)
    node.update_arg(1, _stored(network, node, name, quantize_symmetric(weight, scales, fmt), scales, fmt))
    if bias_name is not None and stored_bias is not None:
        int32, bias_scales = int_format("int32"), scales * input_scale
        integers = quantize_symmetric(stored_bias, bias_scales, int32)
        node.update_arg(2, _stored(network, node, bias_name, integers, bias_scales, int32))


def weight_scales(weight: Tensor, bias: Tensor | None, input_scale: float, fmt: IntFormat) -> Tensor:
    """One scale per output channel, (out,) float32, for which the bias fits into int32 as well.

    The bias has the scale s_x s_w. A channel of very small weights would push it beyond 32 bits, where it is cut off;
    its weights get a coarser step instead. A channel of zeros may have any scale: it gets the largest of its layer,
    since OpenVINO 2026.4 leaves a layer with a scale near zero in floating point.
    """
    scales = symmetric_scales(weight, fmt)
    if bias is not None:
        scales = torch.maximum(scales, bias.detach().abs().float() / (input_scale * LARGEST_BIAS))
    dead = weight.detach().flatten(1).abs().amax(1) == 0
    return torch.where(dead, scales.max(), scales)


def _stored(network: Network, node: Node, name: str, integers: Tensor, scales: Tensor, fmt: IntFormat) -> Node:
    """Constants for the integers and their scales, and the node that turns them back into real numbers."""
    graph = network.module.graph
    names = [unused_name(network, f"{name}_{suffix}") for suffix in ("quantized", "scale", "zero_point")]
    for stored_name, tensor in zip(names, (integers, scales, torch.zeros(len(scales), dtype=torch.int64)), strict=True):
        set_weight(network, stored_name, tensor, trainable=False)
    with graph.inserting_before(node):
        constants = [graph.create_node("get_attr", stored_name) for stored_name in names]
        return graph.call_function(
            decomposed.dequantize_per_channel.default, (*constants, 0, fmt.low, fmt.high, fmt.dtype)
        )
