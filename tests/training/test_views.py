"""A view is one of the mirrored and shifted copies, always the same one, and view 0 is the sample itself."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from slimline.training.views import SHIFT_SHARE, Views

Images = NDArray[np.float32]


def copies(image: Images, reach: int) -> dict[tuple[bool, int, int], Images]:
    """Every mirrored and shifted copy of an image (channels, height, width), pixel by pixel, zeros moving in."""
    channels, height, width = image.shape
    found = {}
    for mirror in (False, True):
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                copy = np.zeros_like(image)
                for y in range(height):
                    for x in range(width):
                        from_y, from_x = y - down, x - right
                        if 0 <= from_y < height and 0 <= from_x < width:
                            copy[:, y, x] = image[:, from_y, width - 1 - from_x if mirror else from_x]
                found[mirror, down, right] = copy
    return found


def batch(views: Views, index: list[int], view: list[int]) -> Images:
    result: Images = views.batch(np.array(index), np.array(view))["image"].numpy()
    return result


@pytest.mark.parametrize(("side", "reach"), [((8, 8), 1), ((28, 30), 2)])
def test_every_view_is_a_mirrored_and_shifted_copy(side: tuple[int, int], reach: int) -> None:
    assert max(1, min(side) // SHIFT_SHARE) == reach
    images = np.random.default_rng(0).normal(size=(6, 2, *side)).astype(np.float32)
    views = Views({"image": torch.from_numpy(images)}, count=5)
    met = set()
    for sample in range(6):
        twins = copies(images[sample], reach)
        for view in range(5):
            (seen,) = batch(views, [sample], [view])
            same = [kind for kind, twin in twins.items() if np.array_equal(seen, twin)]
            assert len(same) == 1
            met.add(same[0])
    assert len(met) > 8


def test_all_copies_come_about_equally_often() -> None:
    image = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    views = Views({"image": torch.from_numpy(np.repeat(image, 400, 0))}, count=6)
    twins, counts = copies(image[0], 1), dict.fromkeys(copies(image[0], 1), 0)
    for view in range(1, 6):
        for seen in batch(views, list(range(400)), [view] * 400):
            counts[next(kind for kind, twin in twins.items() if np.array_equal(seen, twin))] += 1
    expected = 2000 / 18
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 40.8  # chi square, 17 degrees, 0.1 %


def test_view_0_is_the_sample_itself() -> None:
    images = torch.randn(9, 3, 8, 8)
    assert torch.equal(Views({"image": images}, 4).batch(np.arange(9), np.zeros(9, np.int64))["image"], images)


def test_one_pair_is_one_image_whatever_else_is_in_the_batch() -> None:
    views = Views({"image": torch.randn(20, 1, 8, 8)}, count=4, seed=3)
    alone = batch(views, [7], [2])[0]
    rng = np.random.default_rng(0)
    for _ in range(5):
        index, view = rng.integers(0, 20, 12), rng.integers(0, 4, 12)
        index[5], view[5] = 7, 2
        assert np.array_equal(batch(views, index.tolist(), view.tolist())[5], alone)
    again = Views(dict(views.inputs), count=4, seed=3)
    assert np.array_equal(batch(again, [7], [2])[0], alone)


def test_another_seed_gives_other_views() -> None:
    images = torch.randn(30, 1, 8, 8)
    one, other = (batch(Views({"image": images}, 2, seed), list(range(30)), [1] * 30) for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_inputs_that_are_no_images_are_the_same_in_every_view() -> None:
    inputs = {"image": torch.randn(5, 1, 8, 8), "tokens": torch.arange(15).view(5, 3)}
    seen = Views(inputs, count=3).batch(np.array([4, 0, 4]), np.array([0, 1, 2]))
    assert seen["tokens"].tolist() == [[12, 13, 14], [0, 1, 2], [12, 13, 14]]


def test_one_view_is_the_samples_in_the_order_asked_for() -> None:
    views = Views({"image": torch.randn(5, 1, 8, 8)})
    assert len(views) == 5
    assert torch.equal(views.batch(np.array([3, 1]), np.zeros(2, np.int64))["image"], views.inputs["image"][[3, 1]])
