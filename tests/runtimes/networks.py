"""Small networks that the tests of the runtimes share."""

from pathlib import Path

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401  (registers the operators)
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.registry import get_runtime, open_artifact
from slimline.runtimes.runtime import Artifact

decomposed = torch.ops.quantized_decomposed


class Residual(nn.Module):
    """Conv, batch norm, a residual block with a strided shortcut, global mean, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.left, self.left_norm = nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24)
        self.right, self.right_norm = nn.Conv2d(16, 24, 1, stride=2, bias=False), nn.BatchNorm2d(24)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        x = F.relu(self.left_norm(self.left(x)) + self.right_norm(self.right(x)))
        result: Tensor = self.head(x.mean([2, 3]))
        return result


class Depthwise(nn.Module):
    """Pointwise, depthwise with relu6, squeeze and excitation, pointwise."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.expand_norm = nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.depth, self.depth_norm = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.gate = nn.Conv2d(16, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.expand_norm(self.expand(x)))
        x = F.relu6(self.depth_norm(self.depth(x)))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return F.adaptive_avg_pool2d(self.project(x), 1).flatten(1)


class QuantizedLayer(nn.Module):
    """int8 weights with one scale per output channel and an int32 bias, dequantised where they are used."""

    def __init__(self, shape: tuple[int, ...], input_scale: float, generator: torch.Generator) -> None:
        super().__init__()
        scale = torch.rand(shape[0], generator=generator) * 0.003 + 0.001
        self.register_buffer("weight", torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(shape[0], dtype=torch.int64))
        self.register_buffer("bias", torch.randint(-2000, 2000, shape[:1], generator=generator, dtype=torch.int32))
        self.register_buffer("bias_scale", scale * input_scale)
        self.register_buffer("bias_zero", torch.zeros(shape[0], dtype=torch.int64))

    def forward(self) -> tuple[Tensor, Tensor]:
        per_channel = decomposed.dequantize_per_channel.default
        weight = per_channel(self.weight, self.scale, self.zero, 0, -128, 127, torch.int8)
        bias = per_channel(self.bias, self.bias_scale, self.bias_zero, 0, -(2**31), 2**31 - 1, torch.int32)
        return weight, bias


def pair(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """Quantise to uint8 and dequantise."""
    arguments = (scale, zero_point, 0, 255, torch.uint8)
    q = decomposed.quantize_per_tensor.default(x, *arguments)
    result: Tensor = decomposed.dequantize_per_tensor.default(q, *arguments)
    return result


INPUT_STEP, SUM_STEP, MEAN_STEP = 0.03, 0.06, 0.03


class Quantized(nn.Module):
    """The residual network in the reference form that the quantising methods leave."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.stem = QuantizedLayer((16, 3, 3, 3), INPUT_STEP, generator)
        self.left = QuantizedLayer((16, 16, 3, 3), 0.04, generator)
        self.head = QuantizedLayer((10, 16), MEAN_STEP, generator)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.stem()
        x = pair(F.relu(F.conv2d(pair(x, INPUT_STEP, 128), weight, bias, padding=1)), 0.04, 0)
        weight, bias = self.left()
        y = pair(F.conv2d(x, weight, bias, padding=1), 0.06, 120)
        x = pair(F.relu(x + y), SUM_STEP, 0)
        return F.linear(pair(x.mean([2, 3]), MEAN_STEP, 0), *self.head())


def traced(module: nn.Module, seed: int = 0) -> Network:
    """A network of the module for images (N, 3, 12, 12), with batch-norm statistics that are not the initial ones."""
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn(layer.num_features) * 0.1
            layer.running_var = torch.rand(layer.num_features) + 0.5
    return trace(module.eval(), {"x": torch.randn(2, 3, 12, 12)})


def images(count: int, seed: int = 1) -> NDArray[np.float32]:
    """Random images (count, 3, 12, 12)."""
    return np.random.default_rng(seed).standard_normal((count, 3, 12, 12)).astype(np.float32)


def outputs_in(artifact: Artifact, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first output of an artifact, opened for one thread."""
    return np.array(open_artifact(artifact, 1).run({"x": x})[0])


def reference(network: Network, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first output of the graph in torch."""
    return network.run({"x": torch.from_numpy(x)})[0].numpy()


def exported(network: Network, runtime: str, folder: Path) -> Artifact:
    """An artifact of the network."""
    return Artifact(get_runtime(runtime).export(network, folder), runtime)
