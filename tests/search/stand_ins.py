"""A search without processes and clocks: a runtime that is torch, latencies that follow from MACs, one bench."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from unittest.mock import patch

import numpy as np
import torch

from slimline.measure.latency import Race, RacePlan
from slimline.measure.measurement import Measurement
from slimline.network import container
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.runtimes.registry import RUNTIMES, open_artifact
from slimline.runtimes.runtime import Array, Artifact, Facts, Runner, Runtime
from slimline.runtimes.torch_eager import TorchEager
from slimline.search import bench, certify, evidence, strength
from slimline.search.bench import Bench
from slimline.search.layer_race import LayerRace
from slimline.search.listener import Silent
from slimline.search.study import Study
from slimline.task import Task
from tests.toys import toy, toy_task

Milliseconds = Callable[[Artifact], float]


class InProcess(Runtime):
    """Takes the place of onnxruntime; its files are those of torch."""

    name = "onnxruntime"
    file_format = "pretend"
    package = "torch"
    facts = Facts(quantized_ops=frozenset({"aten.conv2d", "aten.linear", "aten.add", "aten.mean"}), channel_multiple=4)
    variants = MappingProxyType({"": MappingProxyType({}), "bf16": MappingProxyType({})})

    def missing(self) -> str | None:
        return None

    def export(self, network: Network, folder: Path) -> Path:
        return TorchEager().export(network, folder)

    def offered_variants(self) -> tuple[str, ...]:
        return ("",)

    def open(self, artifact: Artifact, threads: int) -> Runner:
        return TorchEager().open(artifact, threads)


def from_macs(artifact: Artifact) -> float:
    """Milliseconds: 10 microseconds and 1 per 1000 MACs, half as much on integers; torch takes four times as long."""
    network = container.load(artifact.path)
    integers = any(t.dtype is torch.int8 for t in network.weights().values())
    return (0.01 + 1e-6 * macs(network) * (0.5 if integers else 1.0)) * (4 if artifact.runtime == "torch" else 1)


def planted_race(milliseconds: Milliseconds) -> Callable[..., Race]:
    """A race whose every burst takes what ``milliseconds`` says, give or take a thousandth."""

    def run(
        contestants: Mapping[str, Artifact],
        inputs: Mapping[str, Array],
        plan: RacePlan,
        threads: int,
        progress: Callable[[str], None] | None = None,
    ) -> Race:
        rng = np.random.default_rng(0)
        shape = (plan.launches[0], plan.rounds)
        seconds = {n: milliseconds(a) / 1000 * np.exp(rng.normal(0, 1e-3, shape)) for n, a in contestants.items()}
        return Race(seconds, plan, threads)

    return run


def outputs_here(artifact: Artifact, inputs: Mapping[str, Array], threads: int, batch: int = 64) -> list[Array]:
    """What the file computes, in this process."""
    return [np.array(o) for o in open_artifact(artifact, 1).run(inputs)]


def no_memory(artifact: Artifact, inputs: Mapping[str, Array], threads: int, batch: int = 1) -> Measurement:
    """A megabyte."""
    return Measurement(1e6, "bytes", "not measured", 1, 1e6, 1e6, {})


@contextmanager
def pretending(searched: Milliseconds = from_macs, final: Milliseconds | None = None) -> Iterator[None]:
    """Nothing is started and nothing is timed; ``final`` are the latencies of the last race."""
    with ExitStack() as stack:
        stack.enter_context(patch.dict(RUNTIMES, {"torch": TorchEager(), "onnxruntime": InProcess()}, clear=True))
        for module, name, value in (
            (bench, "race", planted_race(searched)),
            (bench, "artifact_outputs", outputs_here),
            (strength, "LayerRace", partial(LayerRace, run=planted_race(searched))),
            (certify, "race", planted_race(final or searched)),
            (certify, "artifact_outputs", outputs_here),
            (evidence, "runner_memory", no_memory),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield


def toy_bench(folder: Path, task: Task | None = None, resume: bool = False) -> Bench:
    """A bench for `toy` in ``folder``."""
    read = (task or toy_task()).read(("image",))
    splits = read.splits(0)
    return Bench(
        folder=folder,
        original=toy(),
        training_task=Task(
            validate=splits.search, score=read.score, train=splits.train, augment=read.augment, student=read.student
        ),
        task=read,
        search=splits.search,
        study=Study(folder / "study.sqlite", {"of": "toy"}, resume),
        threads=1,
        listener=Silent(),
        identity="toy",
    )
