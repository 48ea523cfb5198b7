import pytest
import torch

from slimline.errors import SlimlineError
from slimline.numerics.formats import FORMATS, int_format


@pytest.mark.parametrize(("name", "dtype"), [("uint8", torch.uint8), ("int8", torch.int8), ("int32", torch.int32)])
def test_a_format_covers_its_torch_type(name: str, dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    fmt = int_format(name)
    assert (fmt.name, fmt.low, fmt.high, fmt.dtype) == (name, limits.min, limits.max, dtype)


def test_the_narrow_format_is_symmetric_and_fits_its_type() -> None:
    fmt = int_format("int8_narrow")
    assert fmt.low == -fmt.high
    assert (fmt.low, fmt.high) == (torch.iinfo(torch.int8).min + 1, torch.iinfo(torch.int8).max)


def test_a_format_is_stored_under_its_own_name() -> None:
    assert all(name == fmt.name for name, fmt in FORMATS.items())


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SlimlineError, match="'int9'.*uint8, int8, int8_narrow, int32"):
        int_format("int9")
