"""The loop that repairs a network: batches in, gradient steps, one cycle of the learning rate."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import put_tensor

GRADIENT_NORM_LIMIT = 5.0
WARMUP_SHARE = 0.1
PROBE_STEPS = 4


@dataclass(frozen=True)
class Batch:
    """Inputs by name and what the loss compares the outputs with."""

    inputs: Mapping[str, Tensor]
    targets: tuple[Tensor, ...]
    labels: Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    learning_rate: float
    weight_decay: float = 1e-4
    optimizer: str = "sgd"
    """``sgd`` (Nesterov momentum) or ``adamw``."""
    precision: str = "fp32"
    """``fp32`` or ``bf16`` (autocast with fp32 weights)."""


@dataclass
class Curve:
    """What happened: the mean loss of every 20 steps, and how long it took."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


NextBatch = Callable[[int], Batch]
Loss = Callable[[tuple[Tensor, ...], Batch], Tensor]
Progress = Callable[[int, int], None]


def autocast(precision: str) -> AbstractContextManager[object]:
    """A context in which convolutions and products run in ``precision``."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def recover(
    student: Network, next_batch: NextBatch, loss: Loss, plan: Plan, progress: Progress | None = None
) -> tuple[Network, Curve]:
    """Train a copy of ``student`` for ``plan.steps`` steps with a cosine schedule.

    Raises:
        SlimlineError: the loss stops being a finite number.
    """
    trained = student.copy().set_training_(True)
    channels_last_(trained)
    parameters = [p for p in trained.module.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, plan)
    curve, started, recent = Curve(), time.monotonic(), []
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * schedule(step, plan.steps)
        value = _step(trained, next_batch(step), loss, plan.precision)
        if not math.isfinite(value):
            raise SlimlineError(
                f"Recovery diverged at step {step} of {plan.steps} (loss {value}): lower the learning rate "
                f"(now {plan.learning_rate}) or look for extreme values in the training data."
            )
        torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM_LIMIT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(value)
        if len(recent) == 20 or step + 1 == plan.steps:
            curve.steps.append(step + 1)
            curve.losses.append(sum(recent) / len(recent))
            recent.clear()
            if progress is not None:
                progress(step + 1, plan.steps)
    curve.seconds = time.monotonic() - started
    _contiguous_(trained)
    return trained.set_training_(False), curve


def _optimizer(parameters: list[torch.nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    """Weights decay; biases and the scales of norms do not."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(groups, plan.learning_rate)
    return torch.optim.SGD(groups, plan.learning_rate, momentum=0.9, nesterov=True)


def schedule(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero: a factor in (0, 1]."""
    warmup = max(1, int(steps * WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _step(network: Network, batch: Batch, loss: Loss, precision: str) -> float:
    inputs = (batch.inputs[name] for name in network.input_names)
    with autocast(precision):
        outputs = network.module(*(channels_last(x) for x in inputs))
    # What holds whole numbers has no gradient.
    value = loss(tuple(o.float() for o in outputs if o.is_floating_point()), batch)
    value.backward()  # type: ignore[no-untyped-call]
    return float(value.detach())


def channels_last(x: Tensor) -> Tensor:
    """An image batch with its channels innermost in memory; other tensors as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def channels_last_(network: Network) -> Network:
    """Store 4-d weights channels last, which convolutions on CPUs prefer; edits this network."""
    for parameter in network.module.parameters():
        parameter.data = channels_last(parameter.data)
    return network


def _contiguous_(network: Network) -> None:
    for name, tensor in network.weights().items():
        if not tensor.is_contiguous():
            kept = tensor.detach().contiguous()
            put_tensor(
                network.module, name, torch.nn.Parameter(kept) if isinstance(tensor, torch.nn.Parameter) else kept
            )


def faster_precision(student: Network, next_batch: NextBatch, loss: Loss) -> tuple[str, dict[str, float]]:
    """The precision whose training step is faster on this machine, and seconds per step of both.

    The two take turns, so that a busy moment hits both.
    """
    best = {"fp32": math.inf, "bf16": math.inf}
    for precision in ("fp32", "bf16") * PROBE_STEPS:
        probe = channels_last_(student.copy().set_training_(True))
        batch = next_batch(0)
        started = time.perf_counter()
        _step(probe, batch, loss, precision)
        best[precision] = min(best[precision], time.perf_counter() - started)
    return min(best, key=best.__getitem__), best
