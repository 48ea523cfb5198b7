from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from slimline.runtimes.registry import get_runtime
from tests.runtimes.networks import Quantized, Residual, exported, images, outputs_in, reference, traced


def optimised(path: Path, folder: Path) -> Counter[str]:
    """Operators of the graph that onnxruntime really runs, with how often."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def test_nothing_is_left_in_floating_point_between_the_first_and_the_last_integer(tmp_path: Path) -> None:
    kinds = optimised(exported(traced(Quantized()), "onnxruntime", tmp_path).path, tmp_path)
    assert kinds["QuantizeLinear"] == 1  # the input
    assert kinds["QLinearConv"] == 2
    assert kinds["QLinearAdd"] == 1
    assert kinds["QLinearGlobalAveragePool"] == 1
    assert kinds["QGemm"] == 1  # writes floating point itself
    moving = {"Transpose", "Reshape", "Squeeze", "Flatten"}
    assert set(kinds) - moving == {"QuantizeLinear", "QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm"}


def test_batch_norm_and_relu_cost_no_operator(tmp_path: Path) -> None:
    kinds = optimised(exported(traced(Residual()), "onnxruntime", tmp_path).path, tmp_path)
    assert kinds["Conv"] + kinds["FusedConv"] == 3 and kinds["Gemm"] == 1
    assert not {"BatchNormalization", "Relu", "ReduceMean"} & set(kinds)


def test_quantised_operators_are_those_of_the_facts() -> None:
    facts = get_runtime("onnxruntime").facts
    assert {"aten.conv2d", "aten.linear", "aten.add", "aten.mean"} <= facts.quantized_ops
    assert (facts.activation, facts.weight) == ("uint8", "int8")


def test_outputs_are_the_callers_to_keep(tmp_path: Path) -> None:
    network = traced(Residual())
    artifact = exported(network, "onnxruntime", tmp_path)
    x, y = images(2, seed=5), images(2, seed=6)
    np.testing.assert_allclose(outputs_in(artifact, x), reference(network, x), rtol=1e-4, atol=1e-5)
    runner = get_runtime("onnxruntime").open(artifact, 1)
    first = runner.run({"x": x})[0]
    runner.run({"x": y})
    np.testing.assert_allclose(first, reference(network, x), rtol=1e-4, atol=1e-5)
