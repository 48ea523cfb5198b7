"""Synthetic data: inputs made from the network alone, for when the user's data may not be read.

Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz (2020). Dreaming to Distill: Data-free Knowledge Transfer via
DeepInversion. arXiv:1912.08795, equations 1 to 4. The same statistics for calibration: Cai, Yao, Dong, Gholami,
Mahoney, Keutzer (2020), ZeroQ, arXiv:2001.00281; Haroush, Hubara, Hoffer, Soudry (2020), The Knowledge Within,
arXiv:1912.01274.

    x = argmin  mean over norms and channels of ( (m(x) - m)^2 / v  +  (s(x) / s - 1)^2 )
              + a CE( network(x), y )  +  b max(0, TV(x) - TV(examples))  +  c mean(x^2)

m(x) and s(x) are mean and deviation, over the batch, of what a batch norm reads; m, s^2 = v are those it has kept from
training; y are classes.

Ours differs: statistics are compared in units of the kept deviation, so that every channel counts alike; y is a mixture
of two classes, the first of which has the larger share, so that boundaries between classes are drawn too; images are
neither shifted nor mirrored on the way, since what lies where is part of what the network knows; they start as blobs of
several sizes, become no smoother than the network's example inputs, and stay within their range. Mean, deviation, range
and variation of the examples, and their masks, are all that is taken from data.
Helps: calibration, and distillation of pruned or quantised networks with batch norm.  Does not: replace data where the
network keeps no statistics. A network whose batch norm is folded has lost them (the norms that could not be folded
still count): synthesize before folding. Without any norm what is left are the classes, the image prior, and the
examples' mean and deviation as the statistics of the input.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.network.image_axes import image_axes
from slimline.network.network import Network, get_tensor
from slimline.network.shapes import node_shapes
from slimline.scores import SAME_NUMBERS, SOFTMAX, last_operators
from slimline.training.layout import channels_last, channels_last_
from slimline.training.lesson import autocast

Progress = Callable[[int, int], None]
aten = torch.ops.aten
EMBEDDINGS = (aten.embedding.default, aten.embedding_bag.default, aten.embedding_bag.padding_idx)

STEPS = 50
"""Steps of Adam for every batch."""
BATCH = 256
"""Samples whose statistics are matched together, where memory allows."""
RATE = 0.3
"""Learning rate of Adam in units of the examples' deviation."""
BETAS = (0.5, 0.9)
"""Adam's memories, shorter than its own defaults because there are few steps."""
CLASS_WEIGHT = 0.1
"""a"""
VARIATION_WEIGHT = 0.3
"""b, of images in units of the examples' deviation."""
SIZE_WEIGHT = 1e-3
"""c, in the same units."""
SECOND_SHARE = 0.4
"""The second class of a target has a share drawn from 0 to this."""
BLOBS = (2, 4, 8)
"""Images start as the sum of noise and of noise on grids of this many cells per side."""
LARGEST_MEMORY = 2**31
"""Bytes of activations of one batch; a batch is smaller where this would be passed."""
TIMED, TIMED_STEPS = 32, 3
"""Samples and steps with which the precisions are timed."""
CLEARLY = 1.25
"""bf16 is taken where it is so many times as fast: the same seed should not give other samples for a busy moment."""
FEWEST = 8
"""Samples per batch, even so: statistics of fewer say little."""


def synthesize(
    network: Network, count: int, seed: int, progress: Progress | None = None, precision: str = "fp32"
) -> dict[str, Tensor]:
    """Inputs by name, ``count`` samples on the first axis, whose statistics are those the network was trained with.

    Inputs of floating-point numbers are optimised. Whole numbers are drawn evenly from the rows of the embedding that
    they index, else from the range that the network's examples have. Masks (whole numbers that are only 0 and 1 and
    index nothing, and inputs that are the same number everywhere) are rows of the examples.

    Args:
        network: the original, before its batch norm is folded; it stays as it is.
        count: samples wanted.
        seed: the same seed gives the same inputs.
        progress: called with the steps done and the steps in all.
        precision: ``fp32`` or ``bf16``, or ``auto`` for bf16 where it is measured to be clearly
            faster here.

    Raises:
        SlimlineError: ``count`` is less than 1, or an input can neither be optimised nor drawn.
    """
    if count < 1:
        raise SlimlineError(f"{count} synthetic samples were asked for: ask for at least one.")
    generator = torch.Generator().manual_seed(seed)
    kinds = {name: _Input.of(network, name, axis) for name, axis in image_axes(network).items()}
    parts = []
    with torch.random.fork_rng(devices=[]):  # for networks that draw numbers themselves
        torch.default_generator.manual_seed(seed)
        frozen = channels_last_(network.copy().set_training_(False))
        frozen.module.requires_grad_(False)
        batches = -(-count // _batch_size(frozen))
        targets = _targets(count, _classes(frozen), generator)
        if precision == "auto":
            precision = _faster_precision(frozen, kinds, targets[:TIMED])
            torch.default_generator.manual_seed(seed)
        for number, target in enumerate(targets.tensor_split(batches)):
            start = {name: kind.start(len(target), generator) for name, kind in kinds.items()}
            work = _Batch(frozen, kinds, start, target, precision)
            parts.append(work.optimise(_part_of(progress, number, batches), STEPS))
    return {name: torch.cat([part[name] for part in parts]) for name in network.input_names}


def _faster_precision(network: Network, kinds: Mapping[str, "_Input"], targets: Tensor) -> str:
    """Whether steps on a few samples are clearly faster in bf16 than in fp32; they take turns."""
    generator = torch.Generator().manual_seed(0)
    start = {name: kind.start(len(targets), generator) for name, kind in kinds.items()}
    seconds = dict.fromkeys(("fp32", "bf16"), math.inf)
    for precision in [*seconds] * TIMED_STEPS:
        begun = time.perf_counter()
        try:
            _Batch(network, kinds, start, targets, precision).optimise(None, steps=1)
        except RuntimeError:  # an operator without a kernel for bf16; in fp32 the samples themselves will tell
            continue
        seconds[precision] = min(seconds[precision], time.perf_counter() - begun)
    return "bf16" if CLEARLY * seconds["bf16"] < seconds["fp32"] else "fp32"


def _part_of(progress: Progress | None, number: int, batches: int) -> Progress | None:
    return None if progress is None else lambda done, total: progress(number * total + done, batches * total)


def statistics_loss(x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """The first term above for one norm.

    Args:
        x: (batch, channels, ...); mean, variance: (channels,), which the norm has kept.
    """
    axes = [axis for axis in range(x.ndim) if axis != 1]
    x, kept = x.float(), variance.float() + eps
    found = x.var(axes, correction=0) + eps
    moved = (x.mean(axes) - mean.float()).square() / kept
    return (moved + ((found / kept).sqrt() - 1).square()).mean()


def variation(images: Tensor) -> Tensor:
    """TV: the mean absolute difference of neighbours, down and across, of images (n, channels, height, width)."""
    down, across = images.diff(dim=2).abs(), images.diff(dim=3).abs()
    return sum((d.mean() for d in (down, across) if d.numel()), images.new_zeros(()))


@dataclass(frozen=True)
class _Input:
    """What one input of the network is, and how it is made; images have their channels on axis 1 meanwhile."""

    name: str
    example: Tensor
    axis: int | None
    """Where the network wants the channels of images; None for what is no image."""
    way: str
    """``optimise``, ``draw`` or ``copy``."""
    low: float
    high: float
    """Range: inclusive of both ends for whole numbers."""
    mean: float = 0.0
    deviation: float = 1.0
    variation: float = 0.0
    """Of images, in units of the deviation."""

    @staticmethod
    def of(network: Network, name: str, axis: int | None) -> "_Input":
        example = network.examples[name]
        if example.is_complex():
            raise SlimlineError(f"The input {name} holds complex numbers, which cannot be synthesized: give data.")
        if not example.numel() or not example.isfinite().all():
            raise SlimlineError(
                f"The example of the input {name} (shape {tuple(example.shape)}) is empty or has NaN or infinity, so "
                "its range is unknown: load the network with a sample of real data."
            )
        if axis is not None:
            example = example.movedim(axis, 1).contiguous()
        values = example.double()
        low, high = float(values.min()), float(values.max())
        if example.is_floating_point():
            if low == high:
                return _Input(name, example, axis, "copy", low, high)
            mean, deviation = float(values.mean()), float(values.std(correction=0))
            rough = 0.0 if axis is None else float(variation(values)) / deviation
            return _Input(name, example, axis, "optimise", low, high, mean, deviation, rough)
        rows = rows_indexed(network, name)
        if rows is not None:
            return _Input(name, example, axis, "draw", 0, rows - 1)
        mask = example.dtype is torch.bool or (low >= 0 and high <= 1)
        return _Input(name, example, axis, "copy" if mask else "draw", low, high)

    def start(self, count: int, generator: torch.Generator) -> Tensor:
        """Values to begin with, and to stay with unless they are optimised, of the input's own type."""
        shape = (count, *self.example.shape[1:])
        if self.way == "copy":
            return self.example[torch.randint(len(self.example), (count,), generator=generator)].clone()
        if self.way == "draw":
            return torch.randint(int(self.low), int(self.high) + 1, shape, generator=generator).to(self.example.dtype)
        noise = torch.randn(shape, generator=generator)
        if self.axis is not None:
            for cells in BLOBS:
                grid = torch.randn(*shape[:2], cells, cells, generator=generator)
                noise += F.interpolate(grid, shape[2:], mode="bilinear", align_corners=False)
            noise /= noise.std(correction=0)
        return self.within(self.mean + self.deviation * noise)

    def within(self, x: Tensor) -> Tensor:
        """Images in the range of the examples, which a few samples show well; other inputs as they are."""
        return x if self.axis is None else x.clamp(self.low, self.high)

    def as_given(self, x: Tensor) -> Tensor:
        """Values in the order of axes and of the type that the network takes."""
        return (x if self.axis is None else x.movedim(1, self.axis)).to(self.example.dtype)


def rows_indexed(network: Network, name: str) -> int | None:
    """Rows of the smallest embedding that an input indexes; None if it indexes none."""
    placeholders = [n for n in network.module.graph.nodes if n.op == "placeholder"]
    waiting = [placeholders[network.input_names.index(name)]]
    seen, rows = set[Node](), list[int]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for user in node.users:
            table = user.args[0] if user.args else None
            if user.target in EMBEDDINGS and user.args[1] is node and isinstance(table, Node):
                if table.op == "get_attr":
                    rows.append(len(get_tensor(network.module, str(table.target))))
            elif str(user.target).removeprefix("aten.") in SAME_NUMBERS or user.target is aten.select.int:
                waiting.append(user)
    return min(rows, default=None)


def _batch_size(network: Network) -> int:
    """Samples per batch whose activations fit into memory."""
    samples = len(next(iter(network.examples.values())))
    values = sum(math.prod(shape) for shape in node_shapes(network).values()) / samples
    return max(FEWEST, min(BATCH, int(LARGEST_MEMORY / (4 * max(1.0, values)))))


def _classes(network: Network) -> int:
    """Columns of the first output of floating-point numbers if it is (batch, classes), else 0."""
    answer = _first(network.run(network.examples))
    return 0 if answer is None or answer.ndim != 2 or answer.shape[1] < 2 else answer.shape[1]


def _first(outputs: tuple[Tensor, ...]) -> Tensor | None:
    return next((output for output in outputs if output.is_floating_point()), None)


def _targets(count: int, classes: int, generator: torch.Generator) -> Tensor:
    """Shares of the classes, (count, classes); every class is the largest equally often."""
    if not classes:
        return torch.zeros(count, 0)
    order = torch.randperm(classes, generator=generator)  # so that the first are not always those that come once more
    first = order[torch.arange(count) % classes][torch.randperm(count, generator=generator)]
    second = (first + torch.randint(1, classes, (count,), generator=generator)) % classes
    share = SECOND_SHARE * torch.rand(count, 1, generator=generator)
    return (1 - share) * F.one_hot(first, classes) + share * F.one_hot(second, classes)


class _Watcher(Interpreter):
    """Runs a network and collects `statistics_loss` of every batch norm that has kept statistics."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.module)
        self.losses: list[Tensor] = []

    def run_node(self, n: Node) -> object:
        if n.target is aten.batch_norm.default:
            (x, _, _, mean, variance, *_), _ = self.fetch_args_kwargs_from_env(n)
            if mean is not None and variance is not None:
                self.losses.append(statistics_loss(x, mean, variance, float(n.args[7])))  # type: ignore[arg-type]
        return super().run_node(n)


@dataclass
class _Batch:
    """One batch on its way from its start to its statistics."""

    network: Network
    kinds: Mapping[str, _Input]
    start: Mapping[str, Tensor]
    target: Tensor
    precision: str

    def optimise(self, progress: Progress | None, steps: int) -> dict[str, Tensor]:
        """The inputs as the network takes them, after so many steps."""
        leaves = {
            name: channels_last(x.float()).requires_grad_()
            for name, x in self.start.items()
            if self.kinds[name].way == "optimise"
        }
        rates = [RATE * self.kinds[name].deviation for name in leaves]
        groups = [{"params": [x], "lr": rate} for x, rate in zip(leaves.values(), rates, strict=True)]
        optimizer = torch.optim.Adam(groups, betas=BETAS) if groups else None
        for step in range(steps):
            if optimizer is not None:
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
                self.step_(leaves, optimizer)
            if progress is not None:
                progress(step + 1, steps)
        return {name: x.detach().contiguous() for name, x in self.as_given(leaves).items()}

    def as_given(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the network reads: what is optimised as it is by now, and the other inputs."""
        return {name: self.kinds[name].as_given(leaves.get(name, x)) for name, x in self.start.items()}

    def step_(self, leaves: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """One step of every input that is optimised; edits them."""
        slopes = torch.autograd.grad(self.loss(leaves), list(leaves.values()))
        for x, slope in zip(leaves.values(), slopes, strict=True):
            # A root at zero inside the network has no slope there; those entries stay where they are for a step.
            x.grad = slope.nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
        with torch.no_grad():
            for name, x in leaves.items():
                x.copy_(self.kinds[name].within(x))

    def loss(self, leaves: Mapping[str, Tensor]) -> Tensor:
        """What is minimised."""
        inputs = self.as_given(leaves)
        watcher = _Watcher(self.network)
        with autocast(self.precision):
            outputs = watcher.run(*(inputs[name] for name in self.network.input_names))
        scaled = {name: (x - self.kinds[name].mean) / self.kinds[name].deviation for name, x in leaves.items()}
        norms = watcher.losses or [(x.mean() ** 2 + (x.std(correction=0) - 1) ** 2) for x in scaled.values()]
        total = torch.stack(norms).mean()
        for name, x in scaled.items():
            total = total + SIZE_WEIGHT * x.square().mean()
            if self.kinds[name].axis is not None:
                total = total + VARIATION_WEIGHT * (variation(x) - self.kinds[name].variation).clamp_min(0)
        answer = _first(outputs)
        if answer is not None and self.target.shape[1]:
            total = total + CLASS_WEIGHT * F.cross_entropy(self.as_logits(answer.float()), self.target)
        return total

    def as_logits(self, answer: Tensor) -> Tensor:
        """Scores whose softmax is what the network says: of probabilities their logarithms."""
        probabilities = bool(last_operators(self.network) & SOFTMAX) and bool((answer >= 0).all())
        return answer.clamp_min(1e-12).log() if probabilities else answer
