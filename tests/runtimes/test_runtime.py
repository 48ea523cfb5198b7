from pathlib import Path

from slimline.runtimes.runtime import Artifact


def test_size_counts_a_sidecar_and_every_file_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"12345")
    (folder / "deep" / "b.bin").write_bytes(b"123")
    (tmp_path / "m.onnx").write_bytes(b"1234567")
    (tmp_path / "other.onnx.data").write_bytes(b"1")
    assert Artifact(folder, "torch").size_bytes == 8
    assert Artifact(tmp_path / "m.onnx", "onnxruntime").size_bytes == 7
    (tmp_path / "m.onnx.data").write_bytes(b"1234")
    assert Artifact(tmp_path / "m.onnx", "onnxruntime").size_bytes == 11


def test_label_names_the_variant() -> None:
    assert Artifact(Path("m.onnx"), "openvino", "bf16").label == "openvino[bf16]"
    assert Artifact(Path("m.onnx"), "openvino").label == "openvino"
