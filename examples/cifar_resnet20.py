"""A job of your own: CIFAR ResNet-20 with trained weights and 6,102 real images.

    slimline optimize examples/cifar_resnet20.py --max-drop 2% --time 5m --out runs/cifar

CIFAR_DIR (default ../shared/data/cifar10-subset) holds cifar10_subset.npz and resnet20.safetensors: weights by Yerlan
Idelbayev (BSD-2-Clause), architecture of He et al. (2015), arXiv:1512.03385, section 4.2, with shortcuts of option A:
every second pixel, and zeros for the channels that are new.
"""

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import slimline as sl

FOLDER = Path(os.environ.get("CIFAR_DIR", Path(__file__).parent.parent / "../shared/data/cifar10-subset"))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.extra = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra)) if self.extra else x
        return F.relu(y + shortcut)


class ResNet20(nn.Module):
    """Three stages of 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(image))))))
        return self.linear(x.mean((2, 3)))


def model() -> nn.Module:
    """The trained network."""
    net = ResNet20()
    net.load_state_dict(load_file(FOLDER / "resnet20.safetensors"))
    return net


def task() -> sl.Task:
    """5,085 training images for recovery, 1,017 test images for the search and the verdict."""
    with np.load(FOLDER / "cifar10_subset.npz", allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    train = (normalised(arrays["x_train"]), arrays["y_train"].astype(np.int64))
    test = (normalised(arrays["x_test"]), arrays["y_test"].astype(np.int64))
    return sl.Task(validate=test, train=train, score="accuracy", augment="image")


def normalised(images: np.ndarray) -> np.ndarray:
    """(N, 3, 32, 32) bytes to the float32 that the network was trained on."""
    scaled = torch.from_numpy(images).float() / 255
    return ((scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]).numpy()
