"""Peak memory is that of the runner's process: more weights, more bytes."""

from pathlib import Path

import numpy as np

from slimline.measure.memory import runner_memory
from tests.measure.scale_file import scale_file

MILLION_FLOATS = 16_000_000
BYTES = 4 * MILLION_FLOATS


def test_a_file_of_64_mb_needs_at_least_64_mb_more(tmp_path: Path) -> None:
    inputs = {"x": np.zeros((2, 2), np.float32)}
    (tmp_path / "small").mkdir()
    small = runner_memory(scale_file(tmp_path / "small"), inputs, 1)
    large = runner_memory(scale_file(tmp_path, MILLION_FLOATS), inputs, 1)
    assert small.unit == "bytes" and small.n == 1 and small.low == small.value == small.high
    assert large.value - small.value >= 0.9 * BYTES
    assert small.value < 500e6, "the process should not hold torch"
