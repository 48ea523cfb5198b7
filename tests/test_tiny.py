"""The whole way in a few seconds, and the first test to read: trace, prune, fold, quantise, export, run elsewhere."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import slimline as sl
from slimline.network import cost
from slimline.network.trace import trace
from slimline.runtimes.onnx_file import write_onnx


class Tiny(nn.Module):
    """Two convolutions with batch norm, a residual sum, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.body, self.body_norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 3)
        for norm in (self.stem_norm, self.body_norm):  # a shift of zero would fold to no bias at all
            nn.init.constant_(norm.bias, 0.1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(image)))
        x = F.relu(x + self.body_norm(self.body(x)))
        result: Tensor = self.head(x.mean((2, 3)))
        return result


def run_in_onnxruntime(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def test_the_whole_way(tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((64, 1, 8, 8)).astype(np.float32)
    task = sl.Task(validate={"image": images})

    network = trace(Tiny(), {"image": torch.from_numpy(images[:2])})
    assert cost.macs(network) == 64 * (9 * 16 + 9 * 16 * 16) + 16 * 3

    smaller = sl.PruneChannels(keep=0.5, importance="l1").apply(network).network
    assert cost.macs(smaller) == 64 * (9 * 8 + 9 * 8 * 8) + 8 * 3

    folded = sl.FoldBatchNorm().apply(smaller).network
    expected = smaller.run({"image": torch.from_numpy(images)})[0].numpy()
    np.testing.assert_allclose(folded.run({"image": torch.from_numpy(images)})[0], expected, rtol=1e-4, atol=1e-5)

    quantised = sl.QuantizeStatic().apply(folded, task).network
    kinds = {name: tensor.dtype for name, tensor in quantised.weights().items() if name.endswith("quantized")}
    assert set(kinds.values()) == {torch.int8, torch.int32} and len(kinds) == 6

    for name, step, tolerance in (("pruned", smaller, 1e-5), ("folded", folded, 1e-5), ("int8", quantised, 0.05)):
        write_onnx(step, tmp_path / f"{name}.onnx")
        for batch in (1, 5):
            got = run_in_onnxruntime(tmp_path / f"{name}.onnx", images[:batch])
            assert got.shape == (batch, 3)
            assert np.abs(got - expected[:batch]).max() <= tolerance * np.abs(expected).max()
    assert (tmp_path / "int8.onnx").stat().st_size < (tmp_path / "folded.onnx").stat().st_size


def test_what_is_wrong_is_one_sentence() -> None:
    with pytest.raises(sl.SlimlineError, match="No group is called 'sten'; near names: stem"):
        network = trace(Tiny(), [torch.zeros(2, 1, 8, 8)])
        sl.PruneChannels(widths={"sten": 4}, importance="l1").apply(network)
