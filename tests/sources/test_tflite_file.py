"""TFLite files become networks that answer as TFLite does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.sources.tflite_file import from_tflite

Check = Callable[[Network, str], None]


def test_a_float_file_is_imported(tensorflow_models: Path, assert_answers: Check) -> None:
    network = from_tflite(tensorflow_models / "cnn.tflite")
    assert (network.input_names, network.output_names) == (("image",), ("output_0",))
    assert_answers(network, "cnn")


def test_two_outputs_keep_the_names_of_the_signature(tensorflow_models: Path) -> None:
    network = from_tflite(tensorflow_models / "encoder.tflite")
    with np.load(tensorflow_models / "encoder.npz") as answers:
        got = dict(zip(network.output_names, network.run({"frames": torch.from_numpy(answers["x3"])}), strict=True))
        for name, key in {"output_0": "y3_kind", "output_1": "y3_side"}.items():
            torch.testing.assert_close(got[name], torch.from_numpy(answers[key]), rtol=1e-4, atol=1e-5)


def test_an_int8_file_is_imported_with_its_rounding(tensorflow_models: Path) -> None:
    """Its scores are multiples of 1/256; rounding half up or to even may move one by a step."""
    network = from_tflite(tensorflow_models / "cnn_int8.tflite")
    with np.load(tensorflow_models / "cnn_int8.npz") as answers:
        got = network.run({"image": torch.from_numpy(answers["x3"])})[0].numpy()
        assert np.array_equal(got, np.round(got * 256) / 256)
        assert np.abs(got - answers["y3_output_0"]).max() <= 2 / 256


def test_a_custom_operator_is_named(tensorflow_models: Path) -> None:
    with pytest.raises(
        SlimlineError, match=r"custom\.tflite uses the custom operators \w*Erfinv, which only their own"
    ):
        from_tflite(tensorflow_models / "custom.tflite")


@pytest.mark.parametrize("keep", [pytest.param(8, marks=pytest.mark.slow), 2000])
def test_a_truncated_file_is_one_sentence(keep: int, tensorflow_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.tflite"
    path.write_bytes((tensorflow_models / "cnn.tflite").read_bytes()[:keep])
    with pytest.raises(SlimlineError, match=r"cut\.tflite is damaged: .+\.$") as error:
        from_tflite(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x1c\0\0\0TFL2", b"\x08\x07onnx and more"])
def test_what_is_no_tflite_file_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(content)
    with pytest.raises(SlimlineError, match=r"x\.tflite is not a TFLite file: bytes 4 to 8 are not 'TFL3'\."):
        from_tflite(path)
