import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from slimline.errors import SlimlineError
from tests.sources.onnx.models import assert_same, check_traced, eager, in_onnx_runtime, model, one
from tests.sources.onnx.operators.one_node import check, node_model, operators

rng = np.random.default_rng(0)
PADS = [{"pads": [1, 0, 2, 1]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"auto_pad": "VALID"}]


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def layer(kind, constants, shape, opset=22, **attributes):
    names = [f"c{i}" for i in range(len(constants))]
    node = helper.make_node(kind, ["x", *names], ["y"], **attributes)
    return model([node], {"x": ("n", *shape)}, ["y"], dict(zip(names, constants, strict=True)), opset)


@pytest.mark.parametrize("attributes", PADS)
@pytest.mark.parametrize("size, stride", [(9, 2), (10, 2), (8, 3)])
def test_conv_with_every_kind_of_padding(attributes, size, stride):
    x, w, b = normal(2, 4, size, size), normal(6, 2, 3, 3), normal(6)
    check("Conv", x, w, b, group=2, strides=[stride, stride], **attributes)


def test_conv_with_dilation():
    # ONNX Runtime refuses SAME padding with a dilation in some versions; the closed form is the input's size
    x, w = normal(1, 1, 9), normal(1, 1, 3)
    found = eager(one("Conv", [x, w], dilations=[2], auto_pad="SAME_UPPER"), x, w)[0]
    padded = np.pad(x[0, 0], 2)
    np.testing.assert_allclose(found[0, 0], [padded[i : i + 5 : 2] @ w[0, 0] for i in range(9)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_one_to_three_dimensions(kind, rank):
    x, w, b = normal(2, 4, *[5] * rank), normal(4, 4, *[3] * rank), normal(4)
    check(kind, x, w, b, strides=[2] * rank, pads=[1] * 2 * rank)


def test_conv_of_four_dimensions_is_refused():
    x, w = normal(1, 1, 3, 3, 3, 3), normal(1, 1, 2, 2, 2, 2)
    with pytest.raises(SlimlineError, match="over 4 axes; one to three"):
        eager(one("Conv", [x, w]), x, w)


def test_a_symmetric_conv_is_one_operator_with_its_own_weights(tmp_path):
    proto = layer("Conv", [normal(6, 4, 3, 3), normal(6)], (4, 7, 7), auto_pad="SAME_UPPER", opset=7)
    network = check_traced(proto, tmp_path, normal(3, 4, 7, 7))
    assert operators(network) == ["aten.conv2d.default"]
    assert sorted(tuple(w.shape) for w in network.weights().values()) == [(6,), (6, 4, 3, 3)]


@pytest.mark.parametrize(
    "attributes, expected",
    [
        ({"pads": [1, 1, 1, 1], "output_padding": [1, 1]}, ["conv_transpose2d.input"]),
        ({"pads": [1, 1, 0, 0]}, ["conv_transpose2d.input"]),
        ({"pads": [0, 0, 1, 1]}, ["conv_transpose2d.input", "pad.default"]),
        ({"output_shape": [10, 9]}, ["conv_transpose2d.input"]),
        ({"auto_pad": "SAME_UPPER"}, ["conv_transpose2d.input", "pad.default"]),
        ({"auto_pad": "SAME_LOWER"}, ["conv_transpose2d.input"]),
        ({"auto_pad": "VALID"}, ["conv_transpose2d.input"]),
    ],
)
def test_conv_transpose_with_every_kind_of_padding(attributes, expected, tmp_path):
    constants = [normal(4, 3, 3, 3), normal(6)]
    proto = layer("ConvTranspose", constants, (4, 5, 5), group=2, strides=[2, 2], **attributes)
    network = check_traced(proto, tmp_path, normal(3, 4, 5, 5))
    assert operators(network) == [f"aten.{name}" for name in expected]


def test_a_conv_transpose_that_grows_beyond_its_reach_is_bias_there():
    x, w, b = normal(1, 2, 3), normal(2, 1, 2), normal(1)
    found = eager(one("ConvTranspose", [x, w, b], strides=[2], output_shape=[9], auto_pad="SAME_UPPER"), x, w, b)[0]
    plain = in_onnx_runtime(node_model("ConvTranspose", x, w, b, strides=[2]), x, w, b)[0]
    np.testing.assert_allclose(found, np.pad(plain - b, ((0, 0), (0, 0), (0, 3))) + b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups, parts, with_mask", [(1, 1, False), (2, 2, True), (1, 2, True)])
def test_deform_conv(groups, parts, with_mask, tmp_path):
    pads, taps = [1, 1, 1, 1], 6
    names = ["x", "w", "offset", "b", "mask"][: 5 if with_mask else 4]
    attributes = {"group": groups, "offset_group": parts, "pads": pads, "strides": [2, 1], "dilations": [1, 2]}
    node = helper.make_node("DeformConv", names, ["y"], **attributes)
    shapes = {"x": ("n", 4, 6, 7), "offset": ("n", parts * taps * 2, 4, 5)}
    shapes |= {"mask": ("n", parts * taps, 4, 5)} if with_mask else {}
    constants = {"w": normal(6, 4 // groups, 2, 3), "b": normal(6)}
    proto = model([node], shapes, ["y"], constants, opset=22)
    inputs = {name: normal(3, *shape[1:]) * (2 if name == "offset" else 1) for name, shape in shapes.items()}
    assert_same(eager(proto, *inputs.values()), ReferenceEvaluator(proto).run(None, inputs))
    if groups == 2:
        check_traced(proto, tmp_path, *inputs.values())


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("with_past", [False, True])
def test_causal_conv_continues_where_it_stopped(activation, with_past):
    x, w, b, past = normal(2, 3, 7), normal(3, 1, 4), normal(3), normal(2, 3, 3)
    arrays = [x, w, b, past] if with_past else [x, w, b]
    y, state = eager(one("CausalConvWithState", arrays, 27, outputs=2, activation=activation), *arrays)
    seen = np.concatenate([past if with_past else np.zeros_like(past), x], axis=2)
    plain = np.stack([(seen[:, :, i : i + 4] * w[:, 0]).sum(2) + b for i in range(7)], axis=2)
    expected = plain / (1 + np.exp(-plain)) if activation == "silu" else plain
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state, seen[:, :, -3:])


@pytest.mark.parametrize(
    "pads, expected", [([1, 1, 1, 1], ["aten.col2im.default"]), ([1, 0, 1, 2], None), ([0, 0, 0, 0], None)]
)
def test_col2im(pads, expected, tmp_path):
    columns = _places(pads)
    constants = [np.array([8, 8]), np.array([3, 3])]
    proto = layer("Col2Im", constants, (4 * 9, columns), strides=[2, 2], pads=pads)
    network = check_traced(proto, tmp_path, normal(3, 4 * 9, columns))
    assert expected is None or operators(network) == expected


def _places(pads):
    down, right = ((8 + pads[axis] + pads[2 + axis] - 3) // 2 + 1 for axis in (0, 1))
    return down * right
