"""A model of one operator against ONNX Runtime, and the operators of a traced network."""

from typing import Any

import numpy as np
import onnx

from slimline.network.network import Network
from tests.sources.onnx.models import NEWEST_IN_ONNX_RUNTIME, assert_same, eager, in_onnx_runtime, one


def node_model(
    kind: str, *arrays: Any, opset: int = NEWEST_IN_ONNX_RUNTIME, outputs: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node whose outputs have the types that ONNX Runtime infers."""
    proto = one(kind, arrays, opset, outputs, **attributes)
    for value in proto.graph.output:
        value.ClearField("type")
    return proto


def check(kind: str, *arrays: Any, opset: int = NEWEST_IN_ONNX_RUNTIME, outputs: int = 1, **attributes: Any) -> None:
    """One node equals ONNX Runtime on these inputs; None is an input that is left out."""
    proto = node_model(kind, *arrays, opset=opset, outputs=outputs, **attributes)
    given = [np.asarray(array) for array in arrays if array is not None]
    assert_same(eager(proto, *given), in_onnx_runtime(proto, *given))


def operators(network: Network) -> list[str]:
    """The operators of a traced network in order."""
    return [str(node.target) for node in network.module.graph.nodes if node.op == "call_function"]
