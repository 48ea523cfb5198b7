"""Number formats as data."""

from dataclasses import dataclass

import torch

from slimline.errors import SlimlineError


@dataclass(frozen=True)
class IntFormat:
    """A range of integers stored in a torch dtype."""

    name: str
    low: int
    high: int
    dtype: torch.dtype


FORMATS = {
    f.name: f
    for f in (
        IntFormat("uint8", 0, 255, torch.uint8),
        IntFormat("int8", -128, 127, torch.int8),
        IntFormat("int8_narrow", -127, 127, torch.int8),
        IntFormat("int32", -(2**31), 2**31 - 1, torch.int32),
    )
}


def int_format(name: str) -> IntFormat:
    """A format by its name.

    Raises:
        SlimlineError: no such format.
    """
    if name not in FORMATS:
        raise SlimlineError(f"No number format is called {name!r}; known: {', '.join(FORMATS)}.")
    return FORMATS[name]
