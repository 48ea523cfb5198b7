"""Branches and loops: against ONNX Runtime where the length depends on the data, and unrolled where it is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.network import from_onnx
from slimline.sources.onnx.operators import control_flow
from tests.sources.onnx.models import assert_same, check_eager, check_traced, eager, in_onnx_runtime, model, write

FLOAT, INT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
RNG = np.random.default_rng(0)
NODE = helper.make_node


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, int],
    outputs: dict[str, int],
    constants: dict[str, Any] | None = None,
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(name, kind, None if kind == FLOAT else []) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )


def branches() -> dict[str, onnx.GraphProto]:
    """Each branch reads ``x`` of the outer graph."""
    return {
        "then_branch": graph([NODE("Relu", ["x"], ["a"])], {}, {"a": FLOAT}),
        "else_branch": graph([NODE("Neg", ["x"], ["b"])], {}, {"b": FLOAT}),
    }


def on_data() -> onnx.ModelProto:
    nodes = [
        NODE("ReduceSum", ["x"], ["total"], keepdims=0),
        NODE("Greater", ["total", "zero"], ["positive"]),
        NODE("If", ["positive"], ["y"], **branches()),
    ]
    return model(nodes, {"x": ["n", 4]}, ["y"], {"zero": np.float32(0)}, opset=17)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_branch_by_the_data(sign: int) -> None:
    check_eager(on_data(), (sign * np.abs(RNG.standard_normal((3, 4)))).astype("f4"))


def test_tracing_refuses_a_branch_by_the_data(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match="node If .* which branch it takes depends on the data"):
        from_onnx(write(on_data(), tmp_path))


@pytest.mark.parametrize("condition", [True, False])
def test_a_constant_branch_leaves_no_trace_of_the_other(condition: bool, tmp_path: Path) -> None:
    node = NODE("If", ["condition"], ["y"], **branches())
    proto = model([node], {"x": ["n", 4]}, ["y"], {"condition": np.array(condition)}, opset=17)
    network = check_traced(proto, tmp_path, RNG.standard_normal((3, 4)).astype("f4"))
    found = [str(n.target) for n in network.module.graph.nodes if n.op == "call_function"]
    assert found == ["aten.relu.default" if condition else "aten.neg.default"]


def test_a_branch_by_a_shape(tmp_path: Path) -> None:
    """What PyTorch's exporter writes for a squeeze: the size of an axis decides."""
    nodes = [
        NODE("Shape", ["x"], ["shape"]),
        NODE("Gather", ["shape", "one"], ["size"]),
        NODE("Equal", ["size", "one"], ["single"]),
        NODE("If", ["single"], ["y"], **branches()),
    ]
    proto = model(nodes, {"x": ["n", 4]}, ["y"], {"one": np.int64(1)}, opset=17)
    check_traced(proto, tmp_path, RNG.standard_normal((3, 4)).astype("f4"))


def doubling(limit: float | None = None) -> onnx.GraphProto:
    """v <- 2 v, with v as a second result; stops where the sum of v reaches the limit."""
    nodes = [NODE("Add", ["v", "v"], ["w"]), NODE("Identity", ["w"], ["seen"])]
    if limit is None:
        nodes.append(NODE("Identity", ["going"], ["on"]))
    else:
        nodes += [NODE("ReduceSum", ["w"], ["total"], keepdims=0), NODE("Less", ["total", "limit"], ["on"])]
    constants = {} if limit is None else {"limit": np.float32(limit)}
    return graph(nodes, {"i": INT, "going": BOOL, "v": FLOAT}, {"on": BOOL, "w": FLOAT, "seen": FLOAT}, constants)


def looped(body: onnx.GraphProto, names: list[str], **constants: Any) -> onnx.ModelProto:
    node = NODE("Loop", [*names, "x"], ["last", "all"], body=body)
    return model([node], {"x": ["n", 4]}, ["last", "all"], constants, opset=17)


@pytest.mark.parametrize("names", [["count", "true"], ["count", ""]])
def test_a_loop_of_known_length_is_unrolled(names: list[str], tmp_path: Path) -> None:
    constants = {"count": np.int64(3), "true": np.array(True)}
    proto = looped(doubling(), names, **{name: value for name, value in constants.items() if name in names})
    check_eager(proto, np.ones((2, 4), "f4"))
    node = NODE("Loop", [*names, "x"], ["last", "unread"], body=doubling())
    proto = model([node], {"x": ["n", 4]}, ["last"], {n: v for n, v in constants.items() if n in names}, opset=17)
    network = check_traced(proto, tmp_path, RNG.standard_normal((3, 4)).astype("f4"))
    found = [str(n.target) for n in network.module.graph.nodes if n.op == "call_function"]
    assert found == ["aten.add.Tensor"] * 3


@pytest.mark.parametrize("names", [["count", "true"], ["", "true"]])
def test_a_loop_that_stops_by_the_data(names: list[str], tmp_path: Path) -> None:
    constants = {"count": np.int64(20), "true": np.array(True)}
    proto = looped(doubling(100.0), names, **{name: value for name, value in constants.items() if name in names})
    check_eager(proto, np.ones((2, 4), "f4"))
    with pytest.raises(SlimlineError, match="how often it runs depends on the data"):
        from_onnx(write(proto, tmp_path))


def test_a_loop_over_the_samples_is_refused(tmp_path: Path) -> None:
    nodes = [
        NODE("Shape", ["x"], ["shape"]),
        NODE("Gather", ["shape", "zero"], ["count"]),
        NODE("Loop", ["count", "", "x"], ["last", "all"], body=doubling()),
    ]
    proto = model(nodes, {"x": ["n", 4]}, ["last"], {"zero": np.int64(0)}, opset=17)
    check_eager(proto, np.ones((2, 4), "f4"))
    with pytest.raises(SlimlineError, match="once for every sample of the batch"):
        from_onnx(write(proto, tmp_path))


def test_the_number_of_the_iteration_is_known_in_the_body(tmp_path: Path) -> None:
    body = graph(
        [
            NODE("Gather", ["x", "i"], ["column"], axis=1),
            NODE("Mul", ["v", "column"], ["w"]),
            NODE("Identity", ["going"], ["on"]),
        ],
        {"i": INT, "going": BOOL, "v": FLOAT},
        {"on": BOOL, "w": FLOAT},
    )
    nodes = [
        NODE("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
        NODE("Loop", ["count", "", "mean"], ["y"], body=body),
    ]
    proto = model(nodes, {"x": ["n", 4]}, ["y"], {"count": np.int64(4)}, opset=17)
    check_traced(proto, tmp_path, RNG.standard_normal((3, 4)).astype("f4"))


def test_an_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_flow, "MOST_STEPS", 50)
    proto = looped(doubling(), ["", "true"], true=np.array(True))
    with pytest.raises(SlimlineError, match="more than 50 times"):
        eager(proto, np.zeros((1, 4), "f4"))


def test_no_iteration_leaves_the_carried_value() -> None:
    node = NODE("Loop", ["count", "", "x"], ["last", ""], body=doubling())
    proto = model([node], {"x": ["n", 4]}, ["last"], {"count": np.int64(0)}, opset=17)
    x = np.ones((2, 4), "f4")
    with pytest.raises(SlimlineError, match="runs zero times"):
        eager(proto, x)
    body = doubling()
    del body.output[2]
    node = NODE("Loop", ["count", "", "x"], ["last"], body=body)
    assert_same(eager(model([node], {"x": ["n", 4]}, ["last"], {"count": np.int64(0)}, opset=17), x), [x])


def running_sum() -> onnx.GraphProto:
    nodes = [NODE("Add", ["s", "v"], ["t"]), NODE("Mul", ["t", "v"], ["seen"])]
    return graph(nodes, {"s": FLOAT, "v": FLOAT}, {"t": FLOAT, "seen": FLOAT})


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_input_directions": [1]},
        {"scan_output_directions": [1]},
        {"scan_input_axes": [1], "scan_output_axes": [1]},
        {"scan_input_axes": [-1], "scan_output_axes": [-1]},
    ],
)
def test_scan(attributes: dict[str, list[int]]) -> None:
    x = RNG.standard_normal((3, 3)).astype("f4")
    node = NODE("Scan", ["start", "x"], ["last", "all"], body=running_sum(), num_scan_inputs=1, **attributes)
    check_eager(model([node], {"x": [3, 3]}, ["last", "all"], {"start": np.zeros(3, "f4")}, opset=17), x)


def test_a_scan_over_a_later_axis_is_traced(tmp_path: Path) -> None:
    axes = {"scan_input_axes": [1], "scan_output_axes": [1]}
    nodes = [
        NODE("ReduceMean", ["x"], ["start"], axes=[1], keepdims=0),
        NODE("Scan", ["start", "x"], ["last", "all"], body=running_sum(), num_scan_inputs=1, **axes),
    ]
    proto = model(nodes, {"x": ["n", 3, 2]}, ["last", "all"], opset=17)
    x = RNG.standard_normal((3, 3, 2)).astype("f4")
    check_traced(proto, tmp_path, x)


def test_scan_of_opset_8_runs_each_sample_on_its_own() -> None:
    x, start = RNG.standard_normal((2, 3, 4)).astype("f4"), RNG.standard_normal((2, 4)).astype("f4")
    node = NODE("Scan", ["", "start", "x"], ["last", "all"], body=running_sum(), num_scan_inputs=1)
    proto = model([node], {"start": [2, 4], "x": [2, 3, 4]}, ["last", "all"], opset=8)
    sums = start[:, None] + np.cumsum(x, 1)
    assert_same(eager(proto, start, x), [sums[:, -1], sums * x])
    assert_same(in_onnx_runtime(proto, start, x), [sums[:, -1], sums * x])


def test_a_size_that_is_known() -> None:
    assert control_flow.fixed(7) == 7  # noqa: PLR2004
    assert control_flow.count(torch.tensor([3])) == 3  # noqa: PLR2004
