"""Numbers that move, and the weights among them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.folding import axes_of, entries, integers, moved
from slimline.sources.onnx.values import Known
from tests.sources.onnx.models import check_traced, model

NODE = OnnxNode("Transpose", "", ("x",), ("y",))


def test_moved_numbers_stay_numbers() -> None:
    table = np.arange(6).reshape(2, 3)
    result = moved(NODE, table.T, Known(table, torch.int64, torch.from_numpy(table)))
    assert result.stored is None
    np.testing.assert_array_equal(result.tensor().numpy(), [[0, 3], [1, 4], [2, 5]])


def test_a_moved_weight_is_computed_from_the_weight() -> None:
    weight = torch.arange(6.0).reshape(2, 3).requires_grad_()
    result = moved(NODE, weight.detach().numpy().T, Known(weight.detach().numpy(), torch.float32, weight))
    result.tensor()[2, 1].backward()
    np.testing.assert_array_equal(weight.grad, [[0, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Transpose", [], {}),
        ("Reshape", [np.array([-1])], {}),
        ("Unsqueeze", [np.array([0])], {}),
        ("Slice", [np.array([1]), np.array([3]), np.array([1])], {}),
        ("Tile", [np.array([2, 1])], {}),
        ("Expand", [np.array([2, 3, 4])], {}),
        ("Gather", [np.array([[0, 2], [1, 1]])], {}),
        ("Flatten", [], {"axis": 0}),
    ],
)
def test_a_traced_weight_can_be_trained(
    kind: str, inputs: list[np.ndarray], attributes: dict[str, int], tmp_path: Path
) -> None:
    """Two entries of the moved weight multiply x: they get the gradient."""
    names = ["w", *(f"c{i}" for i in range(len(inputs)))]
    nodes = [
        helper.make_node(kind, names, ["moved"], **attributes),
        helper.make_node("Concat", ["x", "x"], ["xx"], axis=1),
        helper.make_node("Reshape", ["moved", "flat"], ["row"]),
        helper.make_node("Gather", ["row", "two"], ["pair"]),
        helper.make_node("Gemm", ["xx", "pair"], ["y"]),
    ]
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    constants = {"w": weight, "flat": np.array([-1, 1]), "two": np.array([2, 1])}
    constants |= {f"c{i}": array for i, array in enumerate(inputs)}
    x = np.array([[1], [2], [3]], np.float32)
    network = check_traced(model(nodes, {"x": ["n", 1]}, ["y"], constants), tmp_path, x)
    network.module(torch.from_numpy(x))[0].sum().backward()
    (parameter,) = network.module.parameters()
    assert parameter.grad is not None and parameter.grad.sum() == 12  # the sum of x for each of the two


def test_sizes_have_to_be_whole_numbers() -> None:
    assert entries(np.array([[1.0, 2.0], [3.0, -1.0]])) == [1, 2, 3, -1]
    assert integers(None) == []
    with pytest.raises(SlimlineError, match=r"2\.5 is no size"):
        entries(np.array([2.5]))


def test_axes_count_from_both_ends() -> None:
    assert axes_of([0, -1, 2], 4) == [0, 3, 2]
    with pytest.raises(SlimlineError, match="there is no axis 4 in a value of 4 axes"):
        axes_of([4], 4)
