import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.external import ExternalFiles
from slimline.sources.onnx.file import read_model
from slimline.sources.onnx.graph import build_graph
from tests.sources.onnx.models import FLOAT, model

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def stored(**entries: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=WEIGHT.shape, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def refused(folder: Path, **entries: str) -> str:
    with pytest.raises(SlimlineError) as error:
        ExternalFiles(folder).load_(stored(**entries))
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "w.bin").write_bytes(b"12345678" + WEIGHT.tobytes())
    (tmp_path / "outside.bin").write_bytes(WEIGHT.tobytes())
    return inside


def test_onnx_itself_and_we_read_the_same(tmp_path: Path) -> None:
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 3]}, ["y"], {"w": WEIGHT})
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").stat().st_size == WEIGHT.nbytes
    np.testing.assert_array_equal(build_graph(read_model(tmp_path / "model.onnx")).constants["w"], WEIGHT)


@pytest.mark.parametrize("extra", [{}, {"length": str(WEIGHT.nbytes)}])
def test_a_weight_is_read_at_its_offset(extra: dict[str, str], folder: Path) -> None:
    sum_of_all = hashlib.sha1((folder / "w.bin").read_bytes()).hexdigest()
    tensor = stored(location="w.bin", offset="8", checksum=sum_of_all, **extra)
    ExternalFiles(folder).load_(tensor)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), WEIGHT)


@pytest.mark.parametrize(
    "location", ["../outside.bin", "../../etc/passwd", "/etc/passwd", "", ".", "a/../../outside.bin", "w.bin\0", "link"]
)
def test_nothing_outside_the_folder_is_opened(location: str, folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "outside.bin")
    assert "outside the folder" in refused(folder, location=location)


def test_a_link_within_the_folder_is_followed(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "w.bin")
    tensor = stored(location="link", offset="8")
    ExternalFiles(folder).load_(tensor)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), WEIGHT)


def test_what_is_no_plain_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "deeper").mkdir()
    (folder / "circle").symlink_to(folder / "circle")
    assert "no plain file" in refused(folder, location="pipe")
    assert "no plain file" in refused(folder, location="deeper")
    assert "missing" in refused(folder, location="absent.bin")
    assert "circle" in refused(folder, location="circle")
    assert refused(folder, location="x" * 5000)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"offset": "-8"}, "no number"),
        ({"offset": "0x8"}, "no number"),
        ({"offset": "1_0"}, "no number"),
        ({"offset": ""}, "no number"),
        ({"offset": "9" * 5000}, "no number"),
        ({"offset": "12"}, "truncated"),
        ({"offset": str(2**62)}, "truncated"),
        ({"length": "-1"}, "no number"),
        ({"length": "47"}, "needs 48 bytes, and 47"),
        ({"length": str(2**62)}, "needs 48 bytes"),
        ({"checksum": "0" * 40}, "SHA-1"),
    ],
)
def test_places_that_do_not_fit_are_refused(entries: dict[str, str], words: str, folder: Path) -> None:
    assert words in refused(folder, location="w.bin", **entries)


def test_an_absurd_shape_is_refused_before_anything_is_read(folder: Path) -> None:
    tensor = stored(location="w.bin")
    tensor.dims[:] = [2**40, 2**40]
    with pytest.raises(SlimlineError, match="too large"):
        ExternalFiles(folder).load_(tensor)


def test_text_cannot_be_external(folder: Path) -> None:
    tensor = stored(location="w.bin")
    tensor.data_type = onnx.TensorProto.STRING
    with pytest.raises(SlimlineError, match="element type STRING"):
        ExternalFiles(folder).load_(tensor)
