import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from slimline.errors import SlimlineError
from slimline.runtimes.onnx_file import write_onnx
from slimline.sources.onnx.operators.resize import constant, corners
from tests.sources.onnx.models import assert_same, check_traced, eager, in_onnx_runtime, model, one
from tests.sources.onnx.operators.one_node import check, operators

rng = np.random.default_rng(0)
NONE = np.array([], np.float32)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def traced(constants, folder, shape=(3, 5, 6), kind="Resize", opset=19, **attributes):
    names = ["x", *("" if array is None else f"c{i}" for i, array in enumerate(constants))]
    given = {f"c{i}": array for i, array in enumerate(constants) if array is not None}
    proto = model([helper.make_node(kind, names, ["y"], **attributes)], {"x": ("n", *shape)}, ["y"], given, opset)
    return operators(check_traced(proto, folder, normal(3, *shape)))


def scales(*factors):
    return np.array([1, 1, *factors], np.float32)


@pytest.mark.parametrize("nearest_mode", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("places", ["half_pixel", "asymmetric", "tf_half_pixel_for_nn"])
@pytest.mark.parametrize("factors", [(2, 3), (0.6, 1.4), (0.5, 0.5)])
def test_nearest(nearest_mode, places, factors):
    given = {"nearest_mode": nearest_mode, "coordinate_transformation_mode": places, "opset": 13}
    check("Resize", normal(1, 2, 5, 6), NONE, scales(*factors), mode="nearest", **given)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("places", ["half_pixel", "pytorch_half_pixel", "asymmetric", "half_pixel_symmetric"])
@pytest.mark.parametrize("factors", [(2, 3), (0.6, 1.5)])
def test_weighted(mode, places, factors):
    x = normal(2, 3, 5, 6)
    check("Resize", x, None, scales(*factors), mode=mode, coordinate_transformation_mode=places, opset=19)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("sizes", [(7, 4), (10, 12), (1, 3)])
def test_corners_stay_corners(mode, sizes):
    given = {"mode": mode, "coordinate_transformation_mode": "align_corners"}
    check("Resize", normal(2, 3, 5, 6), None, None, np.array([2, 3, *sizes]), **given)


def test_a_fractional_length_counts_when_corners_are_aligned():
    # ONNX's own definition; ONNX Runtime takes the length rounded down
    x = np.array([[[1.0, 2.0, 3.0, 4.0]]], np.float32)
    arrays = [x, None, np.array([1, 1, 0.6], np.float32)]
    proto = one("Resize", arrays, 19, mode="linear", coordinate_transformation_mode="align_corners")
    np.testing.assert_allclose(eager(proto, x, arrays[2])[0], [[[1.0, 1 + 3 / (0.6 * 4 - 1)]]], rtol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("factors", [(0.5, 0.5), (0.6, 0.4)])
def test_antialiasing(mode, factors):
    given = {"antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}
    check("Resize", normal(1, 2, 8, 10), None, scales(*factors), mode=mode, **given)


@pytest.mark.parametrize("a", [-0.5, -0.75])
def test_cubic_that_leaves_out_what_is_outside(a):
    check("Resize", normal(1, 2, 5, 6), None, scales(1.7, 0.7), mode="cubic", cubic_coeff_a=a, exclude_outside=1)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_the_aspect_ratio_is_kept(policy):
    given = {"axes": [3, 2], "keep_aspect_ratio_policy": policy, "mode": "nearest", "opset": 18}
    check("Resize", normal(1, 2, 5, 6), None, None, np.array([9, 7]), **given)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_crop_and_resize(mode):
    roi = np.array([0, 0, 0.2, -0.3, 1, 1, 0.7, 1.2], np.float32)
    given = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0, "opset": 13}
    check("Resize", normal(1, 2, 5, 6), roi, None, np.array([1, 2, 4, 5]), mode=mode, **given)


@pytest.mark.parametrize("factors", [(2, 1.5), (0.6, 0.7)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_of_opset_10(mode, factors):
    check("Resize", normal(1, 2, 5, 7), scales(*factors), mode=mode, opset=10)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample_of_both_forms(mode, tmp_path):
    check("Upsample", normal(1, 2, 5, 6), scales(2, 3), mode=mode, opset=9)
    check("Upsample", normal(1, 2, 5, 6), mode=mode, scales=[1.0, 1.0, 2.0, 3.0], opset=7)


def test_integers_are_rounded_and_keep_their_type():
    x = np.array([[[[0, 255]]]], np.uint8)
    found = eager(one("Resize", [x, None, scales(1, 2)], mode="linear"), x, scales(1, 2))[0]
    np.testing.assert_array_equal(found, np.array([[[[0, 64, 191, 255]]]], np.uint8))
    check("Resize", rng.integers(0, 9, (1, 1, 3, 4)).astype(np.int32), None, scales(2, 1.5), mode="nearest")


@pytest.mark.parametrize(
    "attributes, factors, expected",
    [
        ({"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, (2, 2), "upsample_nearest2d.vec"),
        ({}, (2, 3), "upsample_nearest2d.vec"),
        ({"mode": "linear"}, (2, 2), "upsample_bilinear2d.vec"),
        ({"mode": "linear", "coordinate_transformation_mode": "half_pixel"}, (1.5, 2), "upsample_bilinear2d.vec"),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, (2, 2), "upsample_bilinear2d.vec"),
        ({"mode": "cubic"}, (2, 2), "upsample_bicubic2d.vec"),
    ],
)  # fmt: skip
def test_the_common_forms_are_one_operator(attributes, factors, expected, tmp_path):
    assert traced([None, scales(*factors)], tmp_path, **attributes) == [f"aten.{expected}"]


@pytest.mark.parametrize("given, written", [({"scales": (1.5, 2)}, ["Resize"]), ({"sizes": (7, 9)}, None)])
def test_a_resize_can_be_written_again(given, written, tmp_path):
    wanted = [None, scales(*given["scales"])] if "scales" in given else [None, None, np.array([*given["sizes"]])]
    extra = {"axes": [2, 3]} if "sizes" in given else {}
    names = ["x", *("" if array is None else "c" for array in wanted)]
    node = helper.make_node("Resize", names, ["y"], mode="linear", **extra)
    proto = model([node], {"x": ("n", 3, 5, 6)}, ["y"], {"c": wanted[-1]}, 19)
    x = normal(3, 3, 5, 6)
    write_onnx(check_traced(proto, tmp_path, x), tmp_path / "again.onnx")
    again = onnx.load(tmp_path / "again.onnx")
    assert_same(in_onnx_runtime(again, x), in_onnx_runtime(proto, x))
    assert written is None or [n.op_type for n in again.graph.node] == written


def test_other_ranks_are_one_operator(tmp_path):
    line = [None, np.array([1, 1, 2], np.float32)]
    assert traced(line, tmp_path, (3, 5), mode="linear") == ["aten.upsample_linear1d.vec"]
    block = [None, np.array([1, 1, 2, 2, 2], np.float32)]
    assert traced(block, tmp_path, (3, 4, 5, 6), mode="linear") == ["aten.upsample_trilinear3d.vec"]


def test_a_form_that_torch_lacks_is_traced_too(tmp_path):
    asymmetric = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
    found = traced([None, scales(2, 1.5)], tmp_path, **asymmetric)
    assert found.count("aten.index_select.default") == 2
    channels_last = [None, np.array([1, 2, 2, 1], np.float32)]
    traced(channels_last, tmp_path, (5, 6, 3), mode="linear")


def test_a_size_made_of_the_batch_leaves_it_free(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["start"]),
        helper.make_node("Concat", ["start", "wanted"], ["sizes"], axis=0),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear"),
    ]
    constants = {"zero": np.array([0]), "two": np.array([2]), "wanted": np.array([7, 9])}
    network = check_traced(model(nodes, {"x": ("n", 3, 5, 6)}, ["y"], constants), tmp_path, normal(3, 3, 5, 6))
    assert "aten.upsample_bilinear2d.vec" in operators(network)


@pytest.mark.parametrize(
    "attributes, sentence",
    [
        ({"mode": "lanczos"}, "its mode is 'lanczos'"),
        ({"coordinate_transformation_mode": "centre"}, "its coordinate_transformation_mode is 'centre'"),
        ({"nearest_mode": "odd"}, "its nearest_mode is 'odd'"),
    ],
)
def test_what_onnx_does_not_define_is_refused(attributes, sentence):
    x = normal(1, 1, 4, 4)
    with pytest.raises(SlimlineError, match=sentence):
        eager(one("Resize", [x, None, scales(2, 2)], **attributes), x, scales(2, 2))


def test_a_resize_without_a_size_is_refused():
    x = normal(1, 1, 4, 4)
    with pytest.raises(SlimlineError, match="neither scales nor sizes"):
        eager(one("Resize", [x]), x)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("edge", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode, edge, align):
    grid = (normal(2, 4, 3, 2) * 0.7).astype(np.float32)
    check("GridSample", normal(2, 3, 6, 5), grid, mode=mode, padding_mode=edge, align_corners=align, opset=20)


def test_grid_sample_of_opset_16_and_in_a_trace(tmp_path):
    x, grid = normal(3, 2, 6, 5), normal(3, 4, 3, 2)
    check("GridSample", x, grid, mode="bicubic", opset=16)
    proto = model(
        [helper.make_node("GridSample", ["x", "g"], ["y"])], {"x": ("n", 2, 6, 5), "g": ("n", 4, 3, 2)}, ["y"]
    )
    assert operators(check_traced(proto, tmp_path, x, grid)) == ["aten.grid_sampler.default"]


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [[2, 3, 4, 5], [2, 3, 4, 5, 6]])
def test_affine_grid(size, align):
    rank = len(size) - 2
    check("AffineGrid", normal(2, rank, rank + 1), np.array(size), align_corners=align, opset=20)


def test_affine_grid_keeps_the_batch_free(tmp_path):
    node = helper.make_node("AffineGrid", ["t", "size"], ["y"])
    proto = model([node], {"t": (1, 2, 3)}, ["y"], {"size": np.array([1, 1, 2, 2])}, opset=20)
    theta = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    found = eager(proto, np.concatenate([theta, 2 * theta]))[0]
    np.testing.assert_allclose(found[0], [[[-0.5, -0.5], [0.5, -0.5]], [[-0.5, 0.5], [0.5, 0.5]]])
    np.testing.assert_allclose(found[1], 2 * found[0])


def test_the_terms_between_pixels_sum_to_the_value_and_are_zero_outside():
    maps = torch.arange(6, dtype=torch.float32).reshape(1, 1, 2, 3)
    y, x = torch.tensor([[0.25, 1.0, -0.5, 5.0]]), torch.tensor([[1.5, 2.0, 0.0, 0.0]])
    total = sum(corners(maps, y, x))
    # 3 * 0.25 + 1.5 by the plane 3 y + x; the corner itself; half of it outside; all of it outside
    assert total.tolist() == [[[2.25, 5.0, 0.0, 0.0]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_constant_has_the_type_asked_for(dtype):
    made = constant(np.array([0.5, 1.5]), dtype)
    assert made.dtype == dtype
    assert made.tolist() == [0.5, 1.5]
