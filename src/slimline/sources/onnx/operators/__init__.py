"""One small torch function per ONNX operator, by family; `slimline.sources.onnx.operators.table` says how to add one."""

from slimline.sources.onnx.operators import (
    activation,
    attention,
    canonical,
    control_flow,
    convolution,
    elementwise,
    generate,
    index,
    linear,
    loss,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
    shape,
    signal,
    vision,
)
from slimline.sources.onnx.operators.table import KNOWN_TABLE, TABLE, call

__all__ = ["KNOWN_TABLE", "TABLE", "call"]
FAMILIES = (
    activation, attention, canonical, control_flow, convolution, elementwise, generate, index, linear, loss, normalization,
    pooling, quantization, recurrent, reduction, resize, shape, signal, vision,
)  # fmt: skip
"""Importing a family puts its operators into the table."""
