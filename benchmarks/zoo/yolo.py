"""A detector: features of three sizes, merged down and up again, with a head on each.

Jocher, Chaurasia, Qiu (2023). Ultralytics YOLOv8 (the layout of version 8, written anew from its published figures).
Li et al. (2020). Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes. arXiv:2006.04388

    side of a box = sum_i i softmax(logits)[i]
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

BINS = 16


def convolution(inside: int, outside: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, silu."""
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside, eps=0.001), nn.SiLU())


class Bottleneck(nn.Module):
    """Two 3 x 3 convolutions, added to their input in the backbone."""

    def __init__(self, width: int, adds: bool) -> None:
        super().__init__()
        self.layers, self.adds = nn.Sequential(convolution(width, width, 3), convolution(width, width, 3)), adds

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class C2f(nn.Module):
    """Two halves; one goes through bottlenecks, and every result on the way is kept."""

    def __init__(self, inside: int, outside: int, depth: int, adds: bool) -> None:
        super().__init__()
        half = outside // 2
        self.enter, self.leave = convolution(inside, 2 * half), convolution((2 + depth) * half, outside)
        self.blocks = nn.ModuleList(Bottleneck(half, adds) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        result: Tensor = self.leave(torch.cat(parts, 1))
        return result


class SPPF(nn.Module):
    """The largest values near, further and far away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = convolution(width, width // 2), convolution(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        result: Tensor = self.leave(torch.cat(parts, 1))
        return result


class Head(nn.Module):
    """The four sides of a box and the scores of its classes, at every place of a map."""

    def __init__(self, inside: int, boxes: int, scores: int, classes: int) -> None:
        super().__init__()
        self.boxes = nn.Sequential(
            convolution(inside, boxes, 3), convolution(boxes, boxes, 3), nn.Conv2d(boxes, 4 * BINS, 1)
        )
        self.scores = nn.Sequential(
            convolution(inside, scores, 3), convolution(scores, scores, 3), nn.Conv2d(scores, classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.boxes(x), self.scores(x)], 1).flatten(2)


class YOLO(nn.Module):
    """The nano size unless told otherwise; ``width`` is that of the first convolution."""

    def __init__(self, width: int = 16, depths: tuple[int, int, int, int] = (1, 2, 2, 1), classes: int = 80) -> None:
        super().__init__()
        w = [width << i for i in range(5)]
        self.stem = convolution(3, w[0], 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(w[i], w[i + 1], 3, 2), C2f(w[i + 1], w[i + 1], depths[i], True)) for i in range(4)
        )
        self.pyramid = SPPF(w[4])
        self.up1, self.up2 = C2f(w[4] + w[3], w[3], 1, False), C2f(w[3] + w[2], w[2], 1, False)
        self.step1, self.step2 = convolution(w[2], w[2], 3, 2), convolution(w[3], w[3], 3, 2)
        self.down1, self.down2 = C2f(w[2] + w[3], w[3], 1, False), C2f(w[3] + w[4], w[4], 1, False)
        boxes, scores = max(16, w[2] // 4, 4 * BINS), max(w[2], min(classes, 100))
        self.heads = nn.ModuleList(Head(inside, boxes, scores, classes) for inside in w[2:])
        self.expected = nn.Conv2d(BINS, 1, 1, bias=False)
        self.expected.weight = nn.Parameter(torch.arange(float(BINS)).view(1, BINS, 1, 1), requires_grad=False)
        self.classes = classes

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x, maps = self.stem(image), list[Tensor]()
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        p5 = self.pyramid(x)
        p4 = self.up1(torch.cat([F.interpolate(p5, scale_factor=2.0, mode="nearest"), maps[2]], 1))
        p3 = self.up2(torch.cat([F.interpolate(p4, scale_factor=2.0, mode="nearest"), maps[1]], 1))
        n4 = self.down1(torch.cat([self.step1(p3), p4], 1))
        n5 = self.down2(torch.cat([self.step2(n4), p5], 1))
        merged = torch.cat([head(x) for head, x in zip(self.heads, (p3, n4, n5), strict=True)], 2)
        boxes, scores = torch.split(merged, [4 * BINS, self.classes], 1)
        batch, _, places = boxes.shape
        sides = self.expected(boxes.view(batch, 4, BINS, places).transpose(2, 1).softmax(1))
        return {"boxes": sides.view(batch, 4, places), "scores": scores.sigmoid()}


def architectures() -> list[Architecture]:
    """Half of the nano size."""
    return [seeded("yolo", "detection", lambda: YOLO(8, (1, 2, 1, 1), 12), images(3, 64))]
