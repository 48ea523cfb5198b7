"""Synthetic inputs have the statistics and the classes that the network was trained with, and harm nothing."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from slimline.training import synthetic
from slimline.training.synthetic import FEWEST, STEPS, statistics_loss, synthesize, variation
from tests.toys import CLASSES, Toy, patterns, toy


def noise_like(network: Network, count: int) -> Tensor:
    """Images of white noise with the mean and the deviation of the examples."""
    example = network.examples["image"]
    drawn = np.random.default_rng(9).normal(float(example.mean()), float(example.std()), (count, *example.shape[1:]))
    return torch.from_numpy(drawn.astype(np.float32))


def furthest(weights: Mapping[str, Tensor], images: Tensor) -> list[float]:
    """By norm, how many kept deviations the batch's means lie off, plus how far its deviations do (in logarithms).

    Read by hooks on the module that the network was traced from.
    """
    model = Toy().eval()
    model.load_state_dict(dict(weights), strict=False)
    found = []

    def hook(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        x = inputs[0].detach().transpose(0, 1).flatten(1).double()
        kept = norm.running_var.double().sqrt()
        off = (x.mean(1) - norm.running_mean).abs() / kept + (x.std(1) / kept).log().abs()
        found.append(float(off.mean()))

    for norm in (model.stem_norm, model.inner_norm):
        norm.register_forward_pre_hook(hook)
    with torch.no_grad():
        model(images)
    return found


def test_the_batch_has_the_statistics_that_the_norms_have_kept_and_noise_has_not() -> None:
    network = toy()
    images = synthesize(network, 128, seed=0)["image"]
    assert images.shape == (128, 1, 8, 8) and images.dtype is torch.float32
    ours, noise = (furthest(network.weights(), x) for x in (images, noise_like(network, 128)))
    assert all(a < 0.15 for a in ours), ours
    assert np.mean(ours) < 0.3 * np.mean(noise), (ours, noise)


def test_every_class_is_answered_equally_often() -> None:
    network = toy()

    def counts(images: Tensor) -> list[int]:
        return torch.bincount(network.run({"image": images})[0].argmax(1), minlength=CLASSES).tolist()

    assert max(abs(n - 16) for n in counts(synthesize(network, 64, seed=1)["image"])) <= 3
    assert max(counts(noise_like(network, 64))) > 30


def test_every_class_is_wanted_equally_often_and_most() -> None:
    shares = synthetic._targets(11, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shares.sum(1), torch.ones(11))
    assert sorted(torch.bincount(shares.argmax(1), minlength=4).tolist()) == [2, 3, 3, 3]
    assert float(shares.max(1)[0].min()) > 0.5 and set((shares > 0).sum(1).tolist()) <= {1, 2}


def test_the_seed_decides_and_the_global_generator_stays() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = synthesize(toy(), 20, seed=3)["image"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(synthesize(toy(), 20, seed=3)["image"], first)
    other = synthesize(toy(), 20, seed=4)["image"]
    assert not torch.isclose(other, first).all(dim=(1, 2, 3)).any()


def test_samples_differ_from_each_other() -> None:
    images = synthesize(toy(), 32, seed=0)["image"].flatten(1)
    apart = torch.cdist(images, images) + 1e9 * torch.eye(32)
    assert float(apart.min()) > 0.2 * float(images.std()) * math.sqrt(images.shape[1])


@pytest.mark.parametrize("training", [False, True])
def test_the_network_stays_as_it_was(training: bool) -> None:
    network = toy().set_training_(training)
    before, wants = network.digest(), [p.requires_grad for p in network.module.parameters()]
    example = network.examples["image"].clone()
    images = synthesize(network, 10, seed=0)["image"]
    assert network.digest() == before and network.is_training() == training
    assert [p.requires_grad for p in network.module.parameters()] == wants and all(wants)
    assert all(p.grad is None for p in network.module.parameters()) and not images.requires_grad
    assert torch.equal(network.examples["image"], example)


def test_a_network_in_training_mode_gives_the_same_inputs() -> None:
    assert torch.equal(synthesize(toy().set_training_(True), 10, 0)["image"], synthesize(toy(), 10, 0)["image"])


@pytest.mark.parametrize("count", [1, 7, FEWEST + 1, 2 * FEWEST + 3])
def test_any_count_in_batches_that_fit_into_memory(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "LARGEST_MEMORY", 1)
    monkeypatch.setattr(synthetic, "STEPS", 3)
    sizes: list[int] = []
    plain = synthetic.statistics_loss

    def spy(x: Tensor, *others: object) -> Tensor:
        sizes.append(len(x))
        return plain(x, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(synthetic, "statistics_loss", spy)
    told: list[tuple[int, int]] = []
    images = synthesize(toy(), count, 0, lambda done, total: told.append((done, total)))["image"]
    assert len(images) == count and images.isfinite().all()
    batches = math.ceil(count / FEWEST)
    assert told == [(i + 1, 3 * batches) for i in range(3 * batches)]
    # Equal batches: the statistics of a last one of two samples would say nothing.
    assert max(sizes) <= FEWEST and max(sizes) - min(sizes) <= 1 and sum(sizes) == 2 * 3 * count


class Words(nn.Module):
    """Two tables of words, of which one is shorter, a table of kinds, and masks; with a norm behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.more = nn.Embedding(50, 6), nn.Embedding(45, 6)
        self.kinds, self.norm = nn.Embedding(3, 6), nn.BatchNorm1d(6)

    def forward(self, ids: Tensor, kind: Tensor, mask: Tensor, keep: Tensor, hour: Tensor) -> Tensor:
        x = self.words(ids.to(torch.int64)) + self.more(ids) + self.kinds(kind.view(-1, 5))
        x = x * mask[:, :, None] * keep[:, :, None]
        result: Tensor = self.norm(x.mean(1)) * hour
        return result


def sentences() -> Network:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    ids = torch.tensor([[1, 2, 3, 3, 2], [0, 1, 1, 2, 2]], dtype=torch.int32)
    inputs = {"ids": ids, "kind": torch.zeros(2, 5, dtype=torch.int64), "mask": mask, "keep": mask > 0}
    return trace(Words(), {**inputs, "hour": torch.tensor([[3], [7]])})


def test_whole_numbers_are_drawn_from_what_the_network_accepts() -> None:
    network = sentences()
    found = synthesize(network, 100, seed=0)
    assert list(found) == ["ids", "kind", "mask", "keep", "hour"]
    assert {name: x.dtype for name, x in found.items()} == {n: x.dtype for n, x in network.examples.items()}
    assert found["ids"].shape == (100, 5) and set(found["ids"].flatten().tolist()) == set(range(45))
    assert set(found["kind"].flatten().tolist()) == {0, 1, 2}
    assert set(found["hour"].flatten().tolist()) == {3, 4, 5, 6, 7}
    for name in ("mask", "keep"):
        rows = {tuple(row) for row in network.examples[name].tolist()}
        assert {tuple(row) for row in found[name].tolist()} == rows
    assert network.run(found)[0].isfinite().all()


def test_progress_is_told_where_nothing_is_optimised() -> None:
    told: list[tuple[int, int]] = []
    synthesize(sentences(), 3, 0, lambda done, total: told.append((done, total)))
    assert told[-1] == (STEPS, STEPS)


class Sound(nn.Module):
    """A classifier of sounds without any norm; it can end in a softmax."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(2, 12, 5), nn.Linear(12, 3)
        with torch.no_grad():
            self.last.weight.mul_(20)  # one that is sure of itself, as trained ones are, about sounds around zero
            self.last.bias.zero_()
        self.softmax = softmax

    def forward(self, sound: Tensor) -> Tensor:
        result: Tensor = self.last(self.first(sound).relu().mean(2))
        return result.softmax(1) if self.softmax else result


@pytest.mark.parametrize("softmax", [False, True])
def test_without_norms_inputs_have_the_moments_of_the_examples_and_balanced_classes(softmax: bool) -> None:
    torch.manual_seed(0)
    example = 0.1 + 0.5 * torch.randn(8, 2, 40)
    network = trace(Sound(softmax).eval(), {"sound": example})
    sound = synthesize(network, 60, seed=0)["sound"]
    assert abs(float(sound.mean()) - 0.1) < 0.15 and abs(float(sound.std()) - 0.5) < 0.15
    assert torch.bincount(network.run({"sound": sound})[0].argmax(1), minlength=3).min() >= 15
    assert torch.bincount(network.run({"sound": example})[0].argmax(1), minlength=3).min() == 0


def test_a_softmax_at_the_end_changes_nothing() -> None:
    def sound(softmax: bool) -> Tensor:
        torch.manual_seed(0)
        network = trace(Sound(softmax).eval(), {"sound": torch.randn(8, 2, 40)})
        return synthesize(network, 16, seed=0)["sound"]

    assert float((sound(True) - sound(False)).abs().mean()) < 0.02


def test_folding_loses_the_statistics_so_synthesize_before() -> None:
    network = toy()
    folded = FoldBatchNorm().apply(network).network
    before, after = (furthest(network.weights(), synthesize(n, 64, 0)["image"]) for n in (network, folded))
    assert np.mean(before) < 0.7 * np.mean(after)


def test_images_stay_within_the_range_of_the_examples() -> None:
    network = toy()
    network.examples["image"] = network.examples["image"].clamp(-1.5, 1.0)
    images = synthesize(network, 16, seed=0)["image"]
    assert float(images.min()) == -1.5 and float(images.max()) == 1.0


def test_images_become_about_as_smooth_as_the_examples() -> None:
    def roughness(examples: Tensor) -> float:
        network = toy()
        network.examples["image"] = examples / examples.std(correction=0)
        images = synthesize(network, 32, seed=0)["image"]
        return float((images[:, :, 1:] - images[:, :, :-1]).abs().mean() / images.std())

    ramp = torch.linspace(-1, 1, 8)[:, None] + torch.linspace(-1, 1, 8)
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert roughness(ramp.expand(2, 1, 8, 8)) < 0.75 * roughness(noise)


class Odd(nn.Module):
    """Takes doubles and a constant; a root whose slope is infinite or not a number where the input is not positive."""

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        return torch.cat([(x.relu() + 0 * x).sqrt(), x], 1) * rate


class Coloured(nn.Module):
    """A classifier of images (N, 3, 9, 12) with two norms, which adds two numbers and words; and an image that is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.two, self.words = nn.Linear(8, 4), nn.Embedding(9, 4)

    def forward(self, image: Tensor, numbers: Tensor, words: Tensor, ones: Tensor) -> Tensor:
        x = self.norm(self.one(image * ones)).relu().mean((2, 3))
        result: Tensor = self.two(x) + numbers.sum(1, keepdim=True) + self.words(words).mean(1)
        return result


class ColouredLast(nn.Module):
    """The same for images (N, 9, 12, 3)."""

    def __init__(self, inner: Coloured) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor, numbers: Tensor, words: Tensor, ones: Tensor) -> Tensor:
        result: Tensor = self.inner(image.permute(0, 3, 1, 2), numbers, words, ones.permute(0, 3, 1, 2))
        return result


@pytest.mark.parametrize("norms", [True, False])
def test_images_with_their_channels_last_are_made_as_those_with_them_first(norms: bool) -> None:
    torch.manual_seed(0)
    model = Coloured().eval()
    model.norm.running_var.fill_(0.3)  # type: ignore[union-attr]
    if not norms:
        model.norm = nn.Identity()  # type: ignore[assignment]
    inputs = {
        "image": torch.randn(4, 3, 9, 12).cumsum(3) * torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1),
        "numbers": torch.randn(4, 2),
        "words": torch.tensor([[3, 4]] * 4),
        "ones": torch.ones(4, 3, 9, 12),
    }
    first = synthesize(trace(model, inputs), 24, seed=3)
    turned = {name: x.permute(0, 2, 3, 1).contiguous() if x.ndim == 4 else x for name, x in inputs.items()}
    last = synthesize(trace(ColouredLast(model), turned), 24, seed=3)
    assert last["image"].shape == (24, 9, 12, 3) and all(x.is_contiguous() for x in last.values())
    assert torch.equal(last["image"], first["image"].permute(0, 2, 3, 1))
    assert torch.equal(last["ones"], torch.ones(24, 9, 12, 3))
    assert torch.equal(last["numbers"], first["numbers"]) and torch.equal(last["words"], first["words"])


def test_a_network_that_reads_its_image_with_the_channels_last_gets_blobs_over_height_and_width() -> None:
    """Smoothness is about places: neighbours on both of these axes are alike, and channels are not."""
    example = np.linspace(-1, 1, 12)[:, None] + np.linspace(-1, 1, 10)
    colours = torch.from_numpy(np.stack([example, -example, example.mean() * 0 + example[::-1]], 2)).float()

    class Colours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.layer(x.permute(0, 3, 1, 2)).mean((2, 3))
            return result

    x = synthesize(trace(Colours(), {"x": colours.expand(2, 12, 10, 3)}), 32, seed=0)["x"].numpy()
    down, across, between = (float(np.abs(np.diff(x, axis=axis)).mean()) for axis in (1, 2, 3))
    assert max(down, across) < 0.6 * between


def test_types_are_kept_constants_copied_and_slopes_that_are_no_numbers_do_no_harm() -> None:
    inputs = {"x": torch.randn(2, 4, dtype=torch.float64), "rate": torch.full((2, 1), 16000.0)}
    found = synthesize(trace(Odd(), inputs), 12, seed=0)
    assert found["x"].dtype is torch.float64 and found["rate"].dtype is torch.float32
    assert found["x"].isfinite().all() and torch.equal(found["rate"], torch.full((12, 1), 16000.0))


def test_networks_that_draw_numbers_do_not_disturb_the_generator_either() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    network = trace(Noisy(), [torch.randn(2, 4)])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = synthesize(network, 5, seed=0)["x"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(synthesize(network, 5, seed=0)["x"], first)


def test_bf16_reaches_the_statistics_too() -> None:
    network = toy()
    ours = furthest(network.weights(), synthesize(network, 128, 0, precision="bf16")["image"])
    assert all(a < 0.2 for a in ours), ours


def test_pruned_layers_refitted_on_synthetic_images_answer_real_ones() -> None:
    """The whole chain without data: what is cut, and what makes up for it, comes from synthetic images alone."""
    network = toy()
    x, y = patterns(400, seed=8)

    def accuracy_after(images: Tensor) -> float:
        data = {"image": images.numpy()}
        method = PruneChannels(keep=0.5, importance="obs", reconstruct=len(images))
        pruned = method.apply(network, Task(validate=data, train=data, score="agreement")).network
        return float((pruned.run({"image": torch.from_numpy(x)})[0].argmax(1).numpy() == y).mean())

    whole = float((network.run({"image": torch.from_numpy(x)})[0].argmax(1).numpy() == y).mean())
    assert accuracy_after(synthesize(network, 128, seed=0)["image"]) > whole - 0.03


def test_the_statistics_term_by_hand() -> None:
    """Means off by one deviation and by none, deviations twice and once those kept: (1 + 1 + 0 + 0) / 2."""
    x = torch.tensor([[3.0 + 4.0, 5.0 - 1.0], [3.0, 5.0 + 1.0]])  # deviations 2 and 1, means 5 and 5
    assert float(statistics_loss(x, torch.tensor([4.0, 5.0]), torch.tensor([1.0, 1.0]), 0.0)) == pytest.approx(1.0)
    maps = x[:, :, None, None].expand(2, 2, 3, 3)
    assert float(statistics_loss(maps, torch.tensor([4.0, 5.0]), torch.ones(2), 0.0)) == pytest.approx(1.0)


def test_the_variation_of_a_ramp_is_its_slope() -> None:
    ramp = 3.0 * torch.arange(5.0)[:, None] + 2.0 * torch.arange(7.0)
    assert float(variation(ramp.expand(2, 1, 5, 7))) == pytest.approx(5.0)
    assert float(variation(torch.rand(2, 1, 1, 1))) == 0.0


class Plain(nn.Module):
    """Hands on what it gets."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(SlimlineError, match="0 synthetic samples were asked for: ask for at least one"):
        synthesize(toy(), 0, seed=0)
    for example in (torch.full((2, 3), torch.nan), torch.zeros(2, 0, dtype=torch.int64)):
        network = trace(Plain(), {"x": example})
        with pytest.raises(SlimlineError, match="example of the input x .shape.* range is unknown: load the network"):
            synthesize(network, 4, seed=0)
    with pytest.raises(SlimlineError, match="The input x holds complex numbers"):
        synthesize(trace(Plain(), {"x": torch.randn(2, 3, dtype=torch.complex64)}), 4, seed=0)


@pytest.mark.parametrize("faster", ["fp32", "bf16"])
def test_auto_is_the_precision_that_is_faster_here(faster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that runs twice as fast in one precision; the samples are those of the other."""
    real, clock = synthetic._Batch.optimise, [0.0]

    def optimise(self: Any, progress: Any, steps: int) -> Any:
        clock[0] += 1.0 if self.precision == faster else 2.0
        return real(self, progress, steps)

    monkeypatch.setattr(synthetic, "STEPS", 2)
    monkeypatch.setattr(synthetic._Batch, "optimise", optimise)
    monkeypatch.setattr(synthetic.time, "perf_counter", lambda: clock[0])
    found = synthesize(toy(), 8, 0, precision="auto")["image"]
    assert torch.equal(found, synthesize(toy(), 8, 0, precision=faster)["image"])


def test_a_precision_without_kernels_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = synthetic._Batch.loss

    def loss(self: Any, leaves: Any) -> Any:
        if self.precision == "bf16":
            raise RuntimeError("not implemented for 'BFloat16'")
        return real(self, leaves)

    monkeypatch.setattr(synthetic, "STEPS", 2)
    monkeypatch.setattr(synthetic._Batch, "loss", loss)
    found = synthesize(toy(), 8, 0, precision="auto")["image"]
    assert torch.equal(found, synthesize(toy(), 8, 0)["image"])
