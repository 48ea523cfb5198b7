import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from slimline.errors import SlimlineError
from tests.sources.onnx.models import check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import check, operators

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def statistics(*shape):
    return [normal(*shape), normal(*shape), normal(*shape), np.abs(normal(*shape)) + 0.5]


def traced(kind, shape, constants, folder, opset=23, **attributes):
    names = [f"c{i}" for i in range(len(constants))]
    node = helper.make_node(kind, ["x", *names], ["y"], **attributes)
    proto = model([node], {"x": ("n", *shape)}, ["y"], dict(zip(names, constants, strict=True)), opset)
    return check_traced(proto, folder, normal(3, *shape))


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("shape", [(4,), (4, 6), (4, 3, 5)])
def test_batch_normalization_uses_the_stored_statistics(opset, shape):
    check("BatchNormalization", normal(2, *shape), *statistics(4), opset=opset, epsilon=1e-3)


def test_batch_normalization_of_opset_7_may_normalise_every_entry():
    check("BatchNormalization", normal(2, 4, 3), *statistics(4, 3), opset=7, spatial=0)


def test_batch_normalization_that_names_all_five_outputs_is_inference():
    x, parts = normal(2, 4, 3, 3), statistics(4)
    found = eager(one("BatchNormalization", [x, *parts], 9, outputs=5), x, *parts)
    scale, shift, mean, variance = (part.reshape(-1, 1, 1) for part in parts)
    np.testing.assert_allclose(found[0], (x - mean) / np.sqrt(variance + 1e-5) * scale + shift, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found[1:], [*parts[2:], *parts[2:]], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_training_mode_uses_the_statistics_of_the_batch_and_updates_the_stored_ones():
    x, parts = normal(8, 4, 3), statistics(4)
    found = eager(one("BatchNormalization", [x, *parts], 15, outputs=3, training_mode=1, momentum=0.6), x, *parts)
    mean, variance = x.mean((0, 2)), x.var((0, 2))
    y = (x - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5) * parts[0][:, None] + parts[1][:, None]
    expected = [y, 0.6 * parts[2] + 0.4 * mean, 0.6 * parts[3] + 0.4 * variance]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_batch_normalization_keeps_the_files_tensors(tmp_path):
    network = traced("BatchNormalization", (4, 5, 5), parts := statistics(4), tmp_path, 15)
    assert operators(network) == ["aten.batch_norm.default"]
    found = [tensor.numpy().tolist() for tensor in (w.detach() for w in network.weights().values())]
    assert sorted(found) == sorted(part.tolist() for part in parts)


@pytest.mark.parametrize("shape", [(3, 7), (3, 4, 5), (3, 2, 4, 5)])
def test_instance_normalization(shape):
    check("InstanceNormalization", normal(2, *shape), normal(3), normal(3), epsilon=1e-2)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("with_shift", [True, False])
def test_layer_normalization_over_the_last_axes(axis, with_shift):
    x = normal(2, 3, 4)
    scale = normal(*x.shape[axis:])
    proto = one("LayerNormalization", [x, scale, *([scale * 2] if with_shift else [])], 17, outputs=3, axis=axis)
    inputs = [x, scale, scale * 2] if with_shift else [x, scale]
    axes = tuple(range(axis % 3, 3))
    mean, deviation = x.mean(axes, keepdims=True), np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    expected = [(x - mean) / deviation * scale + (scale * 2 if with_shift else 0), mean, 1 / deviation]
    for ours, theirs in zip(eager(proto, *inputs), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_layer_normalization_with_a_scale_that_is_spread():
    x, scale, shift = normal(2, 3, 4), normal(4), normal(3, 1)
    found = eager(one("LayerNormalization", [x, scale, shift], 17, axis=1), x, scale, shift)[0]
    plain = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(found, plain * scale + shift, rtol=1e-4, atol=1e-5)


def test_half_precision_keeps_its_type_and_its_statistics_are_float():
    x, scale = (rng.standard_normal(shape).astype(np.float16) for shape in ((2, 8), (8,)))
    y, mean, _ = eager(one("LayerNormalization", [x, scale], 17, outputs=3), x, scale)
    assert (y.dtype, mean.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(mean, x.astype(np.float32).mean(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("opset, entries", [(18, 2), (21, 6)])
def test_group_normalization_scales_groups_or_channels(opset, entries, tmp_path):
    constants = [normal(entries), normal(entries)]
    traced("GroupNormalization", (6, 4, 4), constants, tmp_path, opset, num_groups=2)


@pytest.mark.parametrize("axis, shape", [(-1, (4,)), (1, (3, 4)), (0, (2, 3, 4)), (1, (4,))])
def test_rms_normalization(axis, shape):
    x, scale = normal(2, 3, 4), normal(*shape)
    found = eager(one("RMSNormalization", [x, scale], axis=axis), x, scale)[0]
    square = (x**2).mean(tuple(range(axis % 3, 3)), keepdims=True)
    np.testing.assert_allclose(found, x / np.sqrt(square + 1e-5) * scale, rtol=1e-4)


@pytest.mark.parametrize(
    "kind, count, expected",
    [
        ("InstanceNormalization", 2, "instance_norm"),
        ("LayerNormalization", 2, "layer_norm"),
        ("RMSNormalization", 1, "rms_norm"),
    ],
)
def test_what_a_network_holds_is_one_operator(kind, count, expected, tmp_path):
    network = traced(kind, (5, 5), [normal(5) for _ in range(count)], tmp_path)
    assert operators(network) == [f"aten.{expected}.default"]


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [1, -1])
def test_lp_normalization(p, axis):
    check("LpNormalization", normal(2, 3, 4), p=p, axis=axis)


def test_lp_normalization_leaves_zeros():
    x = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(eager(one("LpNormalization", [x]), x)[0], x)


def test_mean_variance_normalization():
    check("MeanVarianceNormalization", normal(2, 3, 4, 5), opset=13)
    x = normal(2, 3, 4)
    found = eager(one("MeanVarianceNormalization", [x], axes=[1]), x)[0]
    np.testing.assert_allclose(found, (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True), rtol=1e-4, atol=1e-5)


def test_local_response_normalization(tmp_path):
    traced("LRN", (7, 4, 4), [], tmp_path, 13, size=5, alpha=0.5, beta=0.6, bias=2.0)


def test_an_even_neighbourhood_reaches_further_up():
    x = normal(4, 4, 2, 2)  # as many samples as channels: the reference loops over the wrong axis
    proto = one("LRN", [x], size=4, alpha=0.5)
    np.testing.assert_allclose(eager(proto, x)[0], ReferenceEvaluator(proto).run(None, {"x0": x})[0], rtol=1e-5)


def test_an_empty_neighbourhood_is_refused():
    x = normal(1, 2, 2, 2)
    with pytest.raises(SlimlineError, match="at least one channel"):
        eager(one("LRN", [x], size=0), x)
