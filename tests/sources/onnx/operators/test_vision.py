import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from slimline.errors import SlimlineError
from tests.sources.onnx.models import assert_same, check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import check

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


ROIS = np.array([[1, 2, 9, 11], [0, 0, 20, 30], [4, 4, 4.2, 4.1], [-5, -3, 6, 5]], np.float32)
SAMPLES = np.array([0, 1, 1, 0])


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("opset", [10, 16])
def test_roi_align_takes_means(ratio, opset):
    given = {"output_height": 3, "output_width": 2, "sampling_ratio": ratio, "spatial_scale": 0.5}
    check("RoiAlign", normal(2, 3, 7, 8), ROIS, SAMPLES, opset=opset, **given)


def test_roi_align_takes_the_largest_term():
    given = {"output_height": 2, "output_width": 2, "sampling_ratio": 2, "mode": "max"}
    arrays = [normal(2, 3, 12, 12), ROIS[:2] / 3, SAMPLES[:2]]
    proto = one("RoiAlign", arrays, 22, **given)
    names = {f"x{i}": array for i, array in enumerate(arrays)}
    assert_same(eager(proto, *arrays), ReferenceEvaluator(proto).run(None, names))


def test_roi_align_of_an_empty_region_is_zero():
    arrays = [normal(1, 2, 5, 5), np.array([[3, 3, 1, 1]], np.float32), np.array([0])]
    found = eager(one("RoiAlign", arrays, 16, output_height=2, output_width=2), *arrays)[0]
    np.testing.assert_array_equal(found, np.zeros((1, 2, 2, 2), np.float32))


def boxes(count):
    start = rng.random((2, count, 2))
    return np.concatenate([start, start + rng.random((2, count, 2)) * 0.5], axis=2).astype(np.float32)


@pytest.mark.parametrize("centred", [0, 1])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.9])
def test_non_max_suppression(centred, overlap):
    scores = rng.random((2, 3, 12)).astype(np.float32)
    limits = [np.array([5]), np.array([overlap], np.float32), np.array([0.2], np.float32)]
    check("NonMaxSuppression", boxes(12), scores, *limits, center_point_box=centred, opset=11)


def test_without_a_limit_nothing_is_kept():
    arrays = [boxes(4), rng.random((2, 1, 4)).astype(np.float32)]
    assert eager(one("NonMaxSuppression", arrays, 11), *arrays)[0].shape == (0, 3)


def test_equal_scores_go_by_position_and_corners_may_be_swapped():
    swapped = np.array([[[1, 1, 0, 0], [0, 0, 1, 1], [2, 2, 3, 3]]], np.float32)
    arrays = [swapped, np.ones((1, 1, 3), np.float32), np.array([9]), np.array([0.5], np.float32)]
    assert eager(one("NonMaxSuppression", arrays, 11), *arrays)[0].tolist() == [[0, 0, 0], [0, 0, 2]]


def test_a_network_cannot_hold_as_many_boxes_as_the_data_has(tmp_path):
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["y"])
    shapes = {"boxes": ("n", 4, 4), "scores": ("n", 1, 4)}
    proto = model([node], shapes, ["y"], {"most": np.array([2])}, opset=11, types={"y": 7})
    with pytest.raises(SlimlineError, match="depends on the data"):
        check_traced(proto, tmp_path, normal(3, 4, 4), normal(3, 1, 4))
