"""What the worker does to names and reports; the converters themselves are tested by the sources that use them."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from slimline.sources import conversion_worker
from slimline.sources.conversion_worker import (
    SlimlineError,
    is_result,
    main,
    name_nodes,
    plain,
    reason,
    refuse_unconverted,
    rename,
    widen,
)

FLOAT = TensorProto.FLOAT


def branching() -> onnx.ModelProto:
    """y:0 = x:0 + w where the flag is set, else x:0; a value inside is called ``x``."""
    then = helper.make_graph(
        [helper.make_node("Add", ["x:0", "w"], ["a"])], "then", [], [helper.make_tensor_value_info("a", FLOAT, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])], "else", [], [helper.make_tensor_value_info("b", FLOAT, None)]
    )
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x:0"], ["x"]),
            helper.make_node("If", ["flag"], ["y:0"], then_branch=then, else_branch=other),
        ],
        "branching",
        [helper.make_tensor_value_info("x:0", FLOAT, [2]), helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y:0", FLOAT, [2])],
        [numpy_helper.from_array(np.float32([10, 20]), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_renaming_reaches_subgraphs_and_makes_room() -> None:
    model = branching()
    rename(model.graph, {"x:0": "x", "y:0": "w", "nothing": "flag"})
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [value.name for value in [*session.get_inputs(), *session.get_outputs()]] == ["x", "flag", "w"]
    for flag, wanted in ((True, [11, 22]), (False, [1, 2])):
        (got,) = session.run(["w"], {"x": np.float32([1, 2]), "flag": np.array(flag)})
        assert got.tolist() == wanted


@pytest.mark.parametrize("names", [{"x:0": "same", "y:0": "same"}, {"y:0": "flag"}])
def test_two_values_never_get_one_name(names: dict[str, str]) -> None:
    model = branching()
    rename(model.graph, names)
    assert model == branching()


@pytest.mark.parametrize(("name", "wanted"), [("x:0", "x"), ("a/b:2", "a/b_2"), ("x", "x")])
def test_tensors_are_called_as_their_nodes(name: str, wanted: str) -> None:
    assert plain(name) == wanted


def test_numbered_nodes_are_called_after_their_layer() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "net/conv/folded:0"], ["y"], name="Conv__6"),
        helper.make_node("Conv", ["net/a/x:0", "const__1"], ["net/norm/add:0"], name="Conv__7"),
        helper.make_node("Relu", ["y"], ["z"], name="Relu__8"),
        helper.make_node("Relu", ["y"], ["net/b/z"], name="net/act"),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    name_nodes(graph)
    assert [node.name for node in graph.node] == ["net/conv", "net/norm", "Relu__8", "net/act"]


def test_operators_left_unconverted_are_all_named() -> None:
    model = branching()
    refuse_unconverted(model.graph)
    model.graph.node[1].attribute[0].g.node[0].op_type = "TFL_THING"
    model.graph.node[0].op_type = "Erfcinv"
    with pytest.raises(
        SlimlineError, match=r"^uses operators that tf2onnx cannot convert to ONNX: Erfcinv, TFL_THING\.$"
    ):
        refuse_unconverted(model.graph)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (ValueError("\n  first line.\nsecond"), "first line."),
        (KeyError(), "KeyError."),
        (OSError("x" * 999), "x" * 300 + "."),
    ],
)
def test_the_reason_is_the_first_line(error: Exception, wanted: str) -> None:
    assert reason(error) == wanted


def test_a_failure_is_a_reply_and_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def converter(source: Path, options: object, folder: Path) -> None:
        raise ValueError(f"no luck with {source.name}\n and more")

    monkeypatch.setitem(conversion_worker.KINDS, "keras", converter)
    monkeypatch.setattr(conversion_worker, "bound_memory", lambda: None)
    (tmp_path / "request.json").write_text(json.dumps({"kind": "keras", "source": "/a/b.keras", "options": {}}))
    main(tmp_path)
    reply = json.loads((tmp_path / "reply.json").read_text())
    assert reply == {"error": "cannot be converted to ONNX: ValueError: no luck with b.keras."}


class Op:
    def __init__(self, kind: str, *readers: int) -> None:
        self.type = kind
        self.outputs = [type("Tensor", (), {"consumers": lambda _, n=n: [None] * n})() for n in readers]


@pytest.mark.parametrize(
    ("op", "wanted"),
    [
        (Op("Relu", 0), True),
        (Op("Relu", 1), False),
        (Op("FusedBatchNormV3", 1, 0, 0), False),  # its statistics are no results
        (Op("Split", 0, 0), True),
        (Op("NoOp"), False),
        (Op("Const", 0), False),
        (Op("Placeholder", 0), False),
    ],
)
def test_results_are_what_nobody_reads(op: Op, wanted: bool) -> None:
    assert is_result(op) is wanted


def test_widening_reaches_the_layer_and_drops_the_shapes_that_follow_from_it() -> None:
    dense = {"class_name": "Dense", "config": {"name": "d", "units": 8}, "build_config": {"input_shape": [None, 4]}}
    inner = {"class_name": "Sequential", "config": {"name": "s", "layers": [dense], "build_input_shape": [None, 4]}}
    other = {"class_name": "Dense", "config": {"name": "e", "units": 8}}
    config = {"layers": [inner, other]}
    widen(config, {"d": {"units": 3}})
    assert dense == {"class_name": "Dense", "config": {"name": "d", "units": 3}}
    assert inner["config"] == {"name": "s", "layers": [dense]}
    assert other["config"] == {"name": "e", "units": 8}
