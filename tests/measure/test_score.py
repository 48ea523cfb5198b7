"""Outputs come from the file, for every sample, in order, whatever the batch."""

from pathlib import Path

import numpy as np
import pytest

from slimline.errors import SlimlineError
from slimline.measure.score import artifact_outputs
from slimline.runtimes.runtime import Artifact
from tests.measure.scale_file import scale_file


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_every_sample_is_run_once_and_in_order(tmp_path: Path, batch: int) -> None:
    x = np.random.default_rng(0).normal(size=(11, 2)).astype(np.float32)
    (y,) = artifact_outputs(scale_file(tmp_path), {"x": x}, 1, batch)
    np.testing.assert_allclose(y, 3 * x, rtol=1e-6)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match="nothing.onnx does not exist"):
        artifact_outputs(Artifact(tmp_path / "nothing.onnx", "onnxruntime"), {"x": np.zeros((1, 2), np.float32)}, 1)
