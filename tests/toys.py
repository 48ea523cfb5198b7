"""A network of four layers, a task it solves, a job file with both, and one finished run of it."""

import functools
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.measure import latency
from slimline.network.container import save
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.report.run_folder import optimize
from slimline.search import bench, certify
from slimline.search.budget import Budget
from slimline.search.evidence import Result
from slimline.search.optimize import Settings
from slimline.task import Task

SIDE, CLASSES, WIDTH = 8, 4, 16
SHORT_RACE = replace(latency.QUICK, rounds=3, burst_seconds=0.01, warmup_seconds=0.03)
"""For tests that look at what becomes of a latency, not at how exact it is."""
JOB = """
import numpy as np
import slimline as sl

def model():
    return sl.load({slim!r})

def task():
    with np.load({npz!r}) as data:
        return sl.Task(
            validate={{"image": data["validate"], "labels": data["labels"]}},
            train={{"image": data["train"], "labels": data["train_labels"]}},
        )
"""


class Toy(nn.Module):
    """Conv, batch norm, relu, max pool, a residual conv, mean, linear: for images (N, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)
        self.inner, self.inner_norm = nn.Conv2d(WIDTH, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.outer = nn.Conv2d(24, WIDTH, 1)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(image))), 2)
        y = F.relu(self.inner_norm(self.inner(x)))
        x = F.relu(x + self.outer(y))
        result: Tensor = self.head(x.mean((2, 3)))
        return result


class Small(nn.Module):
    """A student for `Toy`: another architecture with the same input and output."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.one_norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.two, self.head = nn.Conv2d(8, 8, 3, stride=2), nn.Linear(8, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.two(F.relu(self.one_norm(self.one(image)))))
        result: Tensor = self.head(x.mean((2, 3)))
        return result


def patterns(count: int, seed: int, noise: float = 0.6) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Noisy images (count, 1, 8, 8) of rows, columns, a chessboard or nothing, and which it is.

    Mirroring or shifting an image does not change its class.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    y, x = np.mgrid[:SIDE, :SIDE]
    shapes = np.stack([y % 2, x % 2, (x + y) % 2, np.full((SIDE, SIDE), 0.5)]) - 0.5
    images = shapes[labels] * rng.choice([-2, 2], (count, 1, 1)) + rng.normal(0, noise, (count, SIDE, SIDE))
    return images[:, None].astype(np.float32), labels


@functools.cache
def _trained() -> Network:
    torch.set_num_threads(1)  # a second thread costs a network of this size more than it brings
    torch.manual_seed(0)
    model = Toy().train()
    images, labels = patterns(1024, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(120):
        index = torch.from_numpy(np.random.default_rng(step).integers(0, len(images), 64))
        loss = F.cross_entropy(model(torch.from_numpy(images)[index]), torch.from_numpy(labels)[index])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return trace(model.eval(), {"image": torch.from_numpy(images[:2])})


def toy() -> Network:
    """A trained `Toy`, the same every time; the caller may change it."""
    return _trained().copy()


class ChannelsLast(nn.Module):
    """A network of images for images whose channels lie on the last axis, as those from Keras want them."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.module

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.network(image.permute(0, 3, 1, 2))[0]
        return result


def toy_channels_last() -> Network:
    """`toy` for images (N, 8, 8, 1)."""
    network = toy()
    example = network.examples["image"].permute(0, 2, 3, 1).contiguous()
    return trace(ChannelsLast(network), {"image": example})


def toy_student() -> Small:
    """An untrained `Small`, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small()


def toy_task(labels: bool = True, train: int = 256, validate: int = 300) -> Task:
    """A task for `toy`, with a student."""
    x, y = patterns(validate, seed=2)
    x_train, y_train = patterns(train, seed=3)
    validate_labels, train_labels = ({"labels": y}, {"labels": y_train}) if labels else ({}, {})
    return Task(validate={"image": x} | validate_labels, train={"image": x_train} | train_labels, student=toy_student())


def write_job(folder: Path, validate: int = 300) -> Path:
    """A JOB.py in ``folder`` with `toy` and its task."""
    x, y = patterns(validate, seed=2)
    x_train, y_train = patterns(256, seed=3)
    save(toy(), folder / "toy.slim")
    np.savez(folder / "toy.npz", validate=x, labels=y, train=x_train, train_labels=y_train)
    job = folder / "toy_job.py"
    job.write_text(JOB.format(slim=str(folder / "toy.slim"), npz=str(folder / "toy.npz")))
    return job


@functools.cache
def _finished() -> tuple[Path, Result, tempfile.TemporaryDirectory[str]]:
    keeper = tempfile.TemporaryDirectory(prefix="slimline-tests-")
    folder = Path(keeper.name)
    job = write_job(folder)
    with patch.object(bench, "QUICK", SHORT_RACE), patch.object(certify, "FINAL_RACE", SHORT_RACE):
        budget = Budget(max_drop=0.08, time_s=5.0)
        result = optimize(job, budget=budget, settings=Settings(folder / "run", ("onnxruntime",)))
    return folder / "run", result, keeper


def finished_run() -> tuple[Path, Result]:
    """The folder and the result of one short search over the toy job; made once, not to be changed."""
    folder, result, _ = _finished()
    return folder, result


def copy_of_finished_run(folder: Path) -> Path:
    """The finished run, in a place where a test may damage it."""
    shutil.copytree(finished_run()[0], folder / "run")
    return folder / "run"
