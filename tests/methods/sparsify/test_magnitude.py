"""The smallest weights become zero, as many as asked for; and what that is worth in bytes."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.methods.sparsify.magnitude import SparsifyMagnitude, below
from slimline.methods.sparsify.patterns import pattern_of
from slimline.network import container
from slimline.runtimes.registry import get_runtime
from tests.methods.sparsify.checks import chosen, slow_zeros, zero_masks
from tests.toys import toy


def matrix(name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """A weight of the toy as (outputs, places of the kernel * channels), with loops."""
    weight = toy().weights()[f"{name}.weight"].detach().double().numpy()
    weight = weight.reshape(*weight.shape[:2], -1)
    outputs, inputs, places = weight.shape
    return np.array([[weight[o, i, k] for k in range(places) for i in range(inputs)] for o in range(outputs)])


def as_matrix(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    flat = mask.reshape(*mask.shape[:2], -1)
    return flat.transpose(0, 2, 1).reshape(len(mask), -1)


@pytest.mark.parametrize(
    ("pattern", "sparsity"), [("any", 0.3), ("any", 0.85), ("2:4", 0.5), ("1x4", 0.6), ("4x4", 0.4)]
)
def test_the_zeros_of_each_layer_are_those_of_the_slow_twin(pattern: str, sparsity: float) -> None:
    before = toy()
    outcome = SparsifyMagnitude(sparsity=sparsity, pattern=pattern).apply(before)
    fits = ["stem", "inner", "outer", "head"][0 if pattern == "any" else 1 :]
    assert outcome.changed == fits and set(outcome.skipped) == {"stem"} - set(fits)
    masks = zero_masks(outcome.network.verify())
    for name in fits:
        expected = slow_zeros(abs(matrix(name)), sparsity, pattern)
        np.testing.assert_array_equal(as_matrix(masks[f"{name}.weight"]), expected)
    for name, weight in outcome.network.weights().items():
        left = torch.from_numpy(~masks[name]) if name in masks else torch.ones_like(weight, dtype=torch.bool)
        assert torch.equal(weight[left], before.weights()[name][left])


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77])
def test_of_all_layers_together_the_lowest_go(sparsity: float) -> None:
    """Pooled and sorted in Python; layers with larger weights keep more of them."""
    names = ["stem", "inner", "outer", "head"]
    outcome = SparsifyMagnitude(sparsity=sparsity, scope="network").apply(toy())
    pooled = [abs(x) for name in names for x in matrix(name).flatten().tolist()]
    expected = chosen(pooled, round(sparsity * len(pooled)))
    masks = zero_masks(outcome.network)
    gone = np.concatenate([as_matrix(masks[f"{name}.weight"]).flatten() for name in names])
    assert set(np.flatnonzero(gone).tolist()) == expected
    shares = [masks[f"{name}.weight"].mean() for name in names]
    assert max(shares) > 1.2 * min(shares)


def test_a_threshold_takes_what_is_below_it_and_no_more() -> None:
    outcome = SparsifyMagnitude(sparsity=0.0, threshold=0.05).apply(toy())
    for name, mask in zero_masks(outcome.network).items():
        np.testing.assert_array_equal(mask, (toy().weights()[name].detach().abs() < 0.05).numpy())


def test_share_and_threshold_take_what_either_asks_for() -> None:
    masks = [
        zero_masks(SparsifyMagnitude(sparsity=s, threshold=t).apply(toy()).network)
        for s, t in ((0.2, 0.0), (0.0, 0.1), (0.2, 0.1))
    ]
    for name, both in masks[2].items():
        np.testing.assert_array_equal(both, masks[0][name] | masks[1][name])


def test_of_blocks_the_mean_is_compared_with_the_threshold() -> None:
    magnitudes = torch.tensor([[0.1, 0.5, 0.4, 0.4], [0.1, 0.5, 0.1, 0.3]])
    assert below(magnitudes, 0.301, pattern_of("2x2")).tolist() == [[True, True, True, True]] * 2
    assert below(magnitudes, 0.3, pattern_of("1x2")).tolist() == [[False] * 4, [False, False, True, True]]
    assert below(magnitudes, 0.2, pattern_of("2:4")).tolist() == [
        [True, False, False, False],
        [True, False, True, False],
    ]


def test_nothing_asked_for_changes_nothing() -> None:
    outcome = SparsifyMagnitude(sparsity=0.0).apply(toy())
    assert outcome.changed == []
    assert all(torch.equal(w, toy().weights()[name]) for name, w in outcome.network.weights().items())


def test_everything_asked_for_leaves_nothing() -> None:
    assert all(mask.all() for mask in zero_masks(SparsifyMagnitude(threshold=1e9).apply(toy()).network).values())


@pytest.mark.parametrize("values", [{"sparsity": 1.0}, {"threshold": math.inf}, {"threshold": math.nan}])
def test_nothing_but_zeros_is_not_meant(values: dict[str, float]) -> None:
    with pytest.raises(SlimlineError, match=r"SparsifyMagnitude\(.*(out of range|no finite number)"):
        SparsifyMagnitude(**values)  # type: ignore[arg-type]


def test_zeros_shrink_what_is_packed_and_nothing_else(tmp_path: Path) -> None:
    """An .onnx and a .slim store every zero in four bytes; of their .gz about as much goes as became zero."""
    sizes = []
    for network in (toy(), SparsifyMagnitude(sparsity=0.9).apply(toy()).network):
        folder = tmp_path / str(len(sizes))
        folder.mkdir()
        files = [get_runtime("onnxruntime").export(network, folder), container.save(network, folder / "a.slim")]
        sizes.append([len(f.read_bytes()) for f in files] + [len(gzip.compress(f.read_bytes())) for f in files])
    (onnx, slim, onnx_gz, slim_gz), (onnx_after, slim_after, onnx_gz_after, slim_gz_after) = sizes
    assert onnx_after >= 0.99 * onnx and slim_after >= 0.99 * slim
    assert onnx_gz_after < 0.5 * onnx_gz and slim_gz_after < 0.5 * slim_gz
