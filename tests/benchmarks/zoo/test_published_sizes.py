"""At their full size the networks written here have the numbers of parameters that were published for them.

Sources: the papers; torchvision's and timm's tables of models; the Keras summaries of MLPerf Tiny and of the Siamese
network; the DanQ paper for DeepSEA and DanQ; the log of YOLOv8n; the hub page of the brain segmentation U-Net.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from zoo.causal import TCN
from zoo.cifar_resnet import CifarResNet
from zoo.crnn import CRNN
from zoo.densenet import DenseNet
from zoo.genomics import DanQ, DeepSEA
from zoo.ghostnet import GhostNet
from zoo.googlenet import GoogLeNet
from zoo.language_model import LanguageModel
from zoo.mlp import gated, mixer
from zoo.mlperf_tiny import DSCNN, AnomalyAutoencoder, ResNet8
from zoo.mobilenet_v3 import SMALL, MobileNetV3
from zoo.preact_resnet import PreActResNet
from zoo.resnet import ResNet
from zoo.shufflenet import shufflenet_v1, shufflenet_v2
from zoo.siamese import Siamese
from zoo.squeezenet import SqueezeNet
from zoo.tc_resnet import TCResNet
from zoo.unet import UNet
from zoo.vgg import VGG
from zoo.yolo import YOLO

WIDER = (24, 36, 48, 72)
EXACT: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-20, shortcuts padded": (lambda: CifarResNet(option="A"), 269_722),
    "ResNet-20, shortcuts convolved": (lambda: CifarResNet(option="B"), 272_474),
    "WRN-28-10": (lambda: PreActResNet(4, widen=10), 36_479_194),
    "ResNet-50": (ResNet, 25_557_032),
    "ResNet-101": (lambda: ResNet((3, 4, 23, 3)), 44_549_160),
    "ResNeXt-50 32x4d": (lambda: ResNet(groups=32, group_width=4), 25_028_904),
    "ResNeXt-101 32x8d": (lambda: ResNet((3, 4, 23, 3), groups=32, group_width=8), 88_791_336),
    "SE-ResNet-50": (lambda: ResNet(reduction=16), 28_088_024),
    "DenseNet-121": (DenseNet, 7_978_856),
    "DenseNet-169": (lambda: DenseNet((6, 12, 32, 32)), 14_149_480),
    "ShuffleNetV2 0.5x": (lambda: shufflenet_v2((48, 96, 192)), 1_366_792),
    "ShuffleNetV2 1.0x": (shufflenet_v2, 2_278_604),
    "MobileNetV3-Large": (MobileNetV3, 5_483_032),
    "MobileNetV3-Small": (lambda: MobileNetV3(SMALL, hidden=1024), 2_542_856),
    "GoogLeNet": (GoogLeNet, 6_624_904),
    "VGG-16": (VGG, 138_357_544),
    "VGG-16 with batch norm": (lambda: VGG(norm="batch"), 138_365_992),
    "SqueezeNet 1.1": (SqueezeNet, 1_235_496),
    "U-Net": (UNet, 7_763_041),
    "YOLOv8n": (YOLO, 3_157_200),
    "Mixer-S/16": (lambda: mixer(8, 196, 512, (256, 2048), 16, 1000), 18_528_264),
    "Mixer-B/16": (lambda: mixer(12, 196, 768, (384, 3072), 16, 1000), 59_880_472),
    "gMLP-S/16": (lambda: gated(30, 196, 256, 1536, 16, 1000), 19_422_656),
    "GPT-2": (LanguageModel, 124_439_808),
    "Siamese": (Siamese, 38_951_745),
    "DeepSEA": (DeepSEA, 52_843_119),
    "DanQ, with torch's second bias of an LSTM": (DanQ, 46_926_479 + 2 * 4 * 320),
}
ROUNDED: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "ResNet-110": (lambda: CifarResNet(18), 1_700_000, 100_000),
    "ResNet-1202": (lambda: CifarResNet(200), 19_400_000, 100_000),
    "PreActResNet-164": (lambda: PreActResNet(18, expansion=4), 1_700_000, 100_000),
    "WRN-40-4": (lambda: PreActResNet(6, widen=4), 8_900_000, 100_000),
    "WRN-16-8": (lambda: PreActResNet(2, widen=8), 11_000_000, 100_000),
    "ShuffleNetV1 1x (g=3)": (shufflenet_v1, 1_900_000, 100_000),
    "GhostNet 1.0x": (GhostNet, 5_200_000, 100_000),
    "GhostNet 0.5x": (lambda: GhostNet(width=0.5), 2_600_000, 100_000),
    "CRNN": (CRNN, 8_300_000, 100_000),
    "TCN": (TCN, 70_000, 10_000),
}
WITH_STATISTICS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "DS-CNN": (DSCNN, 24_908, 1),
    "ResNet-8": (ResNet8, 78_666, 1),
    "FC-Autoencoder": (AnomalyAutoencoder, 269_992, 1),
    "TC-ResNet8": (TCResNet, 66_000, 1_000),
    "TC-ResNet8-1.5": (lambda: TCResNet(WIDER), 145_000, 1_000),
    "TC-ResNet14": (lambda: TCResNet(repeats=2), 137_000, 1_000),
    "TC-ResNet14-1.5": (lambda: TCResNet(WIDER, 2), 305_000, 1_000),
}
"""Keras and TensorFlow count the statistics of batch norms too."""


def without_memory(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize("name", EXACT)
def test_the_number_of_parameters(name: str) -> None:
    make, published = EXACT[name]
    assert sum(p.numel() for p in without_memory(make).parameters()) == published


@pytest.mark.parametrize("name", ROUNDED)
def test_the_number_of_parameters_as_far_as_its_paper_gives_it(name: str) -> None:
    make, published, unit = ROUNDED[name]
    assert round(sum(p.numel() for p in without_memory(make).parameters()) / unit) == published / unit


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_the_number_of_parameters_and_statistics(name: str) -> None:
    make, published, unit = WITH_STATISTICS[name]
    module = without_memory(make)
    kept = [b for key, b in module.named_buffers() if "running" in key]
    assert round(sum(t.numel() for t in [*module.parameters(), *kept]) / unit) == published / unit
