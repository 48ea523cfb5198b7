"""The tables against torch: every operator takes a kernel of the axes that its table says."""

import pytest
import torch

from slimline.network.operators import CONVOLUTIONS, TRANSPOSED


@pytest.mark.parametrize("target", [*CONVOLUTIONS, *TRANSPOSED])
def test_the_kernel_has_the_axes_of_the_table(target: torch._ops.OpOverload) -> None:
    """5 inputs and 3 outputs: a weight the wrong way round, or of other axes, is an error."""
    axes = (CONVOLUTIONS | TRANSPOSED)[target]
    weight = torch.randn(3, 5, *[2] * axes) if target in CONVOLUTIONS else torch.randn(5, 3, *[2] * axes)
    assert target(torch.randn(2, 5, *[6] * axes), weight).shape[:2] == (2, 3)
    assert target(torch.randn(2, 5, *[6] * axes), weight).ndim == axes + 2


def test_no_operator_is_missing() -> None:
    names = {f"conv{n}d" for n in (1, 2, 3)} | {f"conv_transpose{n}d" for n in (1, 2, 3)}
    overloads = {
        getattr(getattr(torch.ops.aten, name), o) for name in names for o in getattr(torch.ops.aten, name).overloads()
    }
    written = {o for o in overloads if "out" not in o._schema.overload_name}
    assert written == CONVOLUTIONS.keys() | TRANSPOSED.keys()
