"""How a training step runs fastest on this machine: measured, not assumed."""

import copy
import hashlib
import json
import math
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from slimline import __version__
from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.training.batch import Batches
from slimline.training.codebooks import share_steps_
from slimline.training.engine import Engine
from slimline.training.layout import channels_last_, move_
from slimline.training.lesson import Lesson, Loss
from slimline.training.plan import PRECISIONS, Plan

PROBE_STEPS = 4
HOPELESS = 2.0
"""A precision whose first step takes so many times that of another is not tried again."""
LEAST_TO_COMPILE = 120.0
"""Seconds that a run has to take before compiling is tried: it costs about half a minute itself."""
NOT_YET = -1
STEP_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)
"""What torch raises when an operator has no kernel for a precision, or a compiler fails."""


@dataclass(frozen=True)
class Speed:
    """Seconds of one training step in one way of running it."""

    precision: str
    compiled: bool
    seconds: float
    compile_seconds: float = 0.0
    """What the first step took longer than the later ones, where it was compiled."""
    failed: str = ""
    """Why a step cannot be made so."""


def step_speeds(student: Network, batches: Batches, loss: Loss, plan: Plan) -> dict[str, Speed]:
    """The speed of a step by precision, uncompiled.

    The precisions take turns, so that a busy moment hits all of them, and the fastest step of each counts. A precision
    in which the step fails, for want of an operator for one, is infinitely slow.

    Raises:
        SlimlineError: the step fails in fp32.
    """
    probes, failed = dict[str, _Probe](), dict[str, str]()
    first = dict.fromkeys(PRECISIONS, math.inf)
    with torch.random.fork_rng():
        for precision in PRECISIONS:
            try:
                probes[precision] = _Probe(student, batches, loss, replace(plan, precision=precision))
                first[precision] = probes[precision].step()
            except STEP_ERRORS as error:
                failed[precision] = _reason(error)
        if "fp32" in failed:
            raise SlimlineError(f"A training step of the network fails in fp32: {failed['fp32']}.")
        hopeful = [precision for precision in PRECISIONS if first[precision] <= HOPELESS * min(first.values())]
        fastest = {precision: math.inf for precision in hopeful}
        for precision in hopeful * PROBE_STEPS:
            fastest[precision] = min(fastest[precision], probes[precision].step())
    seconds = first | fastest
    return {name: Speed(name, False, seconds[name], failed=failed.get(name, "")) for name in PRECISIONS}


def fastest_plan(
    student: Network, batches: Batches, loss: Loss, plan: Plan, folder: Path | None = None
) -> tuple[Plan, dict[str, Speed]]:
    """The plan with the precision in which a step is fastest, compiled where that pays back within the run.

    Compiling is measured too, in fp32 and in the fastest precision, but only where the run is long enough to hope.

    Args:
        folder: where the choice is kept, so that a training that is continued goes on as it began. Then nothing is
            measured, and there are no speeds.
    """
    engine = Engine()
    kept = None if folder is None else folder / f"precision-{_identity(student, batches, plan)}"
    stored = int(kept.read_text()) if kept is not None and engine.main and kept.exists() else NOT_YET
    told = round(engine.from_main(stored))
    speeds: dict[str, Speed] = {}
    if told == NOT_YET:
        speeds = _all_speeds(engine, student, batches, loss, plan)
        fastest = min(speeds.values(), key=lambda s: s.seconds * plan.steps + s.compile_seconds)
        told = 2 * PRECISIONS.index(fastest.precision) + fastest.compiled
        told = round(engine.from_main(told))  # processes that measure for themselves could choose differently
        if kept is not None and engine.main:
            with suppress(OSError):  # a full disk: then a continued training measures again
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(str(told))
    return replace(plan, precision=PRECISIONS[told // 2], compiled=bool(told % 2)), speeds


def _all_speeds(engine: Engine, student: Network, batches: Batches, loss: Loss, plan: Plan) -> dict[str, Speed]:
    """By precision, and compiled where a run is so long that this may pay back."""
    speeds = step_speeds(student, batches, loss, plan)
    best = min(speeds.values(), key=lambda speed: speed.seconds)
    if engine.from_main(best.seconds) * plan.steps >= LEAST_TO_COMPILE:
        for precision in dict.fromkeys(("fp32", best.precision)):
            speeds[f"{precision} compiled"] = compiled_speed(student, batches, loss, replace(plan, precision=precision))
    return speeds


def compiled_speed(student: Network, batches: Batches, loss: Loss, plan: Plan) -> Speed:
    """The speed of a compiled step, and what compiling costs; infinitely slow where there is no compiler."""
    with torch.random.fork_rng():
        try:
            probe = _Probe(student, batches, loss, replace(plan, compiled=True))
            first = probe.step()
            later = min(probe.step() for _ in range(PROBE_STEPS))
        except STEP_ERRORS as error:
            return Speed(plan.precision, True, math.inf, failed=_reason(error))
    return Speed(plan.precision, True, later, max(0.0, first - later))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


def _identity(student: Network, batches: Batches, plan: Plan) -> str:
    """What the choice was measured for."""
    learnt = json.dumps([student.digest(), batches.identity, asdict(plan), __version__])
    return hashlib.sha256(learnt.encode()).hexdigest()[:16]


class _Probe:
    """Training steps on one batch."""

    def __init__(self, student: Network, batches: Batches, loss: Loss, plan: Plan) -> None:
        device = Engine().device
        network = channels_last_(move_(student.copy().set_training_(True), device))
        share_steps_(network)
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
