"""Clusters against exact dynamic programming, bytes against arithmetic, files in both runtimes, a training step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.distill.distill import Distill
from slimline.methods.recipe import Recipe
from slimline.methods.share.codebook import ShareWeights, bounds, digits, kmeans, pack
from slimline.network import container
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.registry import open_artifact
from tests.runtimes.networks import exported
from tests.toys import patterns, toy, toy_task

Floats = NDArray[np.float64]


def exact_error(values: Floats, clusters: int) -> float:
    """The smallest squared error there is: clusters of sorted numbers are runs, so dynamic programming finds it."""
    ordered = np.sort(values)
    sums, squares = (np.concatenate([[0], np.cumsum(p)]) for p in (ordered, ordered**2))

    def error(i: Any, j: Any) -> Any:
        return squares[j] - squares[i] - (sums[j] - sums[i]) ** 2 / (j - i)

    best = np.array([0.0, *(error(0, j) for j in range(1, len(ordered) + 1))])
    for _ in range(1, clusters):
        best = np.array(
            [
                best[j] if j < 2 else min(best[j], (best[1:j] + error(np.arange(1, j), j)).min())
                for j in range(len(ordered) + 1)
            ]
        )
    return float(best[-1])


def error_of(values: Tensor, centres: Tensor) -> float:
    """Of the nearest centre, whatever the bounds say."""
    return float((values.double()[:, None] - centres).square().min(1).values.sum())


def shapes_of_weights() -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    return {
        "normal": torch.from_numpy(rng.standard_normal(300)),
        "laplace": torch.from_numpy(rng.laplace(size=300)),
        "two humps": torch.from_numpy(np.concatenate([rng.normal(-3, 1, 200), rng.normal(2, 0.2, 100)])),
        "one far away": torch.from_numpy(np.append(rng.standard_normal(299), 40.0)),
    }


@pytest.mark.parametrize("name", shapes_of_weights())
@pytest.mark.parametrize("clusters", [2, 4, 16])
def test_the_error_is_near_the_smallest_there_is(name: str, clusters: int) -> None:
    values = shapes_of_weights()[name]
    best = exact_error(values.numpy(), clusters)
    ours = error_of(values, kmeans(values, clusters, 1000))
    assert best * (1 - 1e-9) <= ours <= 1.6 * best


@pytest.mark.parametrize("name", shapes_of_weights())
def test_every_round_lowers_the_error_and_the_last_is_a_fixed_point(name: str) -> None:
    values = shapes_of_weights()[name]
    errors = [error_of(values, kmeans(values, 16, rounds)) for rounds in range(12)]
    assert all(after <= before * (1 + 1e-12) for before, after in zip(errors, errors[1:], strict=False))
    centres = kmeans(values, 16, 1000)
    member = (values[:, None] - centres).abs().argmin(1)
    assert torch.equal(member, torch.bucketize(values, bounds(centres)))
    means = torch.stack([values[member == k].mean() for k in range(16)])
    torch.testing.assert_close(centres, means)  # none is empty


@pytest.mark.parametrize(("shape", "constant"), [("standard_normal", 3**0.5 * np.pi / 2), ("laplace", 9.0)])
def test_many_clusters_come_to_what_panter_and_dite_say(shape: str, constant: float) -> None:
    """The smallest error of N levels goes to (integral of p^(1/3))^3 / 12 N^2: pi sqrt(3) / 2 and 9 for these two."""
    values = torch.from_numpy(getattr(np.random.default_rng(5), shape)(size=50_000))
    error = error_of(values, kmeans(values, 256, 300)) / len(values)
    assert error == pytest.approx(constant / 256**2, rel=0.1)


def test_few_different_values_are_kept_exactly() -> None:
    values = torch.tensor([0.0, 0.001, 10.0, 10.0, 0.0, -3.0])
    assert error_of(values, kmeans(values, 4, 100)) < 1e-15
    assert error_of(values, kmeans(values, 6, 100)) < 1e-15  # two more than there are
    assert kmeans(torch.full((5,), 2.5), 3, 100).tolist() == [2.5, 2.5, 2.5]


@pytest.mark.parametrize("per_byte", [1, 2, 4, 8])
def test_bytes_hold_the_numbers_in_order(per_byte: int) -> None:
    bits = 8 // per_byte
    numbers = np.random.default_rng(0).integers(0, 2**bits, (3, 21))
    packed = pack(torch.from_numpy(numbers), per_byte)
    assert packed.dtype == torch.uint8 and packed.shape == (3, -(-21 // per_byte))
    for row, found in zip(numbers, packed.numpy(), strict=True):
        text = "".join(f"{byte:08b}" for byte in found)
        assert [int(text[i : i + bits], 2) for i in range(0, 21 * bits, bits)] == row.tolist()
    looked_up = digits(per_byte).reshape(256, per_byte)[packed.long()].flatten(1)[:, :21]
    np.testing.assert_array_equal(looked_up, numbers)


def dense_weight(weight: Tensor, clusters: int, rows: int) -> Tensor:
    """What the layer's weight becomes, written out."""
    parts = []
    for part in weight.split(rows or len(weight)):  # type: ignore[no-untyped-call]
        centres = kmeans(part.flatten(), clusters, 1000)
        parts.append(centres[(part.double()[..., None] - centres).abs().argmin(-1)])
    return torch.cat(parts).to(weight.dtype)


@pytest.mark.parametrize(("clusters", "rows"), [(16, 0), (2, 0), (4, 0), (7, 5), (256, 0), (100, 10), (3, 1), (16, 24)])
def test_the_network_computes_with_the_nearest_values(clusters: int, rows: int) -> None:
    """Also where rows do not divide the 24 outputs, and 720 weights of 5 rows end in the middle of a byte."""
    network, x = toy(), torch.from_numpy(patterns(5, seed=1)[0])
    outcome = ShareWeights(clusters=clusters, rows=rows).apply(network)
    assert outcome.changed == ["inner"] and outcome.skipped["head"] == "has 64 weights, fewer than 1024"
    dense = toy()
    with torch.no_grad():
        weight = dense.weights()["inner.weight"]
        weight.copy_(dense_weight(weight.detach(), clusters, rows))
    ours, expected = (n.run({"image": x})[0] for n in (outcome.network, dense))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert "inner.weight" not in outcome.network.weights()


class Wide(nn.Module):
    """Four kinds of layers, one small enough for every constant folding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first = nn.Embedding(50, 64), nn.Linear(64, 96)
        self.conv, self.last = nn.Conv1d(96, 64, 3), nn.Linear(64, 50)

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.gelu(self.first(self.table(tokens)))
        x = self.conv(x.transpose(1, 2)).relu().transpose(1, 2)
        result: Tensor = self.last(x)
        return result


def wide() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trace(Wide(), {"tokens": torch.randint(0, 50, (2, 9))})


@pytest.mark.parametrize(("clusters", "bits"), [(16, 4), (200, 8)])
def test_files_shrink_by_what_was_promised_and_run_the_same(clusters: int, bits: int, tmp_path: Path) -> None:
    network = wide()
    shared = ShareWeights(clusters=clusters).apply(network)
    assert shared.changed == ["table", "first", "conv", "last"] and not shared.skipped
    weights = sum(t.numel() for n, t in network.weights().items() if n.endswith("weight"))
    others = sum(t.numel() for n, t in network.weights().items() if n.endswith("bias"))
    expected_bytes = weights * bits / 8 + 4 * others + 4 * 4 * 2**bits + 512 * (bits == 4)
    tokens = np.random.default_rng(0).integers(0, 50, (3, 9))
    expected = shared.network.run({"tokens": torch.from_numpy(tokens)})[0].numpy()
    artifact = exported(shared.network, "onnxruntime", tmp_path)
    assert artifact.size_bytes == pytest.approx(expected_bytes, rel=0.2)
    assert 4 * (weights + others) / artifact.size_bytes > 0.75 * 32 / bits
    for runtime in ("onnxruntime", "openvino"):
        runner = open_artifact(replace(artifact, runtime=runtime), threads=1)
        np.testing.assert_allclose(runner.run({"tokens": tokens})[0], expected, rtol=1e-4, atol=1e-5)
    stored = container.save(shared.network, tmp_path / "shared.slim")
    assert container.save(network, tmp_path / "dense.slim").stat().st_size > 0.5 * 32 / bits * stored.stat().st_size
    np.testing.assert_array_equal(container.load(stored).run({"tokens": torch.from_numpy(tokens)})[0], expected)


def test_no_weight_is_written_out_in_the_file(tmp_path: Path) -> None:
    artifact = exported(ShareWeights().apply(toy()).network, "onnxruntime", tmp_path)
    largest = max(
        np.prod(i.dims, dtype=int) * (4 if i.data_type == 1 else 1) for i in onnx.load(artifact.path).graph.initializer
    )
    assert largest == 24 * 16 * 9 // 2  # two weights of the inner layer in a byte


def test_the_gradient_of_a_value_is_the_sum_over_its_members() -> None:
    images, labels = (torch.from_numpy(a) for a in patterns(32, seed=4))
    shared, dense = ShareWeights().apply(toy()).network, toy()
    with torch.no_grad():
        weight = dense.weights()["inner.weight"]
        weight.copy_(dense_weight(weight.detach(), 16, 0))
    for network in (shared, dense):
        F.cross_entropy(network.module(images)[0], labels).backward()  # type: ignore[no-untyped-call]
    codebook = shared.weights()["inner.weight_codebook"]
    assert isinstance(codebook, nn.Parameter) and codebook.shape == (1, 16) and weight.grad is not None
    members = (weight.detach().flatten()[:, None] - codebook.detach()[0]).abs().argmin(1)
    sums = torch.zeros(16).index_add(0, members, weight.grad.flatten())
    assert codebook.grad is not None and float(sums.abs().max()) > 0
    torch.testing.assert_close(codebook.grad[0], sums, rtol=1e-4, atol=1e-6)


def test_what_is_trained_later_keeps_the_sharing() -> None:
    shared = ShareWeights().apply(toy()).network
    outcome = Recipe([Distill(epochs=0.5)]).apply(shared, toy_task(train=128).with_original(toy()))
    before, after = shared.weights(), outcome.network.weights()
    assert before.keys() == after.keys()
    assert not torch.equal(before["inner.weight_codebook"], after["inner.weight_codebook"])
    assert torch.equal(before["inner.weight_indices"], after["inner.weight_indices"])


class Odd(nn.Module):
    """A recurrent layer, a weight that is read twice and one with a hole."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.twice, self.broken = nn.LSTM(16, 16, batch_first=True), nn.Linear(16, 16), nn.Linear(16, 16)
        with torch.no_grad():
            self.broken.weight[0, 0] = float("inf")

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.broken(self.twice(self.twice(self.memory(x)[0])))
        return result


def test_why_layers_are_left_alone() -> None:
    network = trace(Odd(), {"x": torch.randn(2, 5, 16)})
    outcome = ShareWeights(smallest=200, clusters=4).apply(network)
    assert outcome.changed == ["twice"]
    assert outcome.skipped == {
        "memory.weight_ih_l0": "is read by aten.lstm.input",
        "memory.weight_hh_l0": "is read by aten.lstm.input",
        "broken": "has weights that are not finite",
    }
    outcome.network.verify()
    outcome = ShareWeights(smallest=1, clusters=200, rows=1).apply(network)
    assert outcome.skipped["twice"] == "would take 13056 bytes in place of 1024"


def test_mistakes_are_told_in_a_sentence() -> None:
    with pytest.raises(SlimlineError, match=r"ShareWeights\(layers=...\) names 'iner', .* near names: inner"):
        ShareWeights(layers=("iner",)).apply(toy())
    too_many = r"ShareWeights\(clusters=200\) is too many: one codebook of head stands for 64 weights; choose 2 to 63"
    with pytest.raises(SlimlineError, match=too_many):
        ShareWeights(clusters=200, layers=("head",)).apply(toy())
    for wrong in (1, 257, 2.5):
        with pytest.raises(SlimlineError, match="ShareWeights\\(clusters="):
            ShareWeights(clusters=wrong)  # type: ignore[arg-type]
