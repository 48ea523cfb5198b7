from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.network.trace import trace
from slimline.runtimes.onnx_file import write_onnx
from slimline.runtimes.registry import open_artifact
from slimline.runtimes.runtime import Artifact
from tests.runtimes.networks import QuantizedLayer, pair


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[no-any-return, operator]


CASES = {
    "mean_all_spatial": (lambda x: x.mean([2, 3]), (4, 5, 6), ["GlobalAveragePool", "Reshape"]),
    "mean_all_spatial_negative_axes": (lambda x: x.mean([-1, -2], keepdim=True), (4, 5, 6), ["GlobalAveragePool"]),
    "mean_of_a_signal": (lambda x: x.mean(2), (4, 9), ["GlobalAveragePool", "Reshape"]),
    "mean_of_channels": (lambda x: x.mean(1), (4, 5, 6), ["ReduceMean"]),
    "mean_of_one_spatial_axis": (lambda x: x.mean(3, keepdim=True), (4, 5, 6), ["ReduceMean"]),
    "mean_of_features": (lambda x: x.mean(-1), (7,), ["ReduceMean"]),
    "relu6": (lambda x: F.relu6(4 * x), (4, 5), None),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.25), (4, 5), ["Clip"]),
    "linear": (nn.Linear(7, 3), (7,), ["Gemm"]),
    "linear_without_bias": (nn.Linear(7, 3, bias=False), (7,), ["Gemm"]),
    "linear_of_a_sequence": (nn.Linear(7, 3), (5, 7), ["MatMul", "Add"]),
    "linear_of_a_sequence_without_bias": (nn.Linear(7, 3, bias=False), (2, 5, 7), ["MatMul"]),
}


@pytest.mark.parametrize("case", list(CASES))
def test_an_operator_computes_what_torch_computes(case: str, tmp_path: Path) -> None:
    function, shape, kinds = CASES[case]
    torch.manual_seed(0)
    network = trace(Call(function), {"x": torch.randn(2, *shape)})
    path = tmp_path / "network.onnx"
    write_onnx(network, path)
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    got = open_artifact(Artifact(path, "onnxruntime"), 1).run({"x": x})[0]
    np.testing.assert_allclose(got, network.run({"x": torch.from_numpy(x)})[0].numpy(), rtol=1e-5, atol=1e-6)
    if kinds is not None:
        assert [node.op_type for node in onnx.load(path).graph.node] == kinds


@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 5, 24)])
def test_a_quantised_linear_layer_of_any_rank_is_one_matrix_product(shape: tuple[int, ...], tmp_path: Path) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = QuantizedLayer((10, 24), 0.02, torch.Generator().manual_seed(0))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(pair(x, 0.02, 128), *self.layer())

    network = trace(Layer(), {"x": torch.randn(2, *shape)})
    path = tmp_path / "network.onnx"
    write_onnx(network, path)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Gemm") == 1 and "MatMul" not in kinds
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    got = open_artifact(Artifact(path, "onnxruntime"), 1).run({"x": x})[0]
    # One rounding, of the input, which both do alike: only the order of the sums differs.
    np.testing.assert_allclose(got, network.run({"x": torch.from_numpy(x)})[0].numpy(), rtol=1e-4, atol=1e-4)
