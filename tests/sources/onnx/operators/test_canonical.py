from pathlib import Path

import numpy as np
from onnx import helper

from tests.sources.onnx import models


def test_a_linear_layer_is_traced_as_one_operator(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((5, 7)).astype(np.float32), rng.standard_normal(7).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])]
    proto = models.model(nodes, {"x": ["N", 3, 5]}, ["y"], {"w": weight, "b": bias})
    network = models.check_traced(proto, tmp_path, rng.standard_normal((3, 3, 5)).astype(np.float32))
    calls = [str(node.target) for node in network.module.graph.nodes if node.op == "call_function"]
    assert calls == ["aten.linear.default"]
