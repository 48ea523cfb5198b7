"""Affine quantisation against torch and against scalar arithmetic with fractions."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from slimline.numerics.affine import SMALLEST_SCALE, affine_parameters, quantize_symmetric, symmetric_scales
from slimline.numerics.formats import IntFormat, int_format

ACTIVATION_FORMATS = ["uint8", "int8"]
WEIGHT_FORMATS = ["int8", "int8_narrow"]
DRAWS = 300


def ranges(count: int) -> list[tuple[float, float]]:
    """Random ranges over twelve orders of magnitude: around zero, on one side of it, and of no length."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        a, b = generator.standard_normal(2) * 10.0 ** generator.uniform(-6, 6)
        found.append((float(min(a, b)), float(max(a, b))))
    return [*found, (0.0, 0.0), (1.5, 1.5), (-2.0, -2.0), (0.0, 7.0), (-7.0, 0.0)]


@pytest.mark.parametrize("name", ACTIVATION_FORMATS)
def test_zero_is_exact_and_the_range_is_covered(name: str) -> None:
    fmt = int_format(name)
    for low, high in ranges(DRAWS):
        scale, zero_point = affine_parameters(low, high, fmt)
        assert scale > 0 and fmt.low <= zero_point <= fmt.high
        assert isinstance(zero_point, int)  # so that scale * (zero_point - zero_point) is exactly zero
        smallest, largest = (Fraction(scale) * (q - zero_point) for q in (fmt.low, fmt.high))
        slack = Fraction(scale) * Fraction(501, 1000)  # the zero point is rounded by half a step at most
        assert smallest <= Fraction(min(low, 0.0)) + slack and largest >= Fraction(max(high, 0.0)) - slack
        if low < high:  # no step is wasted
            assert largest - smallest <= Fraction(max(high, 0.0) - min(low, 0.0)) * Fraction(1001, 1000)


@pytest.mark.parametrize("name", ACTIVATION_FORMATS)
def test_values_in_the_range_come_back_within_half_a_step(name: str) -> None:
    """With torch's fake quantisation as the arithmetic; the ends may lose half a step to the rounded zero point."""
    fmt = int_format(name)
    generator = torch.Generator().manual_seed(0)
    for low, high in ranges(DRAWS):
        scale, zero_point = affine_parameters(low, high, fmt)
        x = torch.cat([torch.rand(64, generator=generator) * (high - low) + low, torch.zeros(1)])
        back = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, fmt.low, fmt.high)
        rounding = 1e-6 * x.abs()
        inside = (x > min(low, 0.0) + scale) & (x < max(high, 0.0) - scale)
        assert torch.all((back - x).abs() <= torch.where(inside, 0.5, 1.01) * scale + rounding)
        assert back[-1] == 0


def test_known_parameters() -> None:
    assert affine_parameters(0.0, 255.0, int_format("uint8")) == (1.0, 0)
    assert affine_parameters(-128.0, 127.0, int_format("uint8")) == (1.0, 128)
    assert affine_parameters(-128.0, 127.0, int_format("int8")) == (1.0, 0)
    assert affine_parameters(2.0, 51.0, int_format("uint8")) == (0.2, 0)  # zero is pulled into the range
    assert affine_parameters(0.0, 0.0, int_format("uint8")) == (SMALLEST_SCALE, 0)


def slow_symmetric(row: list[float], scale: float, fmt: IntFormat) -> list[int]:
    """round(w / s) with ties to even, one number at a time, in exact fractions."""
    return [min(max(round(Fraction(w) / Fraction(scale)), fmt.low), fmt.high) for w in row]


@pytest.mark.parametrize("name", WEIGHT_FORMATS)
def test_symmetric_weights_equal_the_scalar_twin(name: str) -> None:
    fmt = int_format(name)
    generator = np.random.default_rng(1)
    for draw in range(30):
        magnitudes = 10.0 ** generator.uniform(-6, 4, size=(5, 1))
        weight = torch.from_numpy((generator.standard_normal((5, 12)) * magnitudes).astype(np.float32))
        weight[draw % 5, 3] = 0.0
        scales = symmetric_scales(weight, fmt)
        assert scales.shape == (5,) and scales.dtype == torch.float32
        integers = quantize_symmetric(weight, scales, fmt)
        assert integers.dtype == torch.int8 and integers.shape == weight.shape
        for row in range(5):
            assert integers[row].tolist() == slow_symmetric(weight[row].tolist(), float(scales[row]), fmt)
            assert int(integers[row].abs().max()) == fmt.high  # the largest magnitude uses the whole format
            assert integers[row][weight[row] == 0].eq(0).all()


@pytest.mark.parametrize("name", WEIGHT_FORMATS)
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 5), (6, 4, 3)])
def test_symmetric_weights_agree_with_torch_fake_quantization(name: str, shape: tuple[int, ...]) -> None:
    """torch multiplies by a float32 reciprocal, which moves values that lie on the middle of a step by one step."""
    fmt = int_format(name)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    scales = symmetric_scales(weight, fmt)
    per_row = scales.view(-1, *[1] * (len(shape) - 1))
    ours = quantize_symmetric(weight, scales, fmt).float() * per_row
    zero = torch.zeros(len(scales), dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, scales, zero, 0, fmt.low, fmt.high)
    assert torch.all((ours - weight).abs() <= (0.5 + 1e-5) * per_row)
    steps = (ours - theirs).abs() / per_row
    near_middle = ((weight / per_row).frac().abs() - 0.5).abs() < 1e-4
    assert torch.all((steps < 1e-3) | near_middle)


def test_integers_outside_the_format_are_clamped() -> None:
    fmt = int_format("int8_narrow")
    weight = torch.tensor([[1000.0, -1000.0, 0.5]])
    assert quantize_symmetric(weight, torch.tensor([1.0]), fmt).tolist() == [[127, -127, 0]]


def test_a_row_of_zeros_and_a_vector() -> None:
    fmt = int_format("int8")
    scales = symmetric_scales(torch.zeros(2, 3), fmt)
    assert torch.all(scales > 0)
    assert quantize_symmetric(torch.zeros(2, 3), scales, fmt).eq(0).all()
    vector = torch.tensor([2.54, -1.27, 0.0])
    np.testing.assert_allclose(symmetric_scales(vector, fmt)[:2], [0.02, 0.01], rtol=1e-6)
    assert quantize_symmetric(vector, symmetric_scales(vector, fmt), fmt).tolist() == [127, -127, 0]


def test_an_int32_bias_keeps_what_float32_cannot() -> None:
    """A bias is divided by a tiny scale: the quotient has to be computed with more digits than float32 has."""
    bias, scale = torch.tensor([123.4567]), torch.tensor([1e-6])
    (integer,) = quantize_symmetric(bias, scale, int_format("int32")).tolist()
    assert integer == round(Fraction(float(bias)) / Fraction(float(scale)))
