"""The demo as a user would write it: model() and task()."""

from pathlib import Path

import numpy as np

import slimline as sl

JOB = Path(__file__)
HERE = Path(__file__).parent


def model() -> sl.Network:
    """A residual CNN of 64, 128 and 256 channels trained on the 60,000 images of Fashion-MNIST."""
    return sl.load(HERE / "network.slim")


def task() -> sl.Task:
    """20,000 of its training images for recovery, all 10,000 test images for the search and the verdict."""
    with np.load(HERE / "fashion.npz", allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    train = {"image": scaled(arrays["train_images"]), "labels": arrays["train_labels"].astype(np.int64)}
    test = {"image": scaled(arrays["test_images"]), "labels": arrays["test_labels"].astype(np.int64)}
    return sl.Task(validate=test, train=train, score="accuracy", augment="image")


def scaled(images: np.ndarray) -> np.ndarray:
    """(N, 28, 28) bytes to (N, 1, 28, 28) float32 in [0, 1]."""
    return (images.astype(np.float32) / 255)[:, None]
