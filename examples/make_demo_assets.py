"""Make what `slimline demo` ships: a trained residual CNN and a slice of Fashion-MNIST.

    python examples/make_demo_assets.py FASHION_MNIST_DIR

FASHION_MNIST_DIR holds the four gzip files of Fashion-MNIST (Xiao et al. 2017, MIT; Debian's
dataset-fashion-mnist has them). Trains on all 60,000 images (about 25 minutes on 2 cores with bf16),
then writes network.slim and fashion.npz (20,000 training and the 10,000 test images) into slimline/demo.
"""

import gzip
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.network import container
from slimline.network.trace import trace

EPOCHS = 8
BATCH = 128
PEAK_LR = 0.1
SHIPPED = 20_000
ASSETS = Path("src/slimline/demo")


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class FashionResNet(nn.Module):
    """A stem and three blocks of 64, 128 and 256 channels; input (N, 1, 28, 28) in [0, 1], 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(64)
        self.blocks = nn.Sequential(Block(64, 64, 1), Block(64, 128, 2), Block(128, 256, 2))
        self.head = nn.Linear(256, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(image)))
        return self.head(self.blocks(x).mean((2, 3)))


def read_split(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) uint8 and labels (N,) int64 of one idx pair."""
    images = np.frombuffer(gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{name}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return torch.from_numpy(images.reshape(-1, 1, 28, 28).copy()), torch.from_numpy(labels.astype(np.int64))


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """Random mirror and a shift of up to two pixels, drawn per image."""
    n = len(images)
    flip = torch.rand(n, generator=rng) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, (2, 2, 2, 2))
    dy, dx = torch.randint(0, 5, (2, n), generator=rng)
    rows = (dy[:, None] + torch.arange(28))[:, :, None]
    columns = (dx[:, None] + torch.arange(28))[:, None, :]
    return padded[torch.arange(n)[:, None, None], 0, rows, columns][:, None]


def train(images: Tensor, labels: Tensor) -> FashionResNet:
    """SGD with Nesterov momentum and one cycle of the learning rate; bf16 autocast."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    net = FashionResNet().to(memory_format=torch.channels_last)
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.SGD(net.parameters(), PEAK_LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps, pct_start=0.25)
    started = time.monotonic()
    for step in range(steps):
        if step % (len(images) // BATCH) == 0:
            order = torch.randperm(len(images), generator=rng)
        picked = order[(step % (len(images) // BATCH)) * BATCH :][:BATCH]
        batch = augment(images[picked].float() / 255, rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(batch)
        loss = F.cross_entropy(logits.float(), labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
    return net.eval()


def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is the label."""
    with torch.no_grad():
        hits = [
            (net(x.float() / 255).argmax(1) == y).sum()
            for x, y in zip(images.split(250), labels.split(250), strict=True)
        ]
    return float(torch.stack(hits).sum()) / len(labels)


def main() -> None:
    """Train unless that was done before, then write both files."""
    folder = Path(sys.argv[1])
    images, labels = read_split(folder, "train")
    test_images, test_labels = read_split(folder, "t10k")
    weights = Path("build/demo_weights.safetensors")
    if not weights.exists():
        weights.parent.mkdir(exist_ok=True)
        save_file({k: v.contiguous() for k, v in train(images, labels).state_dict().items()}, weights)
    net = FashionResNet()
    net.load_state_dict(load_file(weights))
    net.eval()
    print(f"test accuracy {accuracy(net, test_images, test_labels):.4f} (n = {len(test_labels)})")
    container.save(trace(net, {"image": test_images[:2].float() / 255}), ASSETS / "network.slim")
    arrays = {
        "train_images": images[:SHIPPED, 0], "train_labels": labels[:SHIPPED].to(torch.uint8),
        "test_images": test_images[:, 0], "test_labels": test_labels.to(torch.uint8),
    }  # fmt: skip
    np.savez_compressed(ASSETS / "fashion.npz", **{name: x.numpy() for name, x in arrays.items()})
    for file in sorted(ASSETS.glob("*.slim")) + sorted(ASSETS.glob("*.npz")):
        print(f"{file} {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
