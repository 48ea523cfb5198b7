"""Hints cost what the paper says, nothing where a regressor can undo the difference, and teach a network."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.methods.distill.features import Hints, Regressor, feature_loss, least_squares
from slimline.methods.distill.logits import LEAST_VARIANCE
from slimline.network.axes import axis_groups, prune
from slimline.network.taps import tap_points, with_taps
from tests.network.networks import network_of, random_halves, samples

SHAPES = [
    ((5, 7, 4, 3), (5, 11, 4, 3), 1),
    ((5, 7, 6), (5, 11, 6), 1),
    ((5, 6, 7), (5, 6, 11), 2),
    ((9, 7), (9, 11), 1),
]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def by_the_paper(student: NDArray[np.float64], teacher: NDArray[np.float64]) -> float:
    return float(np.square(student - teacher).sum() / np.square(teacher - teacher.mean()).sum())


def test_the_loss_is_the_mean_square_in_units_of_the_teachers_variance() -> None:
    student, teacher = drawn(4, 3, 5, 5).double(), 3 + 10 * drawn(4, 3, 5, 5).double().flip(0)
    expected = by_the_paper(student.numpy(), teacher.numpy())
    for scale in (1, 100):
        assert float(hints_of(scale * teacher)([scale * student], [scale * teacher])) == pytest.approx(expected)
    assert float(hints_of(teacher)([teacher], [teacher])) == 0
    assert float(hints_of(teacher)([teacher.mean().expand_as(teacher)], [teacher])) == pytest.approx(1)
    assert float(feature_loss(student, teacher, 4.0)) == pytest.approx(float((student - teacher).square().mean()) / 4)


def hints_of(teacher: Tensor) -> Hints:
    """The loss at one point without a regressor, fitted to these features."""
    return Hints([teacher.shape], [teacher.shape]).fit([teacher], [teacher])


@pytest.mark.parametrize("cut", [1, 7, 16])
def test_the_loss_of_a_batch_is_the_mean_over_its_samples_however_they_are_shared_out(cut: int) -> None:
    """The first shares hold features of another scale, so that each has a variance of its own."""
    scale = torch.linspace(0.1, 5, 32).view(-1, 1, 1, 1)
    narrow, wide = drawn(32, 7, 4, 3) * scale, drawn(32, 11, 4, 3) * scale.flip(0)
    hints = Hints([narrow.shape, wide.shape], [wide.shape, wide.shape]).fit([narrow, wide], [wide, wide.flip(1)])
    whole = hints([narrow, -wide], [wide, wide.flip(1)])
    parts = [
        len(narrow[rows]) * hints([narrow[rows], -wide[rows]], [wide[rows], wide[rows].flip(1)])
        for rows in (slice(0, cut), slice(cut, 32))
    ]
    torch.testing.assert_close(torch.stack(parts).sum() / 32, whole, rtol=1e-5, atol=0)
    assert whole > 0.5


def test_the_variances_are_part_of_what_a_checkpoint_holds() -> None:
    x = drawn(40, 6, 3, 3).double() * 7 + 100
    hints = Hints([(2, 6, 3, 3)], [(2, 6, 3, 3)]).fit([x], [x])
    (stored,) = hints.state_dict().values()
    assert stored.tolist() == pytest.approx([x.numpy().var()], rel=1e-5) and not list(hints.parameters())


def test_few_bits_and_features_without_variance_are_no_trouble() -> None:
    student, teacher = drawn(64, 64).bfloat16(), drawn(64, 65)[:, 1:].bfloat16()
    expected = by_the_paper(student.double().numpy(), teacher.double().numpy())
    assert float(hints_of(teacher)([student], [teacher])) == pytest.approx(expected, rel=1e-5)
    zeros = torch.zeros(2, 2)
    assert float(hints_of(zeros)([torch.ones(2, 2)], [zeros])) == pytest.approx(1 / LEAST_VARIANCE)


def test_least_squares_are_those_of_numpy() -> None:
    x, y = drawn(50, 6).double() + 2, drawn(50, 4).double() - 3
    weight, bias = least_squares(x, y)
    expected = np.linalg.lstsq(np.c_[x.numpy(), np.ones(50)], y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(weight.numpy(), expected[:-1].T, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bias.numpy(), expected[-1], rtol=1e-5)


def test_an_invertible_mixing_is_undone_and_dead_channels_do_no_harm() -> None:
    x = drawn(200, 6).double()
    mixed = torch.cat([x @ drawn(6, 6).double(), torch.zeros(200, 2)], 1)
    weight, bias = least_squares(mixed, x)
    torch.testing.assert_close(mixed @ weight.T + bias, x, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(weight).all()


@pytest.mark.parametrize(("narrow", "wide", "axis"), SHAPES)
def test_hints_cost_what_regressed_features_cost(narrow: tuple[int, ...], wide: tuple[int, ...], axis: int) -> None:
    """The channel axis is the one that differs; the mean is over the points."""
    student, teacher = [drawn(*narrow), drawn(*wide)], [drawn(*wide).flip(0), 3 * drawn(*wide).flip(1)]
    hints = Hints([narrow, wide], [wide, wide], seed=3).fit(student, teacher)
    first, second = hints.regressors
    assert isinstance(first, Regressor) and not list(second.parameters())
    with torch.no_grad():
        first.weight.add_(drawn(11, 7))
        first.bias.zero_()
    weight, rows = first.weight.detach().numpy(), np.moveaxis(student[0].numpy(), axis, -1)
    regressed = np.moveaxis(np.einsum("oi,...i->...o", weight, rows), -1, axis)
    parts = [by_the_paper(regressed, teacher[0].numpy()), by_the_paper(student[1].numpy(), teacher[1].numpy())]
    assert float(hints(student, teacher).detach()) == pytest.approx(np.mean(parts), rel=1e-5)


@pytest.mark.parametrize(("narrow", "wide", "axis"), SHAPES)
def test_what_a_regressor_can_undo_costs_nothing_once_fitted(
    narrow: tuple[int, ...], wide: tuple[int, ...], axis: int
) -> None:
    """A wider student that holds the teacher's channels mixed, and moved by a constant."""
    teacher = drawn(40, *narrow[1:])
    mixing = drawn(11, 7)
    student = (teacher.movedim(axis, -1) @ mixing.T + 5).movedim(-1, axis)
    hints = Hints([wide], [narrow])
    before = float(hints([student], [teacher]).detach())
    assert float(hints.fit([student], [teacher])([student], [teacher]).detach()) < 1e-6 < 0.1 < before
    lacking = Hints([narrow], [wide]).fit([teacher], [drawn(40, *wide[1:])])
    assert float(lacking([teacher], [drawn(40, *wide[1:])]).detach()) > 0.3  # nothing to be learned from noise


def test_equal_features_cost_nothing_without_any_regressor() -> None:
    hints, x = Hints([(2, 6, 3, 3)], [(5, 6, 3, 3)]), drawn(4, 6, 3, 3)
    assert not list(hints.parameters()) and float(hints([x], [x])) == 0
    assert float(hints.fit([x], [-x])([x], [-x])) == pytest.approx(by_the_paper(x.numpy(), -x.numpy()))


def test_regressors_start_semi_orthogonal_and_keep_the_variance() -> None:
    for inputs, outputs in ((64, 16), (16, 64)):
        (regressor,) = Hints([(2, inputs)], [(2, outputs)]).regressors
        assert isinstance(regressor, Regressor)
        weight = regressor.weight.detach()
        product = weight @ weight.T if outputs < inputs else weight.T @ weight * inputs / outputs
        torch.testing.assert_close(product, torch.eye(min(inputs, outputs)), rtol=1e-5, atol=1e-5)
        assert float(regressor(torch.randn(4000, inputs)).detach().var()) == pytest.approx(1, rel=0.05)


def test_regressors_follow_from_the_seed_and_leave_the_global_random_numbers() -> None:
    state = torch.get_rng_state()
    first, again, other = (Hints([(2, 4), (2, 5)], [(2, 6), (2, 7)], seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) and (name.endswith("bias") or not torch.equal(a, c))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((2, 4, 8, 8), (2, 6, 4, 8)), ((2, 4, 8), (2, 4, 8, 1))],
    ids=["another size", "another number of axes"],
)
def test_features_that_cannot_be_compared_are_refused(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(SlimlineError, match="only their numbers of channels may differ"):
        Hints([student], [teacher])


def test_points_are_needed_and_of_both() -> None:
    with pytest.raises(SlimlineError, match="at 0 points of the student and 0 of the teacher"):
        Hints([], [])
    with pytest.raises(SlimlineError, match="at 1 points of the student and 2 of the teacher"):
        Hints([(2, 3)], [(2, 3), (2, 3)])


def test_a_network_learns_the_features_of_one_of_another_width() -> None:
    """On inputs that it never saw: a copy whose weights have been disturbed learns from one of half the channels."""
    student = network_of("plain adds")
    groups = axis_groups(student)
    teacher = prune(student, groups, random_halves(groups, seed=0))
    for parameter in student.module.parameters():
        parameter.data += 0.5 * parameter.data.std() * torch.randn_like(parameter)
    ours, theirs = map(list, zip(*tap_points(student, teacher), strict=True))
    tapped, asked = with_taps(student, ours), with_taps(teacher, theirs)
    first, unseen = {"x": samples("plain adds", 32)}, {"x": samples("plain adds", 32, seed=2)}
    features, targets = (n.run(first)[1:] for n in (tapped, asked))
    hints = Hints([x.shape for x in features], [x.shape for x in targets]).fit(features, targets)

    def lack() -> float:
        return float(hints(with_taps(student, ours).run(unseen)[1:], asked.run(unseen)[1:]).detach())

    before = lack()
    optimizer = torch.optim.Adam(tapped.module.parameters(), 0.01)  # the regressors stay as they were fitted
    for step in range(40):
        batch = samples("plain adds", 16, seed=3 + step)
        loss = hints(tapped.module(batch)[1:], asked.run({"x": batch})[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert lack() < 0.5 * before
