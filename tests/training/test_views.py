"""A view is always the same change of the sample, whatever batch it is asked in, and view 0 is the sample itself."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from slimline.network.trace import trace
from slimline.numerics.augment import NAMES
from slimline.training.views import FRESH_KEPT, Views, without_effect

Images = NDArray[np.float32]
EVERYTHING = NAMES


def copies(image: Images, reach: int) -> dict[tuple[bool, int, int], Images]:
    """Every mirrored and shifted copy of an image (channels, height, width), zeros moving in."""
    height, width = image.shape[1:]
    found = {}
    for mirror in (False, True):
        padded = np.pad(np.flip(image, 2) if mirror else image, ((0, 0), (reach, reach), (reach, reach)))
        for y in range(2 * reach + 1):
            for x in range(2 * reach + 1):
                found[mirror, y, x] = padded[:, y : y + height, x : x + width]
    return found


def pictures(count: int, channels: int = 1, side: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, channels, side, side)).astype(np.float32))


def batch(views: Views, index: list[int], view: list[int], name: str = "image") -> Images:
    result: Images = views.batch(np.array(index), np.array(view))[name].numpy()
    return result


@pytest.mark.parametrize(("side", "reach"), [((8, 8), 1), ((28, 30), 2), ((70, 64), 4)])
@pytest.mark.parametrize("augment", ["image", "mirror", "shift"])
def test_a_view_is_a_mirrored_and_shifted_copy(side: tuple[int, int], reach: int, augment: str) -> None:
    images = np.random.default_rng(0).normal(size=(6, 2, *side)).astype(np.float32)
    views = Views({"image": torch.from_numpy(images)}, count=5, augment=augment)
    met = set()
    for sample in range(6):
        twins = copies(images[sample], reach)
        for view in range(5):
            (seen,) = batch(views, [sample], [view])
            same = [kind for kind, twin in twins.items() if np.array_equal(seen, twin)]
            assert len(same) == 1
            met.add(same[0])
    assert len({mirror for mirror, _, _ in met}) == (1 if augment == "shift" else 2)
    shifts = {(y, x) for _, y, x in met}
    assert shifts == {(reach, reach)} if augment == "mirror" else len(shifts) > 5


def test_all_copies_come_about_equally_often() -> None:
    image = pictures(1).numpy()
    views = Views({"image": torch.from_numpy(np.repeat(image, 400, 0))}, count=6)
    twins, counts = copies(image[0], 1), dict.fromkeys(copies(image[0], 1), 0)
    for view in range(1, 6):
        for seen in batch(views, list(range(400)), [view] * 400):
            counts[next(kind for kind, twin in twins.items() if np.array_equal(seen, twin))] += 1
    expected = 2000 / 18
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 40.8  # chi square, 17 degrees, 0.1 %


@pytest.mark.parametrize("count", [0, 4])
def test_view_0_is_the_sample_itself(count: int) -> None:
    images = pictures(9, 3)
    views = Views({"image": images}, count, augment=EVERYTHING)
    assert torch.equal(views.batch(np.arange(9), np.zeros(9, np.int64))["image"], images)
    mixed = batch(views, list(range(9)), [0, 1, 2] * 3)
    assert [np.array_equal(mixed[i], images[i]) for i in range(9)] == [True, False, False] * 3


@pytest.mark.parametrize("augment", ["image", *EVERYTHING, EVERYTHING])
@pytest.mark.parametrize("count", [0, 4])
def test_one_pair_is_one_image_whatever_else_is_in_the_batch(augment: str | tuple[str, ...], count: int) -> None:
    views = Views({"image": pictures(70)}, count, seed=3, augment=augment)
    alone = batch(views, [7], [2])[0]
    rng = np.random.default_rng(0)
    for size in (2, 3, 12, 64):
        index, view = rng.integers(0, 70, size), rng.integers(0, 4, size)
        index[size // 2], view[size // 2] = 7, 2
        assert np.array_equal(batch(views, index.tolist(), view.tolist())[size // 2], alone)
    again = Views(dict(views.inputs), count, seed=3, augment=augment)
    assert np.array_equal(batch(again, [7], [2])[0], alone)


@pytest.mark.parametrize(("augment", "kinds"), [("image,rotate", 1), ("mix", 1), ("mix,image", 2)])
def test_endless_views_are_all_different_and_few_are_kept(augment: str, kinds: int) -> None:
    images = pictures(50, side=28)
    views = Views({"image": images}, count=0, augment=augment)
    seen = [batch(views, [3], [view])[0].tobytes() for view in range(60)]
    assert len(set(seen)) == 60
    assert len(views._drawn) <= FRESH_KEPT * kinds
    assert batch(views, [3], [17])[0].tobytes() == seen[17]
    finite = Views({"image": images}, count=30, augment=augment)
    assert batch(finite, [3], [17])[0].tobytes() == seen[17]


def test_a_mixture_lies_between_the_sample_and_one_other() -> None:
    """Solved for the share: every place of a mixture gives the same one, for exactly one partner."""
    rng = np.random.default_rng(0)
    sounds, facts = rng.normal(size=(40, 6, 5)).astype(np.float32), rng.normal(size=(40, 3)).astype(np.float32)
    views = Views({"sound": torch.from_numpy(sounds), "facts": torch.from_numpy(facts)}, 4, augment="mix")
    seen = views.batch(np.arange(40), np.full(40, 2))
    partners, shares = [], []
    for sample in range(40):
        found = []
        for other in set(range(40)) - {sample}:
            share = (seen["sound"][sample].numpy() - sounds[sample]) / (sounds[other] - sounds[sample])
            if np.ptp(share) < 1e-2:
                found.append((other, float(np.median(share))))
        ((partner, share),) = found
        expected = facts[sample] + share * (facts[partner] - facts[sample])
        assert np.allclose(seen["facts"][sample], expected, atol=1e-3)
        partners.append(partner)
        shares.append(share)
    assert sorted(partners) == list(range(40))
    assert min(shares) >= 0 and 0.35 < max(shares) <= 0.5 + 1e-4 and 0.17 < np.mean(shares) < 0.33


def test_mixtures_are_made_before_images_are_moved() -> None:
    images = pictures(12)
    mixed, both = (Views({"image": images}, 3, 5, augment) for augment in ("mix", "mix,image"))
    apart = Views({"image": mixed.batch(np.arange(12), np.full(12, 2))["image"]}, 3, 5, "image")
    assert np.allclose(
        batch(both, list(range(12)), [2] * 12), batch(apart, list(range(12)), [2] * 12), rtol=0, atol=1e-6
    )


def test_view_0_in_a_batch_with_mixtures_is_the_sample_and_a_number_is_a_sample_too() -> None:
    numbers = torch.arange(30.0)
    seen = Views({"number": numbers}, 0, augment="mix").batch(np.arange(30), np.arange(30) % 2)["number"]
    assert torch.equal(seen[::2], numbers[::2])
    assert bool((seen[1::2] != numbers[1::2]).all()) and float((seen - numbers).abs().max()) <= 14.5


def test_whole_numbers_have_nothing_between_them() -> None:
    words = torch.arange(60).reshape(20, 3)
    views = Views({"words": words, "weight": torch.rand(20, 3)}, 0, augment="mix")
    seen = views.batch(np.arange(20), np.full(20, 7))
    assert all(torch.equal(seen[name], views.inputs[name]) for name in seen)


class Worded(nn.Module):
    """Looks its words up in a table, and weighs pictures beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(64, 4)

    def forward(self, image: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.table(words.long()).mean(1) + self.head(image.flatten(1))
        return result


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_rows_of_a_table_are_not_mixed_whatever_their_type(dtype: torch.dtype) -> None:
    network = trace(Worded().eval(), {"image": pictures(2), "words": torch.ones(2, 3, dtype=dtype)})
    idle = without_effect(("mix", "mirror"), network)
    assert idle == {"mix": "the input 'words' holds whole numbers, and nothing lies between two of them"}
    alone = trace(nn.Linear(4, 2).eval(), (torch.zeros(2, 4),))
    assert without_effect(("mix", "mirror"), alone) == {"mirror": "no input holds images"}
    assert without_effect((), alone) == {}


def test_another_seed_gives_other_views() -> None:
    images = pictures(30)
    one, other = (batch(Views({"image": images}, 2, seed), list(range(30)), [1] * 30) for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_another_process_gives_the_same_views() -> None:
    program = (
        "import hashlib, numpy as np, torch; from slimline.training.views import Views\n"
        "x = torch.arange(3 * 3 * 14 * 14.0).reshape(3, 3, 14, 14) / 100\n"
        "v = Views({'image': x}, 0, 5, 'mix,mirror,shift,rotate,scale,light,erase')\n"
        "digest = hashlib.sha256(v.batch(np.arange(3), np.array([1, 9, 2]))['image'].numpy()).hexdigest()"
    )
    torch.manual_seed(123)  # the other process has another global state
    here: dict[str, str] = {}
    exec(program, here)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program + "; print(digest)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here["digest"]
    assert len(here["digest"]) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_shape_and_type_stay_and_nothing_is_clipped(dtype: torch.dtype, channels: int) -> None:
    images = (pictures(40, channels) * 100).to(dtype)
    seen = Views({"image": images}, 2, augment=EVERYTHING).batch(np.arange(40), np.ones(40, np.int64))["image"]
    assert seen.shape == images.shape and seen.dtype == dtype
    assert seen.min() < -100 and seen.max() > 100
    assert torch.isfinite(seen).all()


def test_images_of_one_sample_move_together() -> None:
    left = pictures(30, 3, side=14)
    right = left.flip(1) * 7 - 1000 * torch.ones(30, 3, 1, 1)
    inside = torch.ones(30, 1, 14, 14)
    views = Views({"left": left, "right": right, "inside": inside}, 3, augment="mirror,shift,rotate,scale")
    seen = views.batch(np.arange(30), np.tile([1, 2], 15))
    expected = seen["left"].flip(1) * 7 - 1000 * seen["inside"]  # movements are linear, and zeros move into all
    assert torch.allclose(seen["right"], expected, atol=1e-2)
    assert not torch.allclose(seen["right"], right, atol=100)


def test_torchs_own_random_numbers_are_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Views({"image": pictures(4)}, 3, augment=EVERYTHING).batch(np.arange(4), np.array([1, 2, 1, 0]))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("augment", ["image", *EVERYTHING, EVERYTHING])
@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_channels_on_the_last_axis_make_no_difference(
    augment: str | tuple[str, ...], channels: int, dtype: torch.dtype
) -> None:
    first = (torch.rand(24, channels, 10, 14) * torch.arange(1, channels + 1).view(-1, 1, 1)).to(dtype)
    last = first.permute(0, 2, 3, 1).contiguous()
    index, view = np.arange(24), np.tile([0, 1, 2], 8)
    expected = Views({"image": first}, 3, 5, augment).batch(index, view)["image"]
    seen = Views({"image": last}, 3, 5, augment, {"image": 3}).batch(index, view)["image"]
    assert torch.equal(seen, expected.permute(0, 2, 3, 1)) and seen.is_contiguous() and seen.dtype == dtype
    assert torch.equal(seen[::3], last[::3]) and not torch.equal(seen, last)


def test_a_mirrored_image_with_its_channels_last_keeps_its_colours_and_the_order_of_its_rows() -> None:
    """Red only, brighter to the right, and brighter still from row to row; seen with numpy's flip."""
    image = np.zeros((1, 28, 28, 3), np.float32)
    image[0, :, :, 0] = np.arange(1, 29)[None] + 100 * np.arange(28)[:, None]
    views = Views({"image": torch.from_numpy(np.repeat(image, 40, 0))}, 2, augment="mirror", axes={"image": 3})
    seen = batch(views, list(range(40)), [1] * 40)
    kinds = [(np.array_equal(x, image[0]), np.array_equal(x, np.flip(image[0], 1))) for x in seen]
    assert set(kinds) == {(True, False), (False, True)}


def test_images_of_both_layouts_in_one_sample_move_together() -> None:
    left = pictures(30, 3, side=14)
    views = Views({"left": left, "right": left.permute(0, 2, 3, 1)}, 2, augment=EVERYTHING, axes={"right": 3})
    seen = views.batch(np.arange(30), np.ones(30, np.int64))
    assert torch.equal(seen["right"], seen["left"].permute(0, 2, 3, 1))


def test_the_identity_tells_the_layout_only_where_it_counts() -> None:
    def known(axes: dict[str, int | None], count: int = 2, image: torch.Tensor | None = None) -> str:
        return Views({"image": pictures(4) if image is None else image}, count, axes=axes).identity

    assert known({}) == known({"image": 1}) == known({"image": 1, "words": None})
    assert len({known({"image": 1}), known({"image": 3}), known({"image": None})}) == 3
    assert known({"image": 1}, 1) == known({"image": 3}, 1)  # nothing is changed, so nothing can differ
    words = torch.arange(8).view(4, 2)
    assert known({"image": None}, image=words) == known({}, image=words)
    assert known({}) != known({}, count=3)
    mixed = [Views({"image": pictures(4)}, 2, augment="mix", axes={"image": axis}).identity for axis in (1, 3, None)]
    assert len(set(mixed)) == 1


def test_inputs_that_are_no_images_are_the_same_in_every_view() -> None:
    inputs = {
        "image": pictures(5),
        "tokens": torch.arange(15).view(5, 3),
        "sound": torch.randn(5, 2, 9),
        "bytes": torch.randint(0, 255, (5, 1, 8, 8), dtype=torch.uint8),
        "numbers": torch.randn(5, 3),
        "table": torch.randn(5, 2, 9, 9),
    }
    axes = {"image": 1, "tokens": None, "sound": None, "bytes": None, "numbers": None, "table": None}
    seen = Views(inputs, count=3, augment=EVERYTHING, axes=axes).batch(np.array([4, 0, 4]), np.array([0, 1, 2]))
    assert seen["tokens"].tolist() == [[12, 13, 14], [0, 1, 2], [12, 13, 14]]
    assert all(torch.equal(seen[name], inputs[name][[4, 0, 4]]) for name in ("sound", "bytes", "numbers", "table"))
    assert not torch.equal(seen["image"][2], inputs["image"][4])


def test_one_view_is_the_samples_in_the_order_asked_for_and_needs_no_kornia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    views = Views({"image": torch.randn(5, 1, 8, 8)})
    assert len(views) == 5
    assert torch.equal(views.batch(np.array([3, 1]), np.zeros(2, np.int64))["image"], views.inputs["image"][[3, 1]])
