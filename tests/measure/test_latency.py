"""Races on a simulated clock: launch effects, drift, heavy tails and busy neighbours."""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.errors import SlimlineError
from slimline.measure.latency import CERTIFIED, QUICK, Contestant, Race, RacePlan, noise_floor, race
from slimline.runtimes.runtime import Array, Artifact

INPUTS = {"x": np.zeros((200, 3), dtype=np.float32)}
SHORT = replace(CERTIFIED, rounds=9, burst_seconds=0.01, warmup_seconds=0.01, pause_seconds=0.0)


@dataclass
class Computer:
    """A simulated machine with one clock, that drifts and has a neighbour who comes and goes."""

    seed: int
    launch_spread: float = 0.01
    """Standard deviation of a process's own log speed, drawn anew at every launch."""
    shared_spread: float = 0.3
    noise: float = 0.03
    clock: float = 0.0
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.busy_until = 0.0
        self.shared = 0.0

    def open(self, artifact: Artifact, threads: int) -> "AbstractContextManager[Contestant]":
        return SimulatedProcess(self, artifact)


class SimulatedProcess:
    """A process whose calls take the milliseconds that its artifact's file name says, as this computer makes them."""

    def __init__(self, computer: Computer, artifact: Artifact) -> None:
        self.computer = computer
        self.artifact = artifact
        self.speed = computer.rng.normal(0.0, computer.launch_spread)

    def __enter__(self) -> Self:
        self.computer.events.append(f"open {self.artifact.path.stem}")
        self.computer.shared = self.computer.rng.normal(0.0, self.computer.shared_spread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.computer.events.append(f"close {self.artifact.path.stem}")

    def load(self, inputs: Mapping[str, Array]) -> None:
        self.computer.events.append(f"load {len(inputs['x'])}")

    def burst(self, calls: int, batch: int = 1, first: int = 0) -> NDArray[np.float64]:
        here = self.computer
        here.events.append(f"burst {self.artifact.path.stem} {calls} {batch} {first}")
        drift = 0.1 * np.sin(2 * np.pi * here.clock / 0.7)
        if here.clock > here.busy_until and here.rng.random() < 0.05:
            here.busy_until = here.clock + here.rng.exponential(0.05)
        busy = np.log(2.0) if here.clock < here.busy_until else 0.0
        tail = here.noise * np.abs(here.rng.standard_t(2, size=calls))
        seconds = float(self.artifact.path.stem) / 1000 * np.exp(self.speed + here.shared + drift + busy + tail)
        here.clock += float(seconds.sum())
        return np.asarray(seconds)


def artifact(milliseconds: float) -> Artifact:
    return Artifact(Path(f"{milliseconds}.onnx"), "onnxruntime")


def run(computer: Computer, plan: RacePlan = SHORT, **milliseconds: float) -> Race:
    return race({k: artifact(v) for k, v in milliseconds.items()}, INPUTS, plan, 2, open_process=computer.open)


def test_a_slow_down_of_five_percent_is_found() -> None:
    found = 0
    for seed in range(40):
        ratio = run(Computer(seed), old=1.0, new=1.05).ratio("new", "old")
        assert ratio.value == pytest.approx(1.05, rel=0.03)
        found += ratio.low > 1
    assert found >= 38


def test_the_same_file_twice_is_rarely_called_different() -> None:
    alarms, races = 0, 300
    for seed in range(races):
        ratio = noise_floor(artifact(1.0), INPUTS, SHORT, 2, open_process=Computer(1000 + seed).open)
        alarms += not ratio.low <= 1 <= ratio.high
    # Nominal is at most 5 %: 15 alarms, standard deviation 3.8.
    assert 3 <= alarms <= 26


def test_launch_effects_are_not_hidden_by_many_bursts() -> None:
    # One process is 10 % slower by luck of its launch: many rounds must not turn that into a narrow interval.
    wide = run(Computer(0, launch_spread=0.1), replace(SHORT, launches=(5, 5), rounds=60), a=1.0, b=1.0).ratio("a", "b")
    assert wide.high / wide.low > 1.15


def test_the_ratio_is_paired() -> None:
    # Launches differ by 30 % for both contestants alike; the interval of the ratio knows nothing of it.
    both = run(Computer(3, launch_spread=0.0), replace(SHORT, launches=(6, 6)), slow=2.0, fast=1.0)
    ratio, latency = both.ratio("slow", "fast"), both.latency("fast")
    assert ratio.value == pytest.approx(2.0, rel=0.01)
    assert ratio.high / ratio.low < 1.03
    assert latency.high / latency.low > 1.2
    assert both.ratio("fast", "slow").value == pytest.approx(1 / ratio.value)


def test_numbers_by_hand() -> None:
    plan = replace(SHORT, launches=(2, 2))
    seconds = {"a": np.array([[0.004, 0.006, 0.008], [0.004, 0.004, 0.1]]), "b": np.full((2, 3), 0.002)}
    by_hand = Race(seconds, plan, threads=3)
    latency = by_hand.latency("a")
    assert (latency.value, latency.low, latency.high, latency.n) == pytest.approx((5.0, 4.0, 6.0, 2))
    assert latency.unit == "ms"
    assert (latency.machine["threads"], latency.machine["batch"]) == (3, 1)
    assert by_hand.ratio("a", "b").value == pytest.approx(np.sqrt(3.0 * 2.0))


def test_launching_stops_when_narrow_and_at_the_cap() -> None:
    calm, noisy = Computer(0, launch_spread=0.0001, noise=0.0), Computer(0, launch_spread=0.3)
    assert run(calm, a=1.0, b=2.0).seconds["a"].shape == (5, 9)
    assert run(noisy, a=1.0, b=2.0).seconds["a"].shape == (10, 9)
    assert run(noisy, replace(QUICK, pause_seconds=0), a=1.0, b=2.0).seconds["b"].shape == (2, 5)
    assert run(noisy, a=1.0).latency("a").n == 5  # nothing to compare with: the fewest launches


def test_bursts_take_turns_and_start_at_the_same_sample() -> None:
    computer = Computer(0)
    plan = replace(SHORT, launches=(2, 2), rounds=3, batch=4, samples=50)
    run(computer, plan, a=1.0, b=2.0, c=3.0)
    opened = computer.events[:3]
    assert sorted(opened) == ["open 1.0", "open 2.0", "open 3.0"] and computer.events[3:6] == ["load 50"] * 3
    bursts = [e.split() for e in computer.events if e.startswith("burst")]
    until = next(i for i, e in enumerate(computer.events) if e.startswith("close"))
    first_launch = [e.split() for e in computer.events[until - 9 : until]]
    assert [sorted(b[1] for b in first_launch[i : i + 3]) for i in (0, 3, 6)] == [["1.0", "2.0", "3.0"]] * 3
    assert [b[4] for b in first_launch] == ["0"] * 3 + ["4"] * 3 + ["8"] * 3
    assert {b[3] for b in bursts} == {"4"}
    closed = [e for e in computer.events if e.startswith("close")]
    assert len(closed) == 6 and closed[:3] == [e.replace("open", "close") for e in reversed(opened)]
    # About as many calls as fill a burst, and never fewer than three.
    calls = {b[1]: int(b[2]) for b in first_launch}
    assert calls["1.0"] > calls["3.0"] >= 3


def test_nobody_always_follows_the_same_neighbour() -> None:
    """What a contestant leaves behind, such as threads that spin, then falls on all the others alike."""
    computer = Computer(0)
    run(computer, replace(SHORT, launches=(1, 1), rounds=60), a=1.0, b=2.0, c=3.0)
    order = [e.split()[1] for e in computer.events if e.startswith("burst")][-180:]
    inside = [(a, b) for i, (a, b) in enumerate(pairwise(order)) if i % 3 != 2]
    counts = Counter(inside)
    assert set(counts) == {(a, b) for a in ("1.0", "2.0", "3.0") for b in ("1.0", "2.0", "3.0") if a != b}
    assert min(counts.values()) >= 10  # 20 on average


def test_warm_up_lasts_as_long_as_planned() -> None:
    computer = Computer(0, shared_spread=0.0, noise=0.0)
    run(computer, replace(SHORT, launches=(1, 1), rounds=1, warmup_seconds=0.4), a=1.0)
    *warm_up, timed = [int(e.split()[2]) for e in computer.events if e.startswith("burst")]
    assert warm_up[:3] == [1, 2, 4]
    assert 0.4 <= computer.clock <= 0.4 * 2.5 + timed * 0.003


def test_bad_races_are_refused() -> None:
    computer = Computer(0)
    with pytest.raises(SlimlineError, match="0 contestants"):
        run(computer)
    with pytest.raises(SlimlineError, match="launches"):
        run(computer, replace(SHORT, launches=(5, 2)), a=1.0)
    with pytest.raises(SlimlineError, match=r"\[2, 3\] samples"):
        race({"a": artifact(1)}, {"x": np.zeros((2, 1)), "y": np.zeros((3, 1))}, SHORT, 1, open_process=computer.open)
    with pytest.raises(SlimlineError, match=r"\[0\] samples"):
        race({"a": artifact(1)}, {"x": np.zeros((0, 1))}, SHORT, 1, open_process=computer.open)
    with pytest.raises(SlimlineError, match="too coarse"):
        run(computer, a=0.0)


def test_processes_are_closed_when_one_fails() -> None:
    computer = Computer(0)

    def open_second_fails(which: Artifact, threads: int) -> AbstractContextManager[Contestant]:
        if which.path.stem == "2":
            raise SlimlineError("it does not open")
        return computer.open(which, threads)

    with pytest.raises(SlimlineError, match="does not open"):
        race({"a": artifact(1), "b": artifact(2)}, INPUTS, SHORT, 1, open_process=open_second_fails)
    assert computer.events == ["open 1", "close 1"]


def test_progress_is_told_after_every_launch() -> None:
    lines: list[str] = []
    race({"a": artifact(1.0)}, INPUTS, replace(SHORT, launches=(3, 4)), 2, lines.append, Computer(0).open)
    assert [line.split(":")[0] for line in lines] == [f"launch {i} of at most 4" for i in (1, 2, 3)]
