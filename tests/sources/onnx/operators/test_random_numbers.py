"""Random numbers: their moments, their seeds, and that no network is made of them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.network import from_onnx
from tests.sources.onnx.models import eager, model, write
from tests.sources.onnx.operators.one_node import node_model

MANY = np.full((200, 100), 0.25, np.float32)
KINDS = [
    ("RandomNormal", [], {"shape": [200, 100], "mean": 3.0, "scale": 2.0}, 3.0, 2.0),
    ("RandomUniform", [], {"shape": [200, 100], "low": -1.0, "high": 5.0}, 2.0, 6 / 12**0.5),
    ("RandomNormalLike", [MANY], {"mean": -1.0, "scale": 0.5}, -1.0, 0.5),
    ("RandomUniformLike", [MANY], {}, 0.5, 1 / 12**0.5),
    ("Bernoulli", [MANY], {}, 0.25, (0.25 * 0.75) ** 0.5),
]


@pytest.mark.parametrize(("kind", "inputs", "attributes", "mean", "deviation"), KINDS)
def test_moments(
    kind: str, inputs: list[np.ndarray], attributes: dict[str, Any], mean: float, deviation: float
) -> None:
    """Of 20,000 numbers the mean is within five standard errors."""
    (found,) = eager(node_model(kind, *inputs, seed=1.0, **attributes), *inputs)
    assert (found.shape, found.dtype) == ((200, 100), np.float32)
    assert abs(found.mean() - mean) < 5 * deviation / 20_000**0.5
    assert abs(found.std() / deviation - 1) < 0.03


def test_multinomial_draws_by_log_weight() -> None:
    weights = np.log(np.array([[1, 2, 5], [4, 0.0001, 4]], np.float32))
    (found,) = eager(node_model("Multinomial", weights, sample_size=20_000, seed=2.0), weights)
    shares = [np.bincount(row, minlength=3) / 20_000 for row in found]
    assert found.dtype == np.int32
    np.testing.assert_allclose(shares, [[1 / 8, 2 / 8, 5 / 8], [1 / 2, 0, 1 / 2]], atol=0.02)


def test_types() -> None:
    (found,) = eager(node_model("RandomNormalLike", MANY, dtype=onnx.TensorProto.DOUBLE), MANY)
    assert found.dtype == np.float64
    (drawn,) = eager(node_model("Bernoulli", MANY, dtype=onnx.TensorProto.BOOL), MANY)
    assert drawn.dtype == np.bool_


def test_the_seed_decides() -> None:
    def draw(**seed: float) -> np.ndarray:
        return eager(node_model("RandomNormal", shape=[5], **seed))[0]

    np.testing.assert_array_equal(draw(seed=1.5), draw(seed=1.5))
    assert (draw(seed=1.5) != draw(seed=2.5)).any()
    assert (draw() != draw()).any()


@pytest.mark.parametrize("kind", ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"])
def test_no_network_is_made_of_random_numbers(kind: str, tmp_path: Path) -> None:
    path = write(model([helper.make_node(kind, ["x"], ["y"])], {"x": ["n", 4]}, ["y"]), tmp_path)
    with pytest.raises(SlimlineError, match="draws random numbers.*export it in inference mode"):
        from_onnx(path)


def test_absurd_shapes_are_refused() -> None:
    with pytest.raises(SlimlineError, match="not plausible"):
        eager(node_model("RandomNormal", shape=[2**20, 2**20]))
