"""Maps and distributions of attention are those of the papers; what does not matter to them costs nothing."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.methods.distill.attention import attention_loss, attention_map, self_attention_loss

Floats = NDArray[np.float64]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def map_by_the_paper(x: Floats) -> Floats:
    """Of (N, C, ...)."""
    rows = np.stack([sum(channel**2 for channel in sample).ravel() for sample in x])
    result: Floats = rows / np.sqrt((rows**2).sum(1, keepdims=True))
    return result


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (3, 5, 7), (2, 4, 3, 3, 3)])
def test_the_map_is_that_of_the_paper_on_any_channel_axis(shape: tuple[int, ...]) -> None:
    x = drawn(*shape)
    expected = map_by_the_paper(x.numpy())
    np.testing.assert_allclose(attention_map(x).numpy(), expected)
    np.testing.assert_allclose(attention_map(x.movedim(1, -1), axis=len(shape) - 1).numpy(), expected)


def test_the_map_knows_neither_scale_nor_order_nor_sign_of_the_channels() -> None:
    x = drawn(3, 8, 4, 4)
    for changed in (100 * x, 1e-3 * x, x[:, torch.randperm(8)], -x, torch.cat([x, x], 1)):
        torch.testing.assert_close(attention_map(changed), attention_map(x))
        assert float(attention_loss(changed, x)) == pytest.approx(0, abs=1e-12)


def test_the_loss_is_one_minus_the_cosine() -> None:
    student, teacher = drawn(6, 3, 4, 5), drawn(6, 9, 4, 5, seed=1)
    maps = map_by_the_paper(student.numpy()), map_by_the_paper(teacher.numpy())
    half_distance = 0.5 * np.square(maps[0] - maps[1]).sum(1).mean()
    assert half_distance == pytest.approx(1 - (maps[0] * maps[1]).sum(1).mean())
    assert float(attention_loss(student, teacher)) == pytest.approx(half_distance)
    ours, theirs = (x.flatten(2).transpose(1, 2) for x in (student, teacher))
    assert float(attention_loss(ours, theirs, axis=2)) == pytest.approx(half_distance)


def test_looking_elsewhere_costs_one_and_seeing_nothing_is_no_trouble() -> None:
    left, right = torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4)
    left[..., :2], right[..., 2:] = 7, 0.1
    assert float(attention_loss(left, right)) == pytest.approx(1)
    nothing = torch.zeros(2, 3, 4, 4, requires_grad=True)
    attention_loss(nothing, right).backward()  # type: ignore[no-untyped-call]
    assert nothing.grad is not None and torch.isfinite(nothing.grad).all()


def test_features_of_few_bits_are_compared_in_full_precision() -> None:
    student, teacher = drawn(4, 64, 9).bfloat16(), drawn(4, 64, 9, seed=1).bfloat16()
    expected = attention_loss(student.double(), teacher.double())
    assert float(attention_loss(student, teacher)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("other", [(2, 3, 4, 5), (2, 3, 4)])
def test_maps_of_other_places_are_refused(other: tuple[int, ...]) -> None:
    with pytest.raises(SlimlineError, match="they need the same places, at least two"):
        attention_loss(drawn(2, 3, 4, 4), drawn(*other))


@pytest.mark.parametrize("shape", [(4, 8), (4, 8, 1, 1)])
def test_a_single_place_has_no_map(shape: tuple[int, ...]) -> None:
    with pytest.raises(SlimlineError, match="at least two"):
        attention_loss(drawn(*shape), drawn(*shape))


# --- distributions ----------------------------------------------------------------------------------------------------


def divergence(student: Floats, teacher: Floats) -> float:
    """Row by row of (..., T): sum_k t_k log(t_k / s_k), then the mean."""
    rows = list(zip(student.reshape(-1, student.shape[-1]), teacher.reshape(-1, teacher.shape[-1]), strict=True))
    return float(np.mean([sum(t * np.log(t / s) for s, t in zip(*row, strict=True) if t > 0) for row in rows]))


def test_the_loss_of_distributions_is_their_divergence() -> None:
    student, teacher = drawn(3, 2, 5, 5).softmax(-1), drawn(3, 2, 5, 5, seed=1).softmax(-1)
    ours = float(self_attention_loss(student, teacher))
    assert ours == pytest.approx(divergence(student.numpy(), teacher.numpy())) and ours > 0.1
    assert ours != pytest.approx(float(self_attention_loss(teacher, student)), rel=0.01)
    assert float(self_attention_loss(teacher, teacher)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 12])
def test_of_other_numbers_of_heads_the_means_are_compared(heads: int) -> None:
    student, teacher = drawn(3, heads, 5, 5).softmax(-1), drawn(3, 4, 5, 5, seed=1).softmax(-1)
    means = student.mean(1).numpy(), teacher.mean(1).numpy()
    assert float(self_attention_loss(student, teacher)) == pytest.approx(divergence(*means))


def test_masked_keys_cost_nothing_and_break_no_gradient() -> None:
    mask = torch.zeros(6).double()
    mask[4:] = -torch.inf
    scores, teacher = drawn(2, 2, 6, 6).requires_grad_(), (drawn(2, 2, 6, 6, seed=1) + mask).softmax(-1)
    student = (scores + mask).softmax(-1)
    loss = self_attention_loss(student, teacher)
    expected = divergence(student.detach().numpy()[..., :4], teacher.numpy()[..., :4])
    assert float(loss.detach()) == pytest.approx(expected)
    loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    gradient = (student.detach() - teacher) / (2 * 2 * 6)  # of a softmax under a divergence
    torch.testing.assert_close(scores.grad, gradient, rtol=1e-6, atol=1e-9)


def test_other_numbers_of_places_are_refused() -> None:
    with pytest.raises(SlimlineError, match=r"only the numbers of heads, on axis 1, may differ"):
        self_attention_loss(torch.ones(2, 4, 5, 5) / 5, torch.ones(2, 4, 6, 6) / 6)
