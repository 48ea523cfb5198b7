"""Images are read as their network reads them: the axis that its first convolution takes for channels is found."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.methods.quantize.static import QuantizeStatic
from slimline.network.axes import axis_groups, prune
from slimline.network.container import load, save
from slimline.network.image_axes import image_axes
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from tests.network.networks import NETWORKS, network_of, random_halves, samples
from tests.toys import toy, toy_channels_last

Step = Callable[[Tensor], Tensor]


class Conv(nn.Module):
    """A convolution behind whatever is done to the images before it."""

    def __init__(self, before: Step, channels: int, kind: str = "conv") -> None:
        super().__init__()
        self.before, self.norm = before, nn.BatchNorm2d(channels)
        kinds: dict[str, Callable[[], nn.Module]] = {
            "conv": lambda: nn.Conv2d(channels, 4, 1),
            "same": lambda: nn.Conv2d(channels, 4, 3, padding="same"),
            "depthwise": lambda: nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels),
            "transposed": lambda: nn.ConvTranspose2d(channels, 4, 2, stride=2),
            "norm first": lambda: nn.Sequential(self.norm, nn.Conv2d(channels, 4, 1)),
        }
        self.layer = kinds[kind]()
        self.scale, self.shift = nn.Buffer(torch.rand(3) + 0.5), nn.Buffer(torch.rand(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(self.before(x))
        return result


def traced(before: Step, shape: tuple[int, ...], channels: int = 3, kind: str = "conv") -> Network:
    return trace(Conv(before, channels, kind).eval(), {"x": torch.randn(2, *shape)})


# No axis has a size by which the fallback would get it right: 12 channels, or 3 and 4 at both ends.
LAST: dict[str, Step] = {
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "two transposes": lambda x: x.transpose(2, 3).transpose(1, 2),
    "height and width swapped": lambda x: x.transpose(1, 3),
    "movedim": lambda x: x.movedim(-1, 1),
    "movedim, several": lambda x: x.movedim((3, 1), (1, 2)),
    "moveaxis": lambda x: torch.moveaxis(x, 3, 1),
    "swapaxes": lambda x: x.swapaxes(-1, 1),
    "mT": lambda x: x.mT.transpose(1, 2),
    "scaled": lambda x: (x / 255 - 0.5).permute(0, 3, 1, 2),
    "subtracted from a number": lambda x: (1 - x).permute(0, 3, 1, 2),  # an operator without a rule
    "mirrored, then by its logarithm": lambda x: x.flip(2).abs().log1p().permute(0, 3, 1, 2),
    "normalised": lambda x: ((x - torch.arange(12.0)) / torch.full((1, 1, 1, 12), 3.0)).permute(0, 3, 1, 2),
    "chosen by a condition": lambda x: torch.where(x > 0, x, 0.1 * x).permute(0, 3, 1, 2),
    "padded": lambda x: F.pad(x, (0, 0, 1, 2, 3, 0)).permute(0, 3, 1, 2),
    "pooled": lambda x: F.avg_pool2d(x.permute(0, 3, 1, 2), 2),
    "resized": lambda x: F.interpolate(x.permute(0, 3, 1, 2), size=(6, 6), mode="bilinear"),
    "cropped": lambda x: x[:, 1:-1, 2:].permute(0, 3, 1, 2),
    "a pixel of two": lambda x: x[:, ::2, ::2].permute(0, 3, 1, 2),
    "with its positions": lambda x: torch.cat([x, torch.ones_like(x)], 3).permute(0, 3, 1, 2)[:, 6:18],
    "half precision": lambda x: x.half().float().permute(0, 3, 1, 2),
}


@pytest.mark.parametrize("way", LAST)
def test_channels_that_are_turned_to_axis_1_before_the_convolution_lie_on_the_last(way: str) -> None:
    assert image_axes(traced(LAST[way], (4, 10, 12), 12)) == {"x": 3}


@pytest.mark.parametrize("kind", ["same", "depthwise", "transposed", "norm first"])
def test_every_kind_of_convolution_tells(kind: str) -> None:
    assert image_axes(traced(lambda x: x.permute(0, 3, 1, 2), (4, 10, 12), 12, kind)) == {"x": 3}
    assert image_axes(traced(lambda x: x, (12, 10, 4), 12, kind)) == {"x": 1}


FIRST: dict[str, tuple[Step, int]] = {
    "as they are": (lambda x: x, 12),
    "there and back": (lambda x: (x.permute(0, 2, 3, 1) * torch.arange(12.0)).permute(0, 3, 1, 2), 12),
    "turned by a quarter": (lambda x: x.transpose(2, 3), 12),
    "colours in another order": (lambda x: x[:, [2, 1, 0, *range(3, 12)]], 12),
    "places of a patch side by side": (
        lambda x: x.view(-1, 12, 5, 2, 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 48, 5, 2),
        48,
    ),
    "pixels of a patch side by side": (
        lambda x: torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1),
        48,
    ),
}


@pytest.mark.parametrize("way", FIRST)
def test_channels_on_axis_1_stay_there_whatever_the_sizes(way: str) -> None:
    before, channels = FIRST[way]
    assert image_axes(traced(before, (12, 10, 4), channels)) == {"x": 1}  # the sizes alone would say 3


@pytest.mark.parametrize("name", [name for name in NETWORKS if len(samples(name, 1).shape) == 4])
def test_plain_networks_have_their_channels_on_axis_1(name: str) -> None:
    network = network_of(name)
    before = network.digest()
    assert image_axes(network) == {"x": 1}
    found = axis_groups(network)
    assert image_axes(prune(network, found, random_halves(found, 0))) == {"x": 1}
    assert network.digest() == before


@pytest.mark.parametrize("shape", [(28, 28, 1), (3, 100, 1), (4, 8, 1)])
def test_images_of_one_channel_that_are_turned_by_a_reshape_are_known_by_height_and_width(
    shape: tuple[int, int, int],
) -> None:
    """As importers do it, (N, 3, 100, 1) is (N, 1, 3, 100); the sizes alone would say that axis 1 are three colours."""
    network = traced(lambda x: x.reshape(-1, 1, *shape[:2]), shape, 1)
    assert image_axes(network) == {"x": 3}


def test_a_file_and_a_quantised_network_say_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    for network, axis in ((toy(), 1), (toy_channels_last(), 3)):
        images = np.random.default_rng(0).normal(size=(8, *network.examples["image"].shape[1:])).astype(np.float32)
        quantised = QuantizeStatic().apply(network, Task(validate={"image": images})).network
        path = tmp_path_factory.mktemp("slim") / "network.slim"
        save(network, path)
        assert [image_axes(n)["image"] for n in (network, quantised, load(path))] == [axis] * 3


class Patches(nn.Module):
    """Patches of 4 x 4 pixels through a linear layer, as in transformers that have no convolution."""

    def __init__(self, channels: int, turned: bool) -> None:
        super().__init__()
        self.layer, self.turned = nn.Linear(16 * channels, 6), turned

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2) if self.turned else x
        n, c, h, w = x.shape
        patches = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, 16 * c)
        result: Tensor = self.layer(patches)
        return result


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((8, 12, 3), 3), ((8, 12, 1), 3), ((8, 12, 4), 3), ((3, 8, 12), 1), ((1, 8, 12), 1),
        ((8, 8, 8), 1), ((8, 12, 16), 1), ((4, 8, 4), 1), ((3, 8, 4), 1), ((2, 8, 3), 3), ((8, 4, 2), 1),
    ],
)  # fmt: skip
def test_where_no_convolution_tells_the_sizes_do_and_in_doubt_it_is_axis_1(
    shape: tuple[int, int, int], axis: int
) -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).mean(1)

    assert image_axes(trace(Flat(), {"x": torch.randn(2, *shape)})) == {"x": axis}


def test_patches_cut_by_a_reshape() -> None:
    assert image_axes(trace(Patches(3, False), {"x": torch.randn(2, 3, 8, 12)})) == {"x": 1}
    assert image_axes(trace(Patches(3, True), {"x": torch.randn(2, 8, 12, 3)})) == {"x": 3}


class Spectrogram(nn.Module):
    """Frequencies are normalised as channels before a convolution reads (N, 1, time, frequencies)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm2d(12), nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(self.norm(x.transpose(1, 3)).transpose(1, 3))
        return result


def test_a_norm_over_frequencies_does_not_make_them_channels() -> None:
    assert image_axes(trace(Spectrogram().eval(), {"x": torch.randn(2, 1, 20, 12)})) == {"x": 1}


class Several(nn.Module):
    """Images of both kinds, and inputs that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.words = nn.Conv2d(6, 5, 1), nn.Conv2d(8, 5, 1), nn.Embedding(9, 5)

    def forward(
        self, words: Tensor, last: Tensor, numbers: Tensor, first: Tensor, gain: Tensor, whole: Tensor
    ) -> Tensor:
        x = self.one(first * gain[:, :, None, None]) + self.two(last.permute(0, 3, 1, 2))
        x = x.mean((2, 3)) + self.words(words).mean(1) + numbers
        return x + whole.float().mean((1, 2, 3))[:, None]


def test_every_input_is_told_for_itself_and_what_holds_no_images_is_none() -> None:
    inputs = {
        "words": torch.ones(2, 7, dtype=torch.int64),
        "last": torch.randn(2, 4, 10, 8),
        "numbers": torch.randn(2, 5),
        "first": torch.randn(2, 6, 4, 10),
        "gain": torch.randn(2, 6),
        "whole": torch.ones(2, 8, 8, 3, dtype=torch.uint8),
    }
    found = image_axes(trace(Several(), inputs))
    assert found == {"words": None, "last": 3, "numbers": None, "first": 1, "gain": None, "whole": None}
    assert list(found) == list(inputs)


def test_frequencies_that_a_convolution_reads_as_channels_are_no_layout_of_images() -> None:
    """(N, 1, frequencies, time) becomes (N, frequencies, 1, time): the image is the spectrogram all the same."""
    assert image_axes(traced(lambda x: x.transpose(1, 2), (1, 12, 30), 12)) == {"x": 1}
