"""What is drawn stays in its range, and what is applied is what scipy and numpy make of the same numbers."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from slimline.errors import SlimlineError
from slimline.numerics.augment import AUGMENTATIONS, MATRIX, Augmenter, augmentations

Floats = NDArray[np.float32]
SIZE = (24, 30)
MOVING = ("mirror", "shift", "rotate", "scale")


def images(count: int, channels: int = 2, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1)) * 3 + 5


def applied(augmenter: Augmenter, x: torch.Tensor, seed: int = 0) -> Floats:
    deviation, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
    result: Floats = augmenter.apply(x, augmenter.draw(len(x), seed), mean, deviation).numpy()
    return result


def matrices(names: tuple[str, ...], count: int, size: tuple[int, int] = SIZE) -> Floats:
    """Where the pixels go, (count, 3, 3), on columns (x, y, 1)."""
    drawn = Augmenter(names, size, size).draw(count, 0)[MATRIX].numpy()
    bottom = np.broadcast_to(np.array([[[0, 0, 1]]], np.float32), (count, 1, 3))
    return np.concatenate([drawn, bottom], 1)


def moved(image: Floats, matrix: Floats) -> Floats:
    """scipy's linear interpolation of (channels, height, width), zeros around it."""
    back = np.linalg.inv(matrix.astype(np.float64))[[1, 0]][:, [1, 0, 2]]  # rows before columns
    return np.stack([ndimage.affine_transform(c, back, order=1, mode="grid-constant") for c in image])


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("", ()),
        ((), ()),
        ("light", ("light",)),
        ("image", ("mirror", "shift")),
        ("rotate, image", ("mirror", "shift", "rotate")),
        (["erase", "shift", "shift"], ("shift", "erase")),
        (("mirror", "scale"), ("mirror", "scale")),
        ("image,mix", ("mix", "mirror", "shift")),
    ],
)
def test_names_are_put_into_order(wanted: str | Iterable[str], names: tuple[str, ...]) -> None:
    assert augmentations(wanted) == names
    assert augmentations(names) == names


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("shift,rotat", r"augment='rotat'\) is unknown \(did you mean 'rotate'\?\): use any of mix, mirror, .* or"),
        (["mirror", "zzz"], r"augment='zzz'\) is unknown: use any of mix, mirror"),
        (3, r"augment=3\) is unknown"),
        ([["mirror"]], r"augment=\['mirror'\]\) is unknown"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_told_with_the_known_ones(wanted: str, sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        augmentations(wanted)


def test_rotations_are_small_and_about_the_centre() -> None:
    linear, centre = matrices(("rotate",), 500), np.array([14.5, 11.5, 1])
    assert np.allclose(linear @ centre, centre, atol=1e-4)
    assert np.allclose(linear[:, :2, :2] @ linear[:, :2, :2].transpose(0, 2, 1), np.eye(2), atol=1e-5)
    angles = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert -10 <= angles.min() < -9 and 9 < angles.max() <= 10 and abs(angles.mean()) < 1


def test_zooms_keep_the_centre_and_the_shape() -> None:
    zoom, centre = matrices(("scale",), 500), np.array([14.5, 11.5, 1])
    assert np.allclose(zoom @ centre, centre, atol=1e-4)
    factors = zoom[:, 0, 0]
    assert np.allclose(zoom[:, :2, :2], factors[:, None, None] * np.eye(2))
    assert 0.9 <= factors.min() < 0.91 and 1.09 < factors.max() <= 1.1


def test_movements_together_are_one_after_the_other() -> None:
    one, *others = (matrices((name,), 20) for name in MOVING)
    for other in others:
        one = other @ one
    assert np.allclose(matrices(MOVING, 20), one, atol=1e-4)


@pytest.mark.parametrize("names", [("rotate",), ("scale",), ("mirror", "rotate"), MOVING])
@pytest.mark.parametrize("size", [SIZE, (9, 1)])
def test_movements_interpolate_as_scipy_does(names: tuple[str, ...], size: tuple[int, int]) -> None:
    x = images(12, size=size)
    expected = [moved(image, matrix) for image, matrix in zip(x.numpy(), matrices(names, 12, size), strict=True)]
    assert np.allclose(applied(Augmenter(names, size, size), x), np.stack(expected), atol=2e-3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_light_is_a_line_around_the_mean_in_units_of_the_deviation(channels: int) -> None:
    x = images(200, channels) * torch.tensor([1.0, 100.0, 0.01, 7.0])[:channels, None, None]
    centre, unit = x.mean((0, 2, 3), keepdim=True).numpy(), x.std((0, 2, 3), keepdim=True).numpy()
    before, after = (x.numpy() - centre) / unit, (applied(Augmenter(("light",), SIZE, SIZE), x) - centre) / unit
    lines = [np.polyfit(b.ravel(), a.ravel(), 1) for b, a in zip(before, after, strict=True)]
    contrast, shift = np.array(lines).T
    line = contrast[:, None, None, None] * before + shift[:, None, None, None]
    assert np.allclose(after, line, atol=1e-3)  # nothing is clipped, and channels keep their proportions
    brightness = shift / contrast
    assert 0.8 <= contrast.min() < 0.82 and 1.18 < contrast.max() <= 1.2
    assert -0.2 <= brightness.min() < -0.18 and 0.18 < brightness.max() <= 0.2
    assert abs(np.corrcoef(contrast, brightness)[0, 1]) < 0.25  # drawn independently


def test_erase_puts_the_mean_into_one_rectangle_of_half_of_the_images() -> None:
    x = images(300)
    after = applied(Augmenter(("erase",), SIZE, SIZE), x)
    mean, erased = x.mean((0, 2, 3)).numpy(), 0
    for old, new in zip(x.numpy(), after, strict=True):
        different = ~np.isclose(old, new, atol=1e-4).all(0)
        if different.any():
            rows, columns = np.flatnonzero(different.any(1)), np.flatnonzero(different.any(0))
            box = new[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert np.allclose(box, mean[:, None, None], atol=1e-4)
            assert box[0].size == different.sum()
            assert 0.01 < different.mean() < 0.24  # 0.02 to 0.2 before rounding to whole pixels
            erased += 1
    assert 120 < erased < 180


def test_a_change_is_the_same_whichever_others_there_are() -> None:
    x = images(10)
    for name in ("rotate", "scale"):
        only, both = (applied(Augmenter(names, SIZE, SIZE), x) for names in ((name,), (name, "light")))
        again = applied(Augmenter((name, "light"), SIZE, SIZE), x)
        assert np.array_equal(both, again)
        centred = [a.reshape(10, -1) - a.reshape(10, -1).mean(1, keepdims=True) for a in (only, both)]
        alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(*centred, strict=True)]
        assert min(alike) > 0.999


@pytest.mark.parametrize("names", [("mirror", "shift"), MOVING])
def test_another_size_of_the_same_images_moves_alike(names: tuple[str, ...]) -> None:
    """A spot that moves by one pixel of the small images moves by two of those of twice the height and width."""
    small, large = (28, 28), (56, 56)
    y, x = np.mgrid[:28, :28]
    spots = np.exp(-((x - 10) ** 2 + (y - 17) ** 2) / 8).astype(np.float32)[None, None].repeat(16, 0)
    grown = spots.repeat(2, 2).repeat(2, 3)
    places = []
    for pictures, size in ((spots, small), (grown, large)):
        after = applied(Augmenter(names, size, small), torch.from_numpy(pictures))
        places.append(np.array([ndimage.center_of_mass(a[0]) for a in after]))
    assert np.ptp(places[0], 0).min() > 1  # they do move
    assert np.allclose(2 * places[0] + 0.5, places[1], atol=0.1)


def test_one_seed_gives_one_change_and_leaves_torchs_own_alone() -> None:
    augmenter, x, state = Augmenter(tuple(AUGMENTATIONS), SIZE, SIZE), images(20), torch.get_rng_state()
    first, again, other = (applied(augmenter, x, seed) for seed in (4, 4, 5))
    assert np.array_equal(first, again)
    assert not np.isclose(first, other).all((1, 2, 3)).any()
    assert torch.equal(torch.get_rng_state(), state)
