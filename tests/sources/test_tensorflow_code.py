"""Which operators run code is told from stand-ins for TensorFlow's messages, so TensorFlow is not needed."""

from types import SimpleNamespace as Message
from typing import Any

import pytest

from slimline.sources.tensorflow_code import code_of_saved_model, code_operators, reach


def node(name: str, op: str, *inputs: str, calls: str = "") -> Any:
    attributes = {"f": Message(func=Message(name=calls), list=Message(func=[]))}
    return Message(name=name, op=op, input=list(inputs), attr=attributes)


def graph(*nodes: Any, **functions: list[Any]) -> Any:
    bodies = [Message(signature=Message(name=name), node_def=body) for name, body in functions.items()]
    return Message(node=list(nodes), library=Message(function=bodies))


def saved(definition: Any, *outputs: str, restore: str = "", functions: tuple[str, ...] = (), main_op: str = "") -> Any:
    signature = Message(outputs={name: Message(name=name) for name in outputs})
    entry = Message(node_list=Message(value=[main_op]))
    return Message(
        graph_def=definition,
        signature_def={"serving_default": signature},
        collection_def={"main_op": entry},
        saver_def=Message(restore_op_name=restore),
        object_graph_def=Message(concrete_functions=functions),
    )


@pytest.mark.parametrize(
    "op",
    ["PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile", "WriteFile", "MatchingFiles", "XlaCustomCallV2",
     "RemoteCall", "LoadLibrary", "TextLineReaderV2", "InitializeTableFromTextFileV2", "PrintV2", "WriteSummary",
     "ImmutableConst", "DecodeProtoV2", "_Send", "TFRecordReader", "TensorDataset", "DebugIdentityV2"],
)  # fmt: skip
def test_operators_that_run_code_or_touch_files_are_found_in_functions_too(op: str) -> None:
    assert code_operators(graph(node("x", "Placeholder"), node("y", op))) == [op]
    assert code_operators(graph(node("x", "Placeholder"), unused=[node("y", op)])) == [op]


@pytest.mark.parametrize(
    "op",
    [
        "Conv2D",
        "MatMul",
        "Assert",
        "ReadVariableOp",
        "DecodeJpeg",
        "Save_my_name",
        "TensorListReserve",
        "While",
        "Recip",
    ],
)
def test_operators_that_compute_are_let_in(op: str) -> None:
    assert code_operators(graph(node("x", op))) == []


SAVER = {"save": [node("s", "SaveV2"), node("m", "MergeV2Checkpoints")], "restore": [node("r", "RestoreV2")]}
NODES = (
    node("call", "StatefulPartitionedCall", "x", calls="serve"),
    node("x", "Placeholder"),
    node("saving", "StatefulPartitionedCall", calls="save"),
    node("restoring", "StatefulPartitionedCall", calls="restore"),
)


def test_the_checkpoint_writer_that_every_saved_model_holds_is_let_in() -> None:
    definition = graph(*NODES, serve=[node("y", "Relu")], **SAVER)
    assert code_of_saved_model(saved(definition, "call:0", restore="restoring", functions=("serve",))) == []


@pytest.mark.parametrize(
    "meta",
    [
        saved(graph(*NODES, serve=[node("y", "PartitionedCall", calls="save")], **SAVER), "call:0"),
        saved(graph(*NODES, serve=[node("y", "save")], **SAVER), "call:0"),  # a function's name used as an operator
        saved(graph(*NODES, **SAVER), "x:0", restore="saving"),
        saved(graph(*NODES, **SAVER), "x:0", functions=("save",)),
        saved(graph(*NODES, **SAVER), "x:0", main_op="saving"),
        saved(graph(*NODES, node("z", "Identity", "x", "^saving"), **SAVER), "z:0"),  # a control input
    ],
)
def test_a_checkpoint_writer_that_would_run_is_refused(meta: Any) -> None:
    assert code_of_saved_model(meta) == ["MergeV2Checkpoints", "SaveV2"]


def test_functions_that_call_each_other_are_followed_once() -> None:
    body = {"a": [node("n", "Neg", calls="b")], "b": [node("n", "Exp", calls="a")]}
    assert reach(graph(node("call", "PartitionedCall", calls="a"), **body), ["call:0"]) == {
        "PartitionedCall",
        "Neg",
        "Exp",
    }
