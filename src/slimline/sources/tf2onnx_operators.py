"""Operators of TensorFlow and TFLite that tf2onnx 1.17 does not know, put into its table.

Imported by `slimline.sources.conversion_worker` alone. Each function gets tf2onnx's graph and the node to replace.
"""

from collections.abc import Callable
from typing import Any

GELU_CUBIC, ROOT_2_OVER_PI, ROOT_HALF = 0.044715, 0.7978845608028654, 0.7071067811865476


def register() -> None:
    """Teach tf2onnx these operators; calling it again changes nothing."""
    from tf2onnx.handler import tf_op, tfl_op

    for name, function in TENSORFLOW.items():
        tf_op(name)(_handler(function))
    for name, function in TFLITE.items():
        tfl_op(name)(_handler(function))


def _handler(function: Callable[[Any, Any], None]) -> type:
    def version_9(cls: Any, /, ctx: Any, node: Any, **_: Any) -> None:
        function(ctx, node)

    return type(function.__name__, (), {"version_9": classmethod(version_9)})


class _Writer:
    """Writes nodes whose result has the type and shape of the node that they replace."""

    def __init__(self, ctx: Any, node: Any) -> None:
        self.ctx, self.node = ctx, node
        self.shapes, self.dtypes = [ctx.get_shape(node.output[0])], [ctx.get_dtype(node.output[0])]

    def number(self, value: float) -> str:
        import numpy as np
        from tf2onnx import utils

        array = np.array(value, utils.map_onnx_to_numpy_type(self.dtypes[0]))
        return str(self.ctx.make_const(utils.make_name("number"), array).output[0])

    def do(self, kind: str, *inputs: str) -> str:
        return str(self.ctx.make_node(kind, list(inputs), shapes=self.shapes, dtypes=self.dtypes).output[0])

    def replace(self, kind: str, *inputs: str) -> None:
        name, outputs = self.node.name, list(self.node.output)
        self.ctx.remove_node(name)
        self.ctx.make_node(kind, list(inputs), name=name, outputs=outputs, shapes=self.shapes, dtypes=self.dtypes)


def erfc(ctx: Any, node: Any) -> None:
    """1 - erf(x); 1 + erf(y) for x = -y, as in the gelu of TensorFlow, 0.5 x erfc(-x / sqrt 2)."""
    write, inner = _Writer(ctx, node), node.inputs[0]
    if inner.type == "Mul" and inner.inputs[0].type == "Neg":
        positive = write.do("Mul", inner.inputs[0].input[0], inner.input[1])
        write.replace("Add", write.do("Erf", positive), write.number(1))
    else:
        write.replace("Sub", write.number(1), write.do("Erf", node.input[0]))


def gelu(ctx: Any, node: Any) -> None:
    """GELU, x Phi(x), or its approximation by tanh (Hendrycks & Gimpel 2016)."""
    write, x = _Writer(ctx, node), node.input[0]
    if node.get_attr_value("approximate", False):
        cube = write.do("Mul", x, write.do("Mul", x, x))
        inner = write.do("Add", x, write.do("Mul", cube, write.number(GELU_CUBIC)))
        curve = write.do("Tanh", write.do("Mul", inner, write.number(ROOT_2_OVER_PI)))
    else:
        curve = write.do("Erf", write.do("Mul", x, write.number(ROOT_HALF)))
    half = write.do("Mul", x, write.number(0.5))
    write.replace("Mul", half, write.do("Add", curve, write.number(1)))


def relu_0_to_1(ctx: Any, node: Any) -> None:
    """min(max(x, 0), 1)."""
    write = _Writer(ctx, node)
    write.replace("Min", write.do("Max", node.input[0], write.number(0)), write.number(1))


def relu_n1_to_1(ctx: Any, node: Any) -> None:
    """min(max(x, -1), 1)."""
    write = _Writer(ctx, node)
    write.replace("Min", write.do("Max", node.input[0], write.number(-1)), write.number(1))


TENSORFLOW: dict[str, Callable[[Any, Any], None]] = {"Erfc": erfc}
TFLITE: dict[str, Callable[[Any, Any], None]] = {
    "TFL_GELU": gelu,
    "TFL_RELU_0_TO_1": relu_0_to_1,
    "TFL_RELU_N1_TO_1": relu_n1_to_1,
}
