"""Which weight holds which variable is told from arrays alone."""

import numpy as np
import pytest

from slimline.sources.keras_match import Array, Norm, match

RNG = np.random.default_rng(0)


def some(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def written(
    variables: dict[str, Array], weights: dict[str, Array], norms: list[Norm] | None = None
) -> dict[str, Array]:
    """All variables that the weights become again."""
    found = match(variables, weights, norms or [])
    assert set(found.inverses) == set(weights)
    return {path: value for name, inverse in found.inverses.items() for path, value in inverse(weights[name]).items()}


@pytest.mark.parametrize(
    ("kernel", "weight"),
    [
        (k := some(3, 3, 4, 8), k.transpose(3, 2, 0, 1)),
        (k := some(3, 3, 4, 1), k.transpose(2, 3, 0, 1)),
        (k := some(1, 1, 4, 4), k.transpose(3, 2, 0, 1)),
        (k := some(1, 1, 1, 5), k.transpose(3, 2, 0, 1)),
        (k := some(6, 6), k.T),
        (k := some(6, 6), k),
        (k := some(5, 2, 3), k.reshape(5, 6).T),
        (k := some(2, 3, 5), k.reshape(6, 5)),
        (k := some(1, 1), k),
    ],
)
def test_a_kernel_is_found_however_it_was_turned(kernel: Array, weight: Array) -> None:
    bias = some(8)
    variables = {"layer/kernel": kernel, "layer/bias": bias, "other/kernel": some(7, 9)}
    got = written(variables, {"x.weight": weight, "x.bias": bias})
    assert set(got) == {"layer/kernel", "layer/bias"}
    np.testing.assert_array_equal(got["layer/kernel"], kernel)
    np.testing.assert_array_equal(got["layer/bias"], bias)


def test_another_width_goes_back_along_the_same_axes() -> None:
    kernel = some(3, 2, 4, 8)
    found = match({"c/kernel": kernel}, {"w.weight": kernel.transpose(3, 2, 0, 1)}, [])
    narrow = kernel[:, :, [0, 2]][..., [5]]
    got = found.inverses["w.weight"](np.ascontiguousarray(narrow.transpose(3, 2, 0, 1)))["c/kernel"]
    np.testing.assert_array_equal(got, narrow)
    assert not found.fixed_shape


def test_merged_axes_keep_their_shape() -> None:
    kernel = some(5, 2, 3)
    assert match({"c/kernel": kernel}, {"w.weight": kernel.reshape(5, 6).T}, []).fixed_shape == {"w.weight"}


@pytest.mark.parametrize("parts", [("gamma", "beta"), ("beta",), ("gamma",), ()])
@pytest.mark.parametrize("axis", [3, 2])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_folded_norm_becomes_one_that_adds(parts: tuple[str, ...], axis: int, with_bias: bool) -> None:
    """The written layer and norm compute what the folded layer does: y = (x * K + c) s' + t' for any product x * K."""
    channels, epsilon = 4, 1e-3
    kernel = some(3, 3, 4, 4) if axis == 3 else some(3, 3, 4, 1)
    norm = {"moving_mean": some(channels), "moving_variance": np.abs(some(channels)) + 0.5}
    norm |= {part: some(channels) for part in parts}
    variables = {"c/kernel": kernel, **{f"n/{k}": v for k, v in norm.items()}}
    variables |= {"c/bias": some(channels)} if with_bias else {}
    scale = norm.get("gamma", 1) / np.sqrt(norm["moving_variance"] + epsilon)
    shift = norm.get("beta", 0) + scale * (variables.get("c/bias", 0) - norm["moving_mean"])
    order = (3, 2, 0, 1) if axis == 3 else (2, 3, 0, 1)
    folded = (kernel * (scale if axis == 3 else scale[:, None])).transpose(order).astype(np.float32)
    new = {"w.weight": folded * 2, "w.bias": some(channels)}
    found = match(variables, {"w.weight": folded, "w.bias": shift.astype(np.float32)}, [Norm("n", epsilon)])
    got = {p: v for name, inverse in found.inverses.items() for p, v in inverse(new[name]).items()}
    assert set(got) == set(variables)  # nothing else exists in the Keras model
    s = got.get("n/gamma", 1) / np.sqrt(got["n/moving_variance"] + epsilon)
    t = got.get("n/beta", 0) + s * (got.get("c/bias", 0) - got["n/moving_mean"])
    np.testing.assert_allclose(s, np.ones(channels), rtol=1e-6)
    np.testing.assert_allclose(t, new["w.bias"], rtol=1e-6)
    np.testing.assert_array_equal(got["c/kernel"], (folded * 2).transpose(np.argsort(order)))


def test_what_is_not_there_is_not_found() -> None:
    kernel = some(4, 8)
    assert match({"d/kernel": kernel}, {"w.weight": kernel.T + 0.01, "v.weight": some(8, 5)}, []).inverses == {}


def test_two_layers_with_equal_biases_are_told_apart_by_their_kernels() -> None:
    a, b, zero = some(4, 8), some(8, 8), np.zeros(8, np.float32)
    variables = {"a/kernel": a, "a/bias": zero, "b/kernel": b, "b/bias": zero}
    found = match(variables, {"y.weight": b.T, "y.bias": zero, "x.weight": a.T, "x.bias": zero}, [])
    assert set(found.inverses["x.bias"](zero + 1)) == {"a/bias"}
    assert set(found.inverses["y.bias"](zero + 1)) == {"b/bias"}
