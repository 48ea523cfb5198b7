"""Paired, interleaved latency: contestants take turns in bursts, each in its own process, over several launches."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from math import inf, log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from slimline.errors import SlimlineError
from slimline.measure.machine import machine
from slimline.measure.measurement import Measurement
from slimline.measure.process import RunnerProcess
from slimline.measure.statistics import Ratio, median_interval, ratio_interval
from slimline.runtimes.runtime import Array, Artifact

Floats = NDArray[np.float64]
FEWEST_CALLS = 3
"""Calls in the shortest burst: the first finds cold caches and sleeping threads, and the median of three ignores it."""
STOPPING_CONFIDENCE = 0.965
"""Stopping when the interval is narrow favours launches that agree by chance. With 5 to 10 launches a 95 % interval
then misses in up to 6.9 % of races (simulated over many target widths), one computed at this level in at most 4.9 %."""


class Contestant(Protocol):
    """What a race needs of an opened artifact; `RunnerProcess` is the real one."""

    def load(self, inputs: Mapping[str, Array]) -> None:
        """Take the samples."""

    def burst(self, calls: int, batch: int = 1, first: int = 0) -> Floats:
        """Seconds per call, shape (calls,)."""


OpenProcess = Callable[[Artifact, int], AbstractContextManager[Contestant]]


@dataclass(frozen=True)
class RacePlan:
    """How much to measure."""

    launches: tuple[int, int]
    """Fewest and most launches; between them a race ends as soon as the ratios are narrow."""
    rounds: int
    """Bursts of each contestant in one launch."""
    target_width: float
    """Relative half-width of every ratio to the first contestant at which no further launch is made."""
    burst_seconds: float = 0.05
    warmup_seconds: float = 0.3
    pause_seconds: float = 0.06
    """Rest before each burst, so that the idle threads of the last contestant have stopped spinning: those of ONNX
    Runtime 1.31 take a core for 40 ms after a call, and made a neighbour of 8 ms look like 10.4."""
    batch: int = 1
    samples: int = 64
    """At most so many of the inputs are used, evenly spaced."""


QUICK = RacePlan(launches=(2, 2), rounds=5, target_width=inf, burst_seconds=0.03, warmup_seconds=0.15)
"""For the search: about a second per contestant. The value guides; the interval of two launches is very wide."""
CERTIFIED = RacePlan(launches=(5, 10), rounds=15, target_width=0.02)
"""For what is reported."""


@dataclass(frozen=True)
class Race:
    """The median seconds per call of every burst, and what follows from them."""

    seconds: Mapping[str, Floats]
    """By label, shape (launches, rounds)."""
    plan: RacePlan
    threads: int

    def latency(self, label: str) -> Measurement:
        """Milliseconds per call: the median over launches of their medians, with the interval of that median."""
        per_launch = np.median(self.seconds[label], axis=1) * 1000
        value, low, high = median_interval(per_launch)
        n, rounds = self.seconds[label].shape
        how = (
            f"median over {n} launches of the median of {rounds} bursts, taking turns with "
            f"{len(self.seconds) - 1} others, batch {self.plan.batch}, {self.threads} threads; "
            "distribution-free 95 % interval over launches"
        )
        where = {**machine(), "threads": self.threads, "batch": self.plan.batch}
        return Measurement(value, "ms", how, n, low, high, where)

    def ratio(self, slow: str, fast: str) -> Ratio:
        """Latency of ``slow`` divided by that of ``fast``, two-sided 95 %; above 1 when ``fast`` is faster.

        The bursts of one round are compared with each other, so what slows both (a busy machine, a hot processor)
        cancels. A launch gives one number, the median log ratio of its rounds; the interval is Student's t over
        launches, a little wider where the plan may stop early (`STOPPING_CONFIDENCE`).
        """
        logs = np.log(self.seconds[slow]) - np.log(self.seconds[fast])
        fewest, most = self.plan.launches
        return ratio_interval(np.median(logs, axis=1), 0.95 if fewest == most else STOPPING_CONFIDENCE)


def race(
    contestants: Mapping[str, Artifact],
    inputs: Mapping[str, Array],
    plan: RacePlan,
    threads: int,
    progress: Callable[[str], None] | None = None,
    open_process: OpenProcess = RunnerProcess,
) -> Race:
    """Time artifacts against each other on real inputs.

    ``contestants`` by label: launches go on until the others' ratios to the first one are known well enough. ``inputs``
    by name, samples on the first axis. ``open_process`` replaces the process that runs an artifact. Raises
    SlimlineError when there are no contestants or samples, or an artifact cannot be run.
    """
    fewest, most = plan.launches
    if not contestants or fewest < 1 or most < fewest or plan.rounds < 1:
        raise SlimlineError(
            f"cannot race {len(contestants)} contestants in {plan.launches} launches of {plan.rounds} rounds: "
            "give at least one of each, and no fewer launches at most than at least"
        )
    chosen = _choose(inputs, plan.samples)
    labels = list(contestants)
    collected: dict[str, list[list[float]]] = {label: [] for label in labels}
    for launch in range(most):
        with ExitStack() as stack:
            # The order changes from launch to launch, like the turns within one.
            opened = {
                label: stack.enter_context(open_process(contestants[label], threads)) for label in _turn(labels, launch)
            }
            for contestant in opened.values():
                contestant.load(chosen)
            for label, medians in _launch(opened, plan, launch).items():
                collected[label].append(medians)
        so_far = Race({label: np.asarray(rows) for label, rows in collected.items()}, plan, threads)
        if progress is not None:
            progress(_line(so_far, launch + 1))
        if launch + 1 >= fewest and _narrow(so_far):
            break
    return so_far


def _choose(inputs: Mapping[str, Array], most: int) -> dict[str, Array]:
    counts = {len(array) for array in inputs.values()}
    if len(counts) != 1 or 0 in counts:
        raise SlimlineError(
            f"the inputs hold {sorted(counts)} samples: give every input the same number of samples, at least one"
        )
    count = counts.pop()
    picked = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
    return {name: array[picked] for name, array in inputs.items()}


def _turn(labels: Sequence[str], turn: int) -> list[str]:
    """The labels in an order that is drawn anew each turn, so that nobody always follows the same neighbour."""
    return [labels[i] for i in np.random.default_rng(turn).permutation(len(labels))]


def _launch(opened: Mapping[str, Contestant], plan: RacePlan, launch: int) -> dict[str, list[float]]:
    """Median seconds per call of every burst of one launch."""
    calls = {label: _warm_up(contestant, plan) for label, contestant in opened.items()}
    medians: dict[str, list[float]] = {label: [] for label in opened}
    for number in range(plan.rounds):
        # Every contestant of a round begins at the same sample; rounds walk through the samples.
        first = (launch * plan.rounds + number) * plan.batch
        for label in _turn(sorted(opened), first):
            time.sleep(plan.pause_seconds)
            medians[label].append(float(np.median(opened[label].burst(calls[label], plan.batch, first))))
    return medians


def _warm_up(contestant: Contestant, plan: RacePlan) -> int:
    """Run until warm; returns how many calls fill a burst."""
    spent, calls = 0.0, 1
    while True:
        seconds = contestant.burst(calls, plan.batch, 0)
        spent += float(seconds.sum())
        typical = float(np.median(seconds))
        if not typical > 0:
            raise SlimlineError(
                f"a call took {typical} s by the clock: the clock of this machine is too coarse to time it"
            )
        if spent >= plan.warmup_seconds:
            return max(FEWEST_CALLS, round(plan.burst_seconds / typical))
        # Twice as many each time, but not far beyond the end of the warm-up.
        calls = max(1, min(2 * calls, round((plan.warmup_seconds - spent) / typical)))


def _narrow(so_far: Race) -> bool:
    first, *others = so_far.seconds
    ratios = [so_far.ratio(first, other) for other in others]
    return all(r.low > 0 and log(r.high / r.low) / 2 <= so_far.plan.target_width for r in ratios)


def _line(so_far: Race, launch: int) -> str:
    now = ", ".join(f"{label} {np.median(rows[-1]) * 1000:.3g} ms" for label, rows in so_far.seconds.items())
    return f"launch {launch} of at most {so_far.plan.launches[1]}: {now}"


def noise_floor(
    artifact: Artifact,
    inputs: Mapping[str, Array],
    plan: RacePlan,
    threads: int,
    progress: Callable[[str], None] | None = None,
    open_process: OpenProcess = RunnerProcess,
) -> Ratio:
    """The ratio that the same file shows against itself (A/A): smaller differences than its interval mean nothing."""
    pair = {"first": artifact, "second": artifact}
    return race(pair, inputs, plan, threads, progress, open_process).ratio("first", "second")
