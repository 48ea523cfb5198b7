import io
import os
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from slimline.errors import SlimlineError
from slimline.sources.onnx.file import LARGEST_INPUT, check_inputs, read_model, sparse_tensors, tensors
from slimline.sources.onnx.limits import quoted
from tests.sources.onnx.models import FLOAT, model, write

RELU = helper.make_node("Relu", ["x"], ["y"])


def small() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return model(nodes, {"x": ["N", 4]}, ["y"], {"w": np.arange(8, dtype=np.float32).reshape(4, 2)})


def refused(path: Path) -> str:
    """The one sentence that reading a file ends with."""
    with pytest.raises(SlimlineError) as error:
        read_model(path)
    sentence = str(error.value)
    assert sentence and sentence.isprintable() and len(sentence) < 1000
    return sentence


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("weights", "1")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is a text\n" * 10, "no ONNX file"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a picture"),
        (archive(), "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"\x1c\0\0\0TFL3\0\0", "TFLite"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (bytes(1000), "no ONNX file"),
        (os.urandom(1000), "no ONNX file"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "no ONNX file"),
    ],
)
def test_what_is_no_onnx_file_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert words in refused(path)


def test_folders_pipes_and_missing_files_are_refused(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "no plain file" in refused(tmp_path / "pipe.onnx")
    assert "No such file" in refused(tmp_path / "absent.onnx")


def test_a_file_cut_at_any_byte_is_refused_or_whole(tmp_path: Path) -> None:
    content = small().SerializeToString()
    path = tmp_path / "model.onnx"
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert refused(path)
    path.write_bytes(content)
    assert read_model(path) == small()


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    named = model([helper.make_node("Relu", ["x"], ["y"], name="abcd")], {"x": ["N", 4]}, ["y"])
    path.write_bytes(named.SerializeToString().replace(b"abcd", b"\xff\xfe\xfd\xfc"))
    assert "UTF-8" in refused(path)


def test_a_comment_that_is_no_text_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    named = small()
    named.doc_string = "abcd"
    path.write_bytes(named.SerializeToString().replace(b"abcd", b"\xff\xfe\xfd\xfc"))
    assert len(read_model(path).graph.node) == len(small().graph.node)


def test_a_weight_that_is_shorter_than_its_shape_is_refused(tmp_path: Path) -> None:
    proto = small()
    proto.graph.initializer[0].dims[0] = 2**40
    assert "needs 8,796,093,022,208 bytes and has 32" in refused(write(proto, tmp_path))


def test_old_operators_are_refused(tmp_path: Path) -> None:
    assert "opset 6, older than 7" in refused(write(model([RELU], {"x": ["N", 4]}, ["y"], opset=6), tmp_path))


def test_functions_stand_in_place_of_their_calls(tmp_path: Path) -> None:
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="mine")], {"x": ["N", 4]}, ["y"])
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opset = [helper.make_opsetid("", proto.opset_import[0].version)]
    proto.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, opset))
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    assert [node.op_type for node in read_model(write(proto, tmp_path)).graph.node] == ["Add"]


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        (["N", 2**40], FLOAT, f"more than {LARGEST_INPUT:,}"),
        ([2**40, 4], FLOAT, f"more than {LARGEST_INPUT:,}"),
        (["N", 2**31, 2**31], FLOAT, "too large for any machine"),
        (["N", *[2] * 70], FLOAT, "axes"),
        (["N", 4], onnx.TensorProto.STRING, "element type STRING"),
        (["N", 4], onnx.TensorProto.UNDEFINED, "element type UNDEFINED"),
        (["N", 4], 99, "element type 99"),
    ],
)
def test_inputs_that_no_network_has_are_refused(shape: list[int | str], kind: int, words: str) -> None:
    with pytest.raises(SlimlineError, match=words):
        check_inputs(model([RELU], {"x": shape}, ["y"], types={"x": kind}).graph)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "x" * 501])
def test_names_that_do_not_fit_on_a_line_are_refused(name: str) -> None:
    for source, target in ((name, "y"), ("x", name)):
        with pytest.raises(SlimlineError, match="an input or output is called"):
            check_inputs(model([helper.make_node("Relu", [source], [target])], {source: ["N", 4]}, [target]).graph)


def test_a_graph_without_inputs_is_refused() -> None:
    weights_only = model([RELU], {"x": [4]}, ["y"], {"x": np.ones(4, np.float32)})  # an input with a stored value
    with pytest.raises(SlimlineError, match="no inputs"):
        check_inputs(weights_only.graph)


def branches(inner: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)


def test_tensors_are_found_in_subgraphs_and_attributes() -> None:
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    sparse = onnx.SparseTensorProto(
        values=numpy_helper.from_array(np.ones(1, np.float32), "s"),
        indices=numpy_helper.from_array(np.zeros(1, np.int64), "i"),
        dims=[3],
    )
    constant = helper.make_node("Constant", [], ["k"], sparse_value=sparse)
    deep = helper.make_graph([constant], "deep", [], [], [weight])
    for _ in range(3):
        deep = helper.make_graph([branches(deep)], "outer", [], [])
    assert {tensor.name for tensor in tensors(deep)} == {"w", "s", "i"}
    assert len(list(sparse_tensors(deep))) == 2**3


def test_many_sparse_tensors_are_refused_together(tmp_path: Path) -> None:
    proto = small()
    for i in range(5):
        values = numpy_helper.from_array(np.ones(1, np.float32), f"s{i}")
        indices = numpy_helper.from_array(np.zeros(1, np.int64), f"i{i}")
        proto.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=indices, dims=[2**26]))
    assert "zeros written out" in refused(write(proto, tmp_path))


def test_nesting_beyond_what_protobuf_reads_is_refused(tmp_path: Path) -> None:
    deep = helper.make_graph([RELU], "deep", [], [helper.make_tensor_value_info("y", FLOAT, None)])
    content = deep.SerializeToString()
    for _ in range(60):  # written by hand, as a graph in an attribute (g = 6) of a node (attribute = 5) of a graph
        attribute = field(1, b"then_branch") + field(6, content) + b"\xa0\x01\x05"
        content = field(1, field(4, b"If") + field(5, attribute))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08" + field(7, content))
    assert "no ONNX file" in refused(path)


def field(number: int, content: bytes) -> bytes:
    """A protobuf field that holds bytes."""
    size, length = len(content), b""
    while size >= 128:
        length, size = length + bytes([size % 128 + 128]), size // 128
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def test_names_are_quoted_on_one_line() -> None:
    assert quoted("a\nb\x1b[2J") == r"'a\nb\x1b[2J'"
    assert len(quoted("x" * 10_000)) < 100
