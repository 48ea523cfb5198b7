import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from slimline.errors import SlimlineError
from tests.sources.onnx.models import check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import check, operators

rng = np.random.default_rng(0)
FORMS = [
    {"pads": [1, 1, 1, 1]},
    {"pads": [1, 0, 0, 2]},
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER"},
    {"ceil_mode": 1},
    {"ceil_mode": 1, "pads": [0, 0, 1, 1]},
    {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
]


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def traced(kind, size, folder, opset=22, **attributes):
    proto = model([helper.make_node(kind, ["x"], ["y"], **attributes)], {"x": ("n", 3, size, size)}, ["y"], {}, opset)
    return operators(check_traced(proto, folder, normal(3, 3, size, size)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize("kind, extra", [("MaxPool", {}), ("AveragePool", {}), ("LpPool", {"p": 3})])
def test_pooling_of_every_form(kind, extra, size, form):
    check(kind, normal(2, 3, size, size), opset=22, kernel_shape=[3, 3], strides=[2, 2], **form, **extra)


@pytest.mark.parametrize("form", FORMS)
def test_average_pooling_that_counts_its_padding(form):
    proto = one(
        "AveragePool", [x := normal(1, 2, 9, 10)], 22, kernel_shape=[3, 3], strides=[2, 2], count_include_pad=1, **form
    )
    np.testing.assert_allclose(
        eager(proto, x)[0], ReferenceEvaluator(proto).run(None, {"x0": x})[0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "LpPool"])
def test_pooling_over_other_ranks(kind, rank):
    check(kind, normal(2, 3, *[6] * rank), kernel_shape=[3] * rank, pads=[1] * rank + [0] * rank)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("opset", [7, 10])
def test_pooling_of_old_files(kind, opset):
    check(kind, normal(2, 3, 8, 8), opset=opset, kernel_shape=[2, 2], strides=[2, 2])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_max_pooling_of_bytes(dtype):
    x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (1, 2, 7, 7)).astype(dtype)
    check("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 2]])
@pytest.mark.parametrize("order", [0, 1])
def test_places_of_the_largest_count_through_the_whole_input(pads, order):
    x = normal(2, 3, 5, 7)
    check("MaxPool", x, outputs=2, kernel_shape=[2, 3], strides=[2, 2], pads=pads, storage_order=order)
    found, places = eager(one("MaxPool", [x], outputs=2, kernel_shape=[2, 3], strides=[2, 2], pads=pads), x)
    np.testing.assert_array_equal(x.reshape(-1)[places], found)


@pytest.mark.parametrize(
    "kind, size, attributes, expected",
    [
        ("MaxPool", 10, {"auto_pad": "SAME_UPPER"}, ["max_pool2d.default"]),
        ("MaxPool", 9, {"pads": [1, 1, 1, 1]}, ["max_pool2d.default"]),
        ("MaxPool", 9, {"pads": [0, 0, 2, 2]}, ["pad.default", "max_pool2d.default"]),
        ("AveragePool", 10, {"auto_pad": "SAME_UPPER"}, ["avg_pool2d.default"]),
        ("AveragePool", 9, {"pads": [1, 1, 1, 1], "count_include_pad": 1}, ["avg_pool2d.default"]),
        ("AveragePool", 9, {"dilations": [2, 2], "pads": [0, 1, 1, 1]}, None),
    ],
)
def test_the_common_forms_are_one_operator_in_a_trace(kind, size, attributes, expected, tmp_path):
    found = traced(kind, size, tmp_path, kernel_shape=[3, 3], strides=[2, 2], **attributes)
    assert expected is None or found == [f"aten.{name}" for name in expected]


@pytest.mark.parametrize("kind, expected", [("GlobalAveragePool", "mean.dim"), ("GlobalMaxPool", "amax.default")])
def test_global_pooling_is_one_operator(kind, expected, tmp_path):
    assert traced(kind, 5, tmp_path) == [f"aten.{expected}"]


@pytest.mark.parametrize("kind, extra", [("GlobalAveragePool", {}), ("GlobalMaxPool", {}), ("GlobalLpPool", {"p": 3})])
def test_global_pooling_over_three_axes(kind, extra):
    check(kind, normal(2, 3, 4, 5, 6), opset=21, **extra)


def test_pooling_over_four_axes_is_refused():
    x = normal(1, 1, 3, 3, 3, 3)
    with pytest.raises(SlimlineError, match="over 4 axes; one to three"):
        eager(one("MaxPool", [x], kernel_shape=[2] * 4), x)


def test_unpooling_undoes_pooling(tmp_path):
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p", "i"], **attributes),
        helper.make_node("MaxUnpool", ["p", "i"], ["y"], **attributes),
    ]
    proto = model(nodes, {"x": ("n", 3, 6, 4)}, ["y"], opset=11)
    check_traced(proto, tmp_path, normal(3, 3, 6, 4))


def test_unpooling_to_a_larger_size_adds_zeros():
    x, places = np.array([[[[1.0, 2.0], [3.0, 4.0]]]], np.float32), np.array([[[[5, 7], [13, 15]]]])
    arrays = [x, places, np.array([1, 1, 5, 5])]
    found = eager(one("MaxUnpool", arrays, kernel_shape=[2, 2], strides=[2, 2]), *arrays)[0]
    expected = np.zeros((1, 1, 5, 5), np.float32)
    expected[0, 0, 1::2, 1::2] = x[0, 0]
    np.testing.assert_array_equal(found, expected)


def test_max_roi_pool():
    x = normal(2, 3, 12, 10)
    rois = np.array([[0, 0, 0, 9, 11], [1, 3, 2, 14, 17], [0, 8, 8, 8, 8], [1, 4, 4, 30, 40]], np.float32)
    check("MaxRoiPool", x, rois, opset=21, pooled_shape=[3, 2], spatial_scale=0.5)


def test_regions_that_depend_on_the_data_are_refused_in_a_trace(tmp_path):
    node = helper.make_node("MaxRoiPool", ["x", "rois"], ["y"], pooled_shape=[1, 1])
    proto = model([node], {"x": ("n", 1, 4, 4), "rois": ("m", 5)}, ["y"])
    with pytest.raises(SlimlineError, match="depends on the data"):
        check_traced(proto, tmp_path, normal(3, 1, 4, 4), np.zeros((3, 5), np.float32))
