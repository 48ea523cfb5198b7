import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.onnx_file import write_onnx
from slimline.runtimes.registry import RUNTIMES
from tests.runtimes.networks import (
    MEAN_STEP,
    Depthwise,
    Quantized,
    Residual,
    exported,
    images,
    outputs_in,
    reference,
    traced,
)

PER_ITEM = 110
"""Bytes of description that one node or one constant may cost."""


def written(network: Network, folder: Path) -> onnx.ModelProto:
    write_onnx(network, folder / "network.onnx")
    return onnx.load(folder / "network.onnx")


@pytest.mark.parametrize("runtime", list(RUNTIMES))
@pytest.mark.parametrize("module", [Residual, Depthwise])
def test_an_exported_network_computes_what_the_graph_computes(
    runtime: str, module: type[nn.Module], tmp_path: Path
) -> None:
    network = traced(module())
    artifact = exported(network, runtime, tmp_path)
    for batch in (1, 3):
        x = images(batch, seed=batch)
        expected, got = reference(network, x), outputs_in(artifact, x)
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_a_quantised_network_differs_by_a_few_rounding_steps_at_most(runtime: str, tmp_path: Path) -> None:
    """The reference rounds a float32 sum, a runtime an exact integer times a float multiplier.

    Both agree except where the value lies within float error of the middle between two steps; then an activation is one
    step off. What reaches the head is the mean over 144 places, rounded again: a feature is off by one of its own steps
    at most, and an output by MEAN_STEP times the weight. We allow two features per sample; a wrong scale or zero point
    would be off in all of them.
    """
    module = Quantized()
    network = traced(module)
    x = images(32)
    expected, got = reference(network, x), outputs_in(exported(network, runtime, tmp_path), x)
    largest_weight = float((module.head.weight.abs() * module.head.scale[:, None]).max())  # type: ignore[operator, index]
    error = np.abs(got - expected)
    one_step = MEAN_STEP * largest_weight
    assert error.max() <= 2 * one_step
    assert np.mean(error <= 1e-5 * np.abs(expected).max()) >= 0.8
    assert expected.std(axis=0).max() > 3 * one_step  # the samples are not all alike


def test_integer_weights_stay_integers_in_the_file(tmp_path: Path) -> None:
    module = Quantized()
    model = written(traced(module), tmp_path)
    stored = {i.name: i for i in model.graph.initializer}
    for layer in ("stem", "left", "head"):
        weight = stored[f"{layer}.weight"]
        assert weight.data_type == TensorProto.INT8
        np.testing.assert_array_equal(numpy_helper.to_array(weight), getattr(module, layer).weight.numpy())
        assert stored[f"{layer}.bias"].data_type == TensorProto.INT32
    largest_float = max(np.prod(i.dims, dtype=int) for i in stored.values() if i.data_type == TensorProto.FLOAT)
    assert largest_float <= 16  # scales; no weight was turned back into floats
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == 5 and kinds.count("DequantizeLinear") == 5 + 6


@pytest.mark.parametrize("module", [Residual, Depthwise, Quantized])
def test_the_file_is_little_more_than_its_constants(module: type[nn.Module], tmp_path: Path) -> None:
    network = traced(module())
    model = written(network, tmp_path)
    constants = sum(t.numel() * t.element_size() for t in network.weights().values() if t.dtype != torch.int64)
    items = len(model.graph.node) + len(model.graph.initializer)
    assert (tmp_path / "network.onnx").stat().st_size <= constants + PER_ITEM * items
    assert not model.graph.value_info and not model.metadata_props and not model.functions
    assert all(not node.doc_string and not node.metadata_props for node in model.graph.node)


def test_scalars_that_are_equal_are_stored_once(tmp_path: Path) -> None:
    model = written(traced(Quantized()), tmp_path)
    contents = [(i.data_type, tuple(i.dims), i.raw_data) for i in model.graph.initializer if len(i.raw_data) <= 16]
    assert len(contents) == len(set(contents))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_network_too_large_for_one_file_gets_a_sidecar(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = traced(Residual())
    monkeypatch.setattr("slimline.runtimes.onnx_file.ONE_FILE_AT_MOST", 10_000)
    artifact = exported(network, runtime, tmp_path)
    assert [path.name for path in artifact.files] == ["network.onnx", "network.onnx.data"]
    assert artifact.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir()) > artifact.path.stat().st_size
    np.testing.assert_allclose(outputs_in(artifact, images(2)), reference(network, images(2)), rtol=1e-4, atol=1e-5)
    monkeypatch.undo()
    assert exported(network, runtime, tmp_path).files == (artifact.path,)  # the old sidecar is gone


def test_names_and_the_free_axis(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            return image.flatten(1) + weight, image * 2

    network = trace(Two(), {"image": torch.randn(2, 4, 3), "weight": torch.randn(2, 12)})
    graph = written(network, tmp_path).graph
    assert [i.name for i in graph.input] == ["image", "weight"]
    assert [o.name for o in graph.output] == ["output_0", "output_1"]
    for value, rest in zip([*graph.input, *graph.output], [[4, 3], [12], [12], [4, 3]], strict=True):
        axes = value.type.tensor_type.shape.dim
        assert axes[0].dim_param == "batch" and [axis.dim_value for axis in axes[1:]] == rest


def test_a_network_in_training_mode_is_written_for_inference_and_left_as_it_was(tmp_path: Path) -> None:
    network = traced(Residual())
    expected = reference(network, images(3))
    network.set_training_(True)
    code, weights = network.module.code, {k: v.clone() for k, v in network.weights().items()}
    np.testing.assert_allclose(
        outputs_in(exported(network, "onnxruntime", tmp_path), images(3)), expected, rtol=1e-4, atol=1e-5
    )
    assert network.module.code == code
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.weights().items())


def test_an_operator_without_an_onnx_form_is_named(tmp_path: Path) -> None:
    class Airy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = torch.special.airy_ai(x)
            return result

    with pytest.raises(SlimlineError, match=r"^aten\.special_airy_ai cannot be written as ONNX") as caught:
        write_onnx(trace(Airy(), {"x": torch.randn(2, 3)}), tmp_path / "airy.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_zero_point_of_an_int32_constant_is_refused(tmp_path: Path) -> None:
    module = Quantized()
    module.left.bias_zero.fill_(1)  # type: ignore[operator]
    with pytest.raises(SlimlineError, match=r"int32 constant .*left\.bias_zero.* to be 0"):
        write_onnx(traced(module), tmp_path / "network.onnx")


def test_the_export_is_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    network = traced(Residual())
    capfd.readouterr()
    level = logging.getLogger("torch.onnx").level
    write_onnx(network, tmp_path / "network.onnx")
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.getLogger("torch.onnx").level == level


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_computes_in_onnx_runtime_what_torch_computes(kind: type[nn.Module], tmp_path: Path) -> None:
    class LastStep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(3, 5, batch_first=True, bidirectional=True)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.layer(x)[0][:, -1]
            return answer

    torch.manual_seed(0)
    network, x = trace(LastStep(), {"x": torch.randn(2, 4, 3)}), torch.randn(3, 4, 3)
    write_onnx(network, tmp_path / "r.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "r.onnx")
    (ours,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(ours, network.run({"x": x})[0], atol=1e-6)


class Tied(nn.Module):
    """An embedding whose table is the weight of the last layer, of a size that the exporter would turn around twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.one, self.other = nn.Embedding(48, 48), nn.Linear(48, 48), nn.Linear(48, 48)
        self.other.weight = self.one.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.other(self.one(self.table(tokens)).relu())
        return result


def test_a_weight_that_several_layers_read_is_written_once(tmp_path: Path) -> None:
    network = trace(Tied(), {"tokens": torch.randint(0, 48, (2, 5))})
    model = written(network, tmp_path)
    large = [tuple(i.dims) for i in model.graph.initializer if np.prod(i.dims, dtype=int) >= 48 * 48]
    assert large == [(48, 48)]
    tokens = torch.randint(0, 48, (3, 5))
    (ours,) = onnxruntime.InferenceSession(tmp_path / "network.onnx").run(None, {"tokens": tokens.numpy()})
    np.testing.assert_allclose(ours, network.run({"tokens": tokens})[0], rtol=1e-4, atol=1e-5)


def test_a_constant_that_is_larger_than_what_it_is_made_of_is_not_written_out(tmp_path: Path) -> None:
    class Stretched(nn.Module):
        """Adds 60 numbers, each repeated 25 times."""

        def __init__(self) -> None:
            super().__init__()
            self.few = nn.Parameter(torch.randn(60))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.few[:, None].expand(60, 25).reshape(1500)

    class Doubled(nn.Module):
        """The same computed from a constant as large as what it becomes, which is folded."""

        def __init__(self) -> None:
            super().__init__()
            self.many = nn.Parameter(torch.randn(1500))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.many * 2

    small = written(trace(Stretched(), {"x": torch.randn(2, 1500)}), tmp_path)
    assert max(np.prod(i.dims, dtype=int) for i in small.graph.initializer) == 60
    folded = written(trace(Doubled(), {"x": torch.randn(2, 1500)}), tmp_path)
    assert [node.op_type for node in folded.graph.node] == ["Add"]


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_zeros_padded_before_a_max_pooling_stay_zeros(mode: str, tmp_path: Path) -> None:
    """ONNX Runtime 1.31 merges the two, and then the border of negative values is not zero but the largest of them."""

    class Padded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.nn.functional.pad(x, (1, 1, 1, 1), mode=mode)
            return torch.nn.functional.max_pool2d(x, 3, 2)

    x = -1 - torch.rand(3, 2, 8, 8)
    write_onnx(trace(Padded(), {"x": x}), tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x.numpy()})[0], Padded()(x).numpy())
