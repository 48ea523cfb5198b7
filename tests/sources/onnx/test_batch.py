import numpy as np
import pytest
from onnx import helper

from slimline.sources.onnx.batch import fixed_batch, freed
from slimline.sources.onnx.graph import OnnxInput, build_graph
from tests.sources.onnx import models

node = helper.make_node


@pytest.mark.parametrize(
    ("shapes", "batch"),
    [
        ([(1, 3)], 1), ([(4, 3), (4,)], 4), ([("N", 3)], None), ([(None, 3)], None), ([(1, 3), (2, 3)], None),
        ([(1, 3), ("N", 3)], None), ([None], None),
    ],
)  # fmt: skip
def test_a_batch_is_fixed_when_every_input_says_the_same_number(shapes: list, batch: int | None) -> None:
    assert fixed_batch([OnnxInput(f"x{i}", 1, shape) for i, shape in enumerate(shapes)]) == batch


def test_only_a_leading_entry_that_equals_the_batch_is_freed() -> None:
    nodes = [node("Reshape", ["x", "a"], ["h"]), node("Reshape", ["h", "b"], ["y"])]
    constants = {"a": np.array([4, 2, 3]), "b": np.array([6, 4])}
    graph = freed(build_graph(models.model(nodes, {"x": [4, 6]}, ["y"], constants)), 4)
    assert [graph.constants[n.inputs[1]].tolist() for n in graph.nodes] == [[0, 2, 3], [6, 4]]
    assert graph.inputs[0].shape == (None, 6)


def test_a_state_that_is_not_zero_stays() -> None:
    nodes = [node("RNN", ["x", "w", "r", "", "", "h"], ["y"], hidden_size=1)]
    weights = {"w": np.ones((1, 1, 2), np.float32), "r": np.ones((1, 1, 1), np.float32)}
    for state, expected in ((np.zeros((1, 1, 1)), ""), (np.ones((1, 1, 1)), "h")):
        constants = {**weights, "h": state.astype(np.float32)}
        graph = freed(build_graph(models.model(nodes, {"x": [3, 1, 2]}, ["y"], constants)), 1)
        assert graph.inputs[0].shape == (None, 1, 2)
        assert graph.nodes[0].inputs[5] == expected
