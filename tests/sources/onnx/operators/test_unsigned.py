"""Unsigned arithmetic against Python's integers, which have no upper bits to lose."""

import random

import numpy as np
import pytest
import torch

from slimline.sources.onnx.operators.unsigned import quotient, shifted_right, signed, unsigned
from tests.sources.onnx.models import eager, one

DRAW = random.Random(0)
EDGES = [1, 2, 3, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]
LARGE = EDGES + [DRAW.getrandbits(DRAW.randint(1, 64)) | 1 for _ in range(20)]
PAIRS = [(a, b) for a in [0, *LARGE] for b in LARGE]


def bits(numbers: list[int]) -> torch.Tensor:
    return signed(torch.from_numpy(np.array(numbers, dtype=np.uint64)))


def test_the_bits_come_back() -> None:
    for dtype, numbers in ((torch.uint64, LARGE), (torch.uint16, [0, 1, 2**15, 2**16 - 1]), (torch.uint32, [2**31])):
        x = torch.from_numpy(np.array(numbers, dtype=str(dtype).removeprefix("torch.")))
        assert signed(x).dtype == torch.int64
        assert unsigned(signed(x), dtype).numpy().tolist() == numbers


def test_the_quotient_of_numbers_beyond_the_signed_range() -> None:
    a, b = zip(*PAIRS, strict=True)
    found = quotient(bits(list(a)), bits(list(b))).view(torch.uint64).numpy().tolist()
    assert found == [x // y for x, y in PAIRS]


def test_zeros_come_in_from_the_left() -> None:
    pairs = [(x, n) for x in LARGE for n in (0, 1, 7, 63)]
    found = shifted_right(bits([x for x, _ in pairs]), torch.tensor([n for _, n in pairs]))
    assert found.view(torch.uint64).numpy().tolist() == [x >> n for x, n in pairs]


OPERATORS = {
    "Add": lambda x, y, m: (x + y) % m, "Sub": lambda x, y, m: (x - y) % m, "Mul": lambda x, y, m: x * y % m,
    "Div": lambda x, y, m: x // y, "Mod": lambda x, y, m: x % y, "Max": lambda x, y, m: max(x, y),
    "Min": lambda x, y, m: min(x, y), "Less": lambda x, y, m: x < y, "GreaterOrEqual": lambda x, y, m: x >= y,
    "Equal": lambda x, y, m: x == y, "BitwiseXor": lambda x, y, m: x ^ y, "BitwiseAnd": lambda x, y, m: x & y,
}  # fmt: skip


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("kind", OPERATORS)
def test_operators_wrap_around_and_keep_the_order(kind: str, width: int) -> None:
    size = 2**width
    pairs = [(a % size, b % size or 1) for a, b in PAIRS]
    a, b = (np.array(side, dtype=f"uint{width}") for side in zip(*pairs, strict=True))
    (found,) = eager(one(kind, [a, b]), a, b)
    assert found.tolist() == [OPERATORS[kind](x, y, size) for x, y in pairs]
    assert found.dtype == (bool if kind in ("Less", "GreaterOrEqual", "Equal") else a.dtype)
