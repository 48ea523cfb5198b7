"""How a training step runs fastest on this machine: measured, not assumed."""

import copy
import math
import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from slimline.network.network import Network
from slimline.training.batch import Batches
from slimline.training.engine import Engine
from slimline.training.layout import channels_last_, move_
from slimline.training.lesson import Lesson, Loss
from slimline.training.plan import PRECISIONS, Plan

PROBE_STEPS = 4
HOPELESS = 2.0
"""A precision whose first step takes so many times that of another is not tried again."""
LEAST_TO_COMPILE = 120.0
"""Seconds that a run has to take before compiling is tried: it costs about half a minute itself."""


@dataclass(frozen=True)
class Speed:
    """Seconds of one training step in one way of running it."""

    precision: str
    compiled: bool
    seconds: float
    compile_seconds: float = 0.0
    """What the first step took longer than the later ones, where it was compiled."""


def step_speeds(student: Network, batches: Batches, loss: Loss, plan: Plan) -> dict[str, Speed]:
    """The speed of a step by precision, uncompiled.

    The precisions take turns, so that a busy moment hits all of them, and the fastest step of each counts.
    """
    with torch.random.fork_rng():
        return _step_speeds(student, batches, loss, plan)


def _step_speeds(student: Network, batches: Batches, loss: Loss, plan: Plan) -> dict[str, Speed]:
    probes = {precision: _Probe(student, batches, loss, replace(plan, precision=precision)) for precision in PRECISIONS}
    first = {precision: probe.step() for precision, probe in probes.items()}
    hopeful = [precision for precision in PRECISIONS if first[precision] <= HOPELESS * min(first.values())]
    fastest = {precision: math.inf for precision in hopeful}
    for precision in hopeful * PROBE_STEPS:
        fastest[precision] = min(fastest[precision], probes[precision].step())
    return {precision: Speed(precision, False, seconds) for precision, seconds in (first | fastest).items()}


def fastest_plan(student: Network, batches: Batches, loss: Loss, plan: Plan) -> tuple[Plan, dict[str, Speed]]:
    """The plan with the precision in which a step is fastest, compiled where that pays back within the run.

    Compiling is measured too, in fp32 and in the fastest precision, but only where the run is long enough to hope.
    """
    speeds = step_speeds(student, batches, loss, plan)
    best = min(speeds.values(), key=lambda speed: speed.seconds)
    if Engine().from_main(best.seconds) * plan.steps >= LEAST_TO_COMPILE:
        for precision in dict.fromkeys(("fp32", best.precision)):
            speeds[f"{precision} compiled"] = compiled_speed(student, batches, loss, replace(plan, precision=precision))
    engine, every = Engine(), list(speeds.values())
    fastest = min(every, key=lambda s: s.seconds * plan.steps + s.compile_seconds)
    told = 2 * PRECISIONS.index(fastest.precision) + fastest.compiled
    told = round(engine.from_main(told))  # processes that measure for themselves could choose differently
    chosen = Speed(PRECISIONS[told // 2], bool(told % 2), fastest.seconds)
    return replace(plan, precision=chosen.precision, compiled=chosen.compiled), speeds


def compiled_speed(student: Network, batches: Batches, loss: Loss, plan: Plan) -> Speed:
    """The speed of a compiled step, and what compiling costs."""
    with torch.random.fork_rng():
        probe = _Probe(student, batches, loss, replace(plan, compiled=True))
        first = probe.step()
        later = min(probe.step() for _ in range(PROBE_STEPS))
    return Speed(plan.precision, True, later, max(0.0, first - later))


class _Probe:
    """Training steps on one batch."""

    def __init__(self, student: Network, batches: Batches, loss: Loss, plan: Plan) -> None:
        device = Engine().device
        network = channels_last_(move_(student.copy().set_training_(True), device))
        own = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss  # its weights would keep the gradients
        self.lesson = Lesson(network, own, plan.precision, device, plan.compiled).to(device)
        self.optimizer = plan.make_optimizer([p for p in network.module.parameters() if p.requires_grad])
        self.batch = batches.batch(0, slice(0, batches.size)).moved(lambda x: x.to(device))
        self.device = device

    def step(self) -> float:
        """Seconds of one step."""
        started = time.perf_counter()
        self.lesson(self.batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - started
