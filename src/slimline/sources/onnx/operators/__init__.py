"""One small torch function per ONNX operator, by family; `...operators.table` says how to add one."""

from slimline.sources.onnx.operators import (
    activation,
    arithmetic,
    attention,
    canonical,
    contrib,
    control_flow,
    convolution,
    elementwise,
    generate,
    index,
    linear,
    logic,
    loss,
    normalization,
    padding,
    pooling,
    quantization,
    quantized,
    random_numbers,
    recurrent,
    reduction,
    reshape,
    resize,
    scatter,
    shape,
    shape_arithmetic,
    signal,
    slicing,
    sort,
    types,
    vision,
)
from slimline.sources.onnx.operators.table import KNOWN_TABLE, TABLE, call

__all__ = ["KNOWN_TABLE", "TABLE", "call"]
FAMILIES = (
    activation, arithmetic, attention, canonical, contrib, control_flow, convolution, elementwise, generate, index,
    linear, logic, loss, normalization, padding, pooling, quantization, quantized, random_numbers, recurrent, reduction,
    reshape, resize, scatter, shape, shape_arithmetic, signal, slicing, sort, types, vision,
)  # fmt: skip
"""Importing a family puts its operators into the table."""
