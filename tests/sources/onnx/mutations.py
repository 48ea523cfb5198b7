"""ONNX files for the fuzz test, and what may happen to them: damaged bytes, and graphs that parse but make no sense."""

import copy
import random
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from tests.sources.onnx.models import FLOAT, model

EXTREMES = (0, 1, -1, 2, 3, 7, 63, 64, -(2**31), 2**31 - 1, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1)
KINDS = sorted({schema.name for schema in defs.get_all_schemas() if schema.domain == ""})


def cnn() -> onnx.ModelProto:
    """Convolution, batch normalisation, pooling, a residual, a linear layer."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.standard_normal((4, 1, 3, 3), np.float32), "b1": rng.standard_normal(4, np.float32),
        "scale": np.ones(4, np.float32), "shift": np.zeros(4, np.float32),
        "mean": np.zeros(4, np.float32), "var": np.ones(4, np.float32),
        "w2": rng.standard_normal((4, 4, 3, 3), np.float32), "shape": np.array([0, -1]),
        "w3": rng.standard_normal((64, 3), np.float32), "b3": np.zeros(3, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "scales": np.array([1, 1, 2, 2], np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"], epsilon=1e-5),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Pad", ["r1", "pads"], ["p1"], mode="constant"),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], strides=[1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a2"]),
        helper.make_node("MaxPool", ["a2"], ["m2"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Resize", ["m2", "", "scales"], ["u2"], mode="nearest"),
        helper.make_node("Reshape", ["u2", "shape"], ["f2"]),
        helper.make_node("Gemm", ["f2", "w3", "b3"], ["g3"], alpha=1.0),
        helper.make_node("Softmax", ["g3"], ["y"], axis=-1),
    ]
    return model(nodes, {"x": ["N", 1, 8, 8]}, ["y"], constants)


def lstm() -> onnx.ModelProto:
    """A recurrent layer over a transposed sequence, the last state, a branch and a loop."""
    rng = np.random.default_rng(1)
    value = helper.make_tensor_value_info
    branches = {
        name: helper.make_graph([helper.make_node(kind, ["h"], [name])], name, [], [value(name, FLOAT, None)])
        for name, kind in (("then_branch", "Tanh"), ("else_branch", "Neg"))
    }
    going = value("going", onnx.TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Mul", ["v", "half"], ["u"])],
        "body",
        [value("i", onnx.TensorProto.INT64, []), going, value("v", FLOAT, None)],
        [going, value("u", FLOAT, None)],
    )
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r", "b"], ["", "state"], hidden_size=4, direction="forward"),
        helper.make_node("Squeeze", ["state", "axes"], ["h"]),
        helper.make_node("If", ["c"], ["i"], **branches),
        helper.make_node("Loop", ["turns", "", "i"], ["l"], body=body),
        helper.make_node("MatMul", ["l", "k"], ["y"]),
    ]
    constants = {
        "w": rng.standard_normal((1, 16, 3), np.float32), "r": rng.standard_normal((1, 16, 4), np.float32),
        "b": np.zeros((1, 32), np.float32), "axes": np.array([0]), "c": np.array(True), "turns": np.array(3),
        "half": np.float32(0.5), "k": rng.standard_normal((4, 2), np.float32),
    }  # fmt: skip
    return model(nodes, {"x": ["N", 5, 3]}, ["y"], constants)


def transformer() -> onnx.ModelProto:
    """Embedding, attention with the shape arithmetic that exporters write, layer normalisation."""
    rng = np.random.default_rng(2)
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "ids"], ["e"], axis=0),
        node("LayerNormalization", ["e", "scale", "shift"], ["n"], axis=-1),
        node("Shape", ["n"], ["s"]),
        node("Gather", ["s", "zero"], ["batch"], axis=0),
        node("Unsqueeze", ["batch", "first"], ["batch1"]),
        node("Concat", ["batch1", "heads"], ["split"], axis=0),
    ]
    for name in "qkv":
        nodes += [
            node("MatMul", ["n", f"w{name}"], [f"{name}1"]),
            node("Reshape", [f"{name}1", "split"], [f"{name}2"]),
            node("Transpose", [f"{name}2"], [f"{name}3"], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]),
        ]
    nodes += [
        node("MatMul", ["q3", "k3"], ["scores"]),
        node("Div", ["scores", "root"], ["scaled"]),
        node("Range", ["zero", "length", "one"], ["positions"]),
        node("Cast", ["positions"], ["bias"], to=FLOAT),
        node("Add", ["scaled", "bias"], ["biased"]),
        node("Softmax", ["biased"], ["p"], axis=-1),
        node("MatMul", ["p", "v3"], ["mixed"]),
        node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        node("ConstantOfShape", ["four"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.int64))),
        node("Expand", ["back", "ones"], ["expanded"]),
        node("Slice", ["expanded", "first", "one1", "one1"], ["cut"]),
        node("ReduceMean", ["expanded", "axes"], ["y"], keepdims=0),
    ]
    constants = {
        "table": rng.standard_normal((11, 8), np.float32), "scale": np.ones(8, np.float32),
        "shift": np.zeros(8, np.float32), "zero": np.array(0), "first": np.array([0]), "one": np.array(1),
        "one1": np.array([1]), "four": np.array([4]), "length": np.array(6), "heads": np.array([6, 2, 4]),
        "root": np.float32(2), "axes": np.array([1, 2]),
    } | {f"w{name}": rng.standard_normal((8, 8), np.float32) for name in "qkv"}  # fmt: skip
    return model(nodes, {"ids": ["N", 6]}, ["y", "cut"], constants, types={"ids": onnx.TensorProto.INT64})


def mutate(content: bytes, seed: int) -> bytes:
    """A damaged copy of a file; the same for the same seed."""
    rng = random.Random(seed)
    if rng.random() < 0.3:
        return damaged(content, rng)
    proto = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(CHANGES)(proto, rng)
    return proto.SerializeToString()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut off, or moved."""
    data = bytearray(content)
    match rng.randrange(4):
        case 0:
            for _ in range(rng.choice((1, 3, 20))):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            size = rng.randrange(1, max(2, len(data) // 4))
            a, b = rng.randrange(len(data)), rng.randrange(len(data))
            data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
        case _:
            a = rng.randrange(len(data))
            del data[a : a + rng.choice((1, 2, 8, 100))]
    return bytes(data)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def _graph(proto: onnx.ModelProto, rng: random.Random) -> onnx.GraphProto:
    return rng.choice(list(graphs(proto.graph)))


def _node(proto: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    return rng.choice([node for graph in graphs(proto.graph) for node in graph.node] or [proto.graph.node.add()])


def _tensor(proto: onnx.ModelProto, rng: random.Random) -> onnx.TensorProto:
    found = [tensor for graph in graphs(proto.graph) for tensor in graph.initializer]
    found += [a.t for graph in graphs(proto.graph) for node in graph.node for a in node.attribute if a.HasField("t")]
    return rng.choice(found or [proto.graph.initializer.add()])


def _name(proto: onnx.ModelProto, rng: random.Random) -> str:
    graph = _graph(proto, rng)
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    return rng.choice(
        [*names, *(tensor.name for tensor in graph.initializer), "", "nowhere", "a\nb\x1b[2J", "x" * 5000]
    )


def kind(proto: onnx.ModelProto, rng: random.Random) -> None:
    _node(proto, rng).op_type = rng.choice([*KINDS, "Nothing", "", "Re\nlu"])


def domain(proto: onnx.ModelProto, rng: random.Random) -> None:
    _node(proto, rng).domain = rng.choice(("", "ai.onnx", "com.microsoft", "mine", "ai.onnx.ml", "x\ny"))


def rename_input(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(proto, rng)
    if node.input:
        node.input[rng.randrange(len(node.input))] = _name(proto, rng)


def rename_output(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(proto, rng)
    if node.output:
        node.output[rng.randrange(len(node.output))] = _name(proto, rng)


def swap_inputs(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(proto, rng)
    names = list(node.input)
    rng.shuffle(names)
    node.input[:] = names


def other_inputs(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(proto, rng)
    if rng.random() < 0.5 and node.input:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input.append(_name(proto, rng))


def delete_node(proto: onnx.ModelProto, rng: random.Random) -> None:
    graph = _graph(proto, rng)
    if graph.node:
        del graph.node[rng.randrange(len(graph.node))]


def copy_node(proto: onnx.ModelProto, rng: random.Random) -> None:
    nodes = _graph(proto, rng).node
    nodes.append(copy.deepcopy(_node(proto, rng)))
    if rng.random() < 0.5:
        nodes[-1].output[:] = [f"copy{i}" for i in range(len(nodes[-1].output))]


def shuffle_nodes(proto: onnx.ModelProto, rng: random.Random) -> None:
    graph = _graph(proto, rng)
    nodes = list(graph.node)
    rng.shuffle(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def attribute_value(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(proto, rng)
    if not node.attribute:
        node.attribute.append(helper.make_attribute(rng.choice(("axis", "pads", "to", "mode")), rng.choice(EXTREMES)))
        return
    attribute = rng.choice(node.attribute)
    match rng.randrange(6):
        case 0:
            attribute.i = rng.choice(EXTREMES)
        case 1:
            attribute.ints[:] = [rng.choice(EXTREMES) for _ in range(rng.choice((0, 1, 2, 4, 7)))]
        case 2:
            for i in range(len(attribute.ints)):
                if rng.random() < 0.5:
                    attribute.ints[i] = rng.choice(EXTREMES)
        case 3:
            attribute.f = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
        case 4:
            attribute.s = rng.choice((b"", b"SAME_UPPER", b"linear", b"\xff\xfe", b"x" * 5000, b"a\nb"))
        case _:
            attribute.type = rng.randrange(15)  # protobuf takes no other


def attribute_name(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(proto, rng)
    if node.attribute and rng.random() < 0.5:
        del node.attribute[rng.randrange(len(node.attribute))]
    elif node.attribute:
        rng.choice(node.attribute).name = rng.choice(("axis", "pads", "perm", "nothing", ""))


def tensor_shape(proto: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _tensor(proto, rng)
    match rng.randrange(3):
        case 0 if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(EXTREMES)
        case 1:
            tensor.dims.append(rng.choice((1, 1, *EXTREMES)))
        case _:
            dims = list(tensor.dims)
            rng.shuffle(dims)
            tensor.dims[:] = dims


def tensor_type(proto: onnx.ModelProto, rng: random.Random) -> None:
    _tensor(proto, rng).data_type = rng.randrange(30)


def tensor_numbers(proto: onnx.ModelProto, rng: random.Random) -> None:
    """Other numbers of another type and perhaps another shape, as shapes, axes and counts are stored in tensors."""
    tensor = _tensor(proto, rng)
    shape = tuple(size for size in tensor.dims if 0 <= size < 100)
    if np.prod(shape, dtype=float) > 10_000:
        return
    if rng.random() < 0.3:
        shape = rng.choice(((), (0,), (1,), (1, 1), (3,)))
    dtype = rng.choice((np.int64, np.int64, np.int32, np.float32, np.float64, np.bool_, np.float16, np.uint8))
    flat = np.array([rng.choice(EXTREMES) for _ in range(int(np.prod(shape)))], dtype=np.int64)
    with np.errstate(all="ignore"):
        tensor.CopyFrom(numpy_helper.from_array(flat.reshape(shape).astype(dtype), tensor.name))


def input_type(proto: onnx.ModelProto, rng: random.Random) -> None:
    value = rng.choice(proto.graph.input)
    value.type.tensor_type.elem_type = rng.randrange(30)


def input_shape(proto: onnx.ModelProto, rng: random.Random) -> None:
    shape = rng.choice(proto.graph.input).type.tensor_type.shape
    match rng.randrange(3):
        case 0 if shape.dim:
            rng.choice(shape.dim).dim_value = rng.choice(EXTREMES)
        case 1:
            shape.dim.add().dim_value = rng.choice(EXTREMES)
        case _ if shape.dim:
            del shape.dim[rng.randrange(len(shape.dim))]


def outputs(proto: onnx.ModelProto, rng: random.Random) -> None:
    graph = _graph(proto, rng)
    if graph.output and rng.random() < 0.3:
        del graph.output[0]
    else:
        graph.output.append(helper.make_tensor_value_info(_name(proto, rng), FLOAT, None))


def inputs(proto: onnx.ModelProto, rng: random.Random) -> None:
    graph = _graph(proto, rng)
    if graph.input and rng.random() < 0.3:
        del graph.input[0]
    else:
        graph.input.append(helper.make_tensor_value_info(_name(proto, rng), FLOAT, ["N", 4]))


def opset(proto: onnx.ModelProto, rng: random.Random) -> None:
    proto.opset_import[0].version = rng.choice((1, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 28, 99))


def external(proto: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _tensor(proto, rng)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=rng.choice(("model.onnx", "../x", "/dev/zero", "", "\0", "x" * 999)))
    tensor.external_data.add(key="offset", value=rng.choice(("0", "8", "-1", "x", str(2**70))))


def nest(proto: onnx.ModelProto, rng: random.Random) -> None:
    """Nodes of the graph into a branch of a condition, several levels deep."""
    graph = proto.graph
    if not graph.node:
        return
    node = graph.node[-1]
    for level in range(rng.choice((1, 3, 20))):
        results = [helper.make_tensor_value_info(name, FLOAT, None) for name in node.output]
        inner = helper.make_graph([node], "inner", [], results)
        names = [f"{name}_{level}" for name in node.output]
        node = helper.make_node("If", ["condition"], names, then_branch=inner, else_branch=inner)
        if node.ByteSize() > 100_000:
            break
    node.output[:] = graph.node[-1].output
    graph.node[-1].CopyFrom(node)
    graph.initializer.append(numpy_helper.from_array(np.array(rng.random() < 0.5), "condition"))


def function(proto: onnx.ModelProto, rng: random.Random) -> None:
    """An operator becomes a function of the model, which may call itself."""
    node = _node(proto, rng)
    body = copy.deepcopy(node)
    if rng.random() < 0.3:
        body.domain = "own"
    node.domain = "own"
    opsets = [helper.make_opsetid("", rng.choice((12, 23))), helper.make_opsetid("own", 1)]
    names = [name for name in dict.fromkeys(node.input) if name], [name for name in dict.fromkeys(node.output) if name]
    proto.functions.append(helper.make_function("own", node.op_type, *names, [body], opsets))
    proto.opset_import.append(opsets[1])


CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    kind, kind, domain, rename_input, rename_output, swap_inputs, other_inputs, delete_node, copy_node, shuffle_nodes,
    attribute_value, attribute_value, attribute_value, attribute_name, tensor_shape, tensor_shape, tensor_type,
    tensor_numbers, tensor_numbers, tensor_numbers, input_type, input_shape, outputs, inputs, opset, external, nest,
    function,
)  # fmt: skip
