"""Operators that are one layer under several names."""

import torch

aten = torch.ops.aten
CONVOLUTIONS = {
    aten.conv1d.default: 1, aten.conv2d.default: 2, aten.conv3d.default: 3,
    aten.conv1d.padding: 1, aten.conv2d.padding: 2, aten.conv3d.padding: 3,
}  # fmt: skip
"""Operator -> axes of its kernel; the weight is (outputs, inputs / groups, *kernel)."""
TRANSPOSED = {aten.conv_transpose1d.default: 1, aten.conv_transpose2d.input: 2, aten.conv_transpose3d.input: 3}
"""Operator -> axes of its kernel; the weight is (inputs, outputs / groups, *kernel)."""
WEIGHTED = frozenset({aten.linear.default, *CONVOLUTIONS, *TRANSPOSED})
"""Layers whose second argument is their weight."""
