"""The process that runs the converters; it is started by `slimline.sources.conversion` and imports no torch.

It is given a folder with ``request.json`` (kind, source, options) and leaves ``model.onnx`` and ``reply.json`` there. A
reply with ``error`` holds the end of a sentence that begins with the source.

Names: inputs and outputs keep those the framework shows its users. Keras: the names of the Input layers, and of the
layers (or the keys) that give the outputs. SavedModel: the arguments and the keys of the signature. Frozen graph: the
nodes' names; a second output of a node has its number after an underscore. TFLite: the names of the signature where the
file has one, else the tensors' names without TensorFlow's ``serving_default_`` and ``:0``.
"""

import json
import os
import re
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from slimline.errors import SlimlineError
from slimline.sources import tf2onnx_operators
from slimline.sources.tensorflow_code import code_of_saved_model, code_operators

OPSET = 18
"""The newest that tf2onnx 1.17 writes."""


def refuse_code(operators: list[str]) -> None:
    """Raise when there are operators that run code or touch files.

    Raises:
        SlimlineError: with all of them by name.
    """
    if operators:
        raise SlimlineError(
            f"is refused: its operators {', '.join(operators)} run code, or read or write files; save it without them."
        )


def from_function(function: Callable[..., Any], specs: list[Any], outputs: list[str] | None) -> Any:
    """A function of tensors -> ONNX, its inputs named as the specs and its outputs as given, in order."""
    import tensorflow as tf
    import tf2onnx

    tf2onnx_operators.register()
    traced = tf.function(function, input_signature=specs)
    model, _ = tf2onnx.convert.from_function(traced, specs, opset=OPSET)
    captured_as_constants(model.graph, traced.get_concrete_function().graph.captures)
    names = {}
    if outputs is not None and len(outputs) == len(model.graph.output):
        names = {value.name: name for value, name in zip(model.graph.output, outputs, strict=True)}
    rename(model.graph, names)
    return model


def captured_as_constants(graph: Any, captures: Iterable[tuple[Any, Any]]) -> None:
    """Tensors that a function reads from outside, such as the mean of a Keras Normalization layer, which tf2onnx leaves
    as inputs, become constants; edits the graph.

    Args:
        captures: pairs of a tensor outside and its placeholder inside.
    """
    from onnx import numpy_helper

    outside = {inner.name: outer for outer, inner in captures if hasattr(outer, "numpy")}
    for value in [v for v in graph.input if v.name in outside]:
        graph.initializer.append(numpy_helper.from_array(outside[value.name].numpy(), value.name))
        graph.input.remove(value)


def load_keras(source: Path, allow_code: bool) -> Any:
    """The model of a `.keras` file, which the caller has checked (`slimline.sources.keras_file`)."""
    import keras

    try:
        model = keras.models.load_model(source, compile=False, safe_mode=not allow_code)
    except Exception as error:  # Keras raises whatever a layer raises; each means that the file cannot be loaded
        raise SlimlineError(f"cannot be loaded by Keras {keras.__version__}: {reason(error)}") from error
    if not getattr(model, "inputs", None):
        raise SlimlineError("has no input shape: begin the model with keras.Input, build it and save it again.")
    return model


def keras_to_onnx(model: Any) -> Any:
    """A Keras model -> ONNX."""
    import tensorflow as tf

    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]

    def run(*inputs: Any) -> Any:
        return model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)

    outputs = getattr(model, "output_names", None) or [t.name.split("/")[0] for t in model.outputs]
    return from_function(run, specs, list(outputs))


def keras_file(source: Path, options: Mapping[str, Any], folder: Path) -> Any:
    """A `.keras` file -> ONNX; the option ``variables`` leaves their values in ``variables.npz`` too."""
    import numpy as np

    model = load_keras(source, bool(options.get("allow_code")))
    if options.get("variables"):
        (folder / "variables.json").write_text(json.dumps([variable.path for variable in model.weights]))
        values: dict[str, Any] = {f"v{i}": np.asarray(v) for i, v in enumerate(model.weights)}
        np.savez(folder / "variables.npz", **values)
    return keras_to_onnx(model)


def keras_write(source: Path, options: Mapping[str, Any], folder: Path) -> None:
    """A `.keras` file with other values and widths -> a `.keras` file."""
    import keras
    import numpy as np

    model = load_keras(source, bool(options.get("allow_code")))
    if options.get("allow_code"):
        keras.config.enable_unsafe_deserialization()
    config = model.get_config()
    widen(config, options["widths"])
    written = type(model).from_config(config)
    if [variable.path for variable in written.weights] != [variable.path for variable in model.weights]:
        raise SlimlineError(
            "cannot be written: a layer of it makes other variables when it is built again; write ONNX instead."
        )
    with np.load(options["values"], allow_pickle=False) as values:
        for i, (old, new) in enumerate(zip(model.weights, written.weights, strict=True)):
            value = values[f"v{i}"] if f"v{i}" in values else np.asarray(old)
            if value.shape != tuple(new.shape):
                raise SlimlineError(
                    f"cannot be written: its variable {new.path} is {list(new.shape)} and the network's is "
                    f"{list(value.shape)}; write ONNX instead."
                )
            new.assign(value)
    written.save(options["target"])


def widen(config: Any, widths: Mapping[str, Mapping[str, int]]) -> None:
    """Change the widths in a model's config, and drop the shapes that depend on them."""
    if isinstance(config, dict):
        for derived in ("build_config", "compile_config", "build_input_shape"):
            config.pop(derived, None)
        inner = config.get("config")
        if isinstance(inner, dict) and config.get("class_name") and inner.get("name") in widths:
            inner.update(widths[inner["name"]])
        config = list(config.values())
    for item in config if isinstance(config, (list, tuple)) else ():
        widen(item, widths)


def saved_model(source: Path, options: Mapping[str, Any], folder: Path) -> Any:
    """A SavedModel -> ONNX, by its signature ``serving_default`` or its only one."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    parsed = saved_model_pb2.SavedModel()
    try:
        parsed.ParseFromString((source / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise SlimlineError("is damaged: its saved_model.pb cannot be parsed; save it again.") from error
    for graph in parsed.meta_graphs:
        refuse_code(code_of_saved_model(graph))
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(source)
    except Exception as error:  # whatever TensorFlow raises for missing or damaged variables
        raise SlimlineError(f"cannot be loaded by TensorFlow {tf.__version__}: {reason(error)}") from error
    signatures = list(loaded.signatures)
    wanted = "serving_default" if "serving_default" in signatures else signatures[0] if len(signatures) == 1 else None
    if wanted is None:
        exist = f"only has {', '.join(signatures)}" if signatures else "has none"
        raise SlimlineError(f"has no signature named serving_default, it {exist}: save it with that signature.")
    signature = loaded.signatures[wanted]
    given = signature.structured_input_signature[1]
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in given.items()]

    def run(*inputs: Any) -> Any:
        return signature(**dict(zip(given, inputs, strict=True)))

    return from_function(run, specs, None)


def frozen_graph(source: Path, options: Mapping[str, Any], folder: Path) -> Any:
    """A GraphDef without variables -> ONNX, from its placeholders to the nodes that nobody reads."""
    import tensorflow as tf
    import tf2onnx
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import graph_pb2

    definition = graph_pb2.GraphDef()
    try:
        definition.ParseFromString(source.read_bytes())
    except DecodeError as error:
        raise SlimlineError("is not a TensorFlow graph, or is truncated: copy or freeze it again.") from error
    if not definition.node:
        raise SlimlineError("holds no TensorFlow graph: freeze it again.")
    refuse_code(code_operators(definition))
    variables = sorted({node.op for node in definition.node if re.fullmatch(r"VarHandleOp|Variable(V2)?", node.op)})
    if variables:
        raise SlimlineError(
            f"is not frozen: it has variables ({', '.join(variables)}); give the SavedModel folder instead."
        )
    try:
        whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    except Exception as error:  # TensorFlow raises many kinds for one meaning: the graph is wrong
        raise SlimlineError(f"is not a valid TensorFlow graph: {reason(error)}") from error
    operators = whole.graph.get_operations()
    inputs = [op.outputs[0] for op in operators if op.type == "Placeholder"]
    outputs = [tensor for op in operators if is_result(op) for tensor in op.outputs]
    if not inputs or not outputs:
        raise SlimlineError("has no placeholder, or no node that nobody reads: give the SavedModel folder instead.")
    function = whole.prune(inputs, outputs)
    tf2onnx_operators.register()
    # tf2onnx asks for the concrete function; a tf.function around it would hide old control flow in a call
    wrapped = SimpleNamespace(get_concrete_function=lambda *_: function)
    model, _ = tf2onnx.convert.from_function(wrapped, [None] * len(inputs), opset=OPSET)
    rename(model.graph, {tensor.name: plain(tensor.name) for tensor in [*inputs, *outputs]})
    return model


def is_result(op: Any) -> bool:
    """Whether nobody reads any output of an operator that computes something."""
    return bool(op.outputs) and op.type not in ("Const", "Placeholder") and not any(t.consumers() for t in op.outputs)


def plain(name: str) -> str:
    """``x:0`` -> ``x``, ``x:1`` -> ``x_1``."""
    stem, _, number = name.partition(":")
    return stem if number in ("", "0") else f"{stem}_{number}"


def tflite_file(source: Path, options: Mapping[str, Any], folder: Path) -> Any:
    """A TFLite file -> ONNX."""
    import tensorflow as tf
    import tf2onnx
    from tf2onnx.tflite.Model import Model

    try:
        parsed = Model.GetRootAsModel(bytearray(source.read_bytes()), 0)
        custom = tflite_walk(parsed)
    except (SlimlineError, struct.error, ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise SlimlineError(f"is damaged: {reason(error)}") from error
    if custom:
        raise SlimlineError(f"uses the custom operators {', '.join(custom)}, which only their own program can run.")
    try:
        interpreter = tf.lite.Interpreter(model_path=str(source))
        signatures = interpreter.get_signature_list()
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise SlimlineError(f"is damaged: {reason(error)}") from error
    tf2onnx_operators.register()
    model, _ = tf2onnx.convert.from_tflite(str(source), opset=OPSET)
    ends = [*model.graph.input, *model.graph.output]
    names = {value.name: plain(value.name.removeprefix("serving_default_")) for value in ends}
    rename(model.graph, {**names, **(tflite_signature(parsed) if len(signatures) == 1 else {})})
    return model


def tflite_walk(model: Any) -> list[str]:
    """The custom operators of a TFLite model, after touching all that TFLite itself would follow without looking."""
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    for i in range(model.BuffersLength()):
        model.Buffers(i).DataAsNumpy()
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        ends = [graph.InputsAsNumpy(), graph.OutputsAsNumpy()]
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            codes[operator.OpcodeIndex()]
            ends += [operator.InputsAsNumpy(), operator.OutputsAsNumpy()]
        for tensor in tensors:
            tensor.Name().decode()
            tensor.ShapeAsNumpy()
            model.Buffers(tensor.Buffer()).DataLength()
        if any(getattr(end, "size", 0) and end.max() >= len(tensors) for end in ends):
            raise SlimlineError("an operator reads a tensor that is not there")
    return sorted({(code.CustomCode() or b"").decode(errors="replace") for code in codes if code.CustomCode()})


def tflite_signature(model: Any) -> dict[str, str]:
    """The tensors of a TFLite model's only signature -> what the signature calls them."""
    signature = model.SignatureDefs(0)
    graph = model.Subgraphs(signature.SubgraphIndex())
    maps = [signature.Inputs(i) for i in range(signature.InputsLength())]
    maps += [signature.Outputs(i) for i in range(signature.OutputsLength())]
    return {graph.Tensors(entry.TensorIndex()).Name().decode(): entry.Name().decode() for entry in maps}


def rename(graph: Any, names: Mapping[str, str]) -> None:
    """Give values of an ONNX graph other names, in its subgraphs too; what has one of the names gets an underscore."""
    ends = {value.name for value in [*graph.input, *graph.output]}
    names = {old: new for old, new in names.items() if old in ends and old != new}
    kept = ends - set(names)
    if len(set(names.values())) < len(names) or kept & set(names.values()):
        return  # two values cannot have one name: the converter's are kept
    every = set(_values(graph))
    moved = {new: new + "_" for new in names.values() if new in every and new not in names}
    while any(new in every for new in moved.values()):
        moved = {old: new + "_" for old, new in moved.items()}
    _rename(graph, {**moved, **names})


def name_nodes(graph: Any) -> None:
    """Nodes that tf2onnx only numbered (``Conv__60``) are called after the layer whose weights they read."""
    for node in graph.node:
        if re.fullmatch(r"\w+__\d+", node.name):
            paths = [value for value in [*node.input[1:], *node.output] if "/" in value]
            node.name = paths[0].rpartition("/")[0] if paths else node.name


def _values(graph: Any) -> Iterable[str]:
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            yield from _values(attribute.g)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


def refuse_unconverted(graph: Any) -> None:
    """tf2onnx leaves operators that it does not know in the graph.

    Raises:
        SlimlineError: with all of them by name.
    """
    import onnx

    def kinds(graph: Any) -> Iterable[str]:
        for node in graph.node:
            if not onnx.defs.has(node.op_type, node.domain):
                yield node.op_type
            for attribute in node.attribute:
                yield from kinds(attribute.g)

    found = sorted(set(kinds(graph)))
    if found:
        raise SlimlineError(f"uses operators that tf2onnx cannot convert to ONNX: {', '.join(found)}.")


def reason(error: BaseException) -> str:
    """The first line that an exception says, as the end of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0][:300] if lines else type(error).__name__).rstrip(".") + "."


KINDS: dict[str, Callable[[Path, Mapping[str, Any], Path], Any]] = {
    "keras": keras_file,
    "keras_write": keras_write,
    "saved_model": saved_model,
    "frozen_graph": frozen_graph,
    "tflite": tflite_file,
}


def bound_memory() -> None:
    """A file that asks for absurd sizes must get a MemoryError before the machine swaps."""
    try:
        import resource
    except ImportError:  # Windows
        return
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_DATA, (physical, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def main(folder: Path) -> None:
    """Do what ``request.json`` in the folder asks."""
    request = json.loads((folder / "request.json").read_text())
    bound_memory()
    try:
        model = KINDS[request["kind"]](Path(request["source"]), request["options"], folder)
        if model is not None:
            refuse_unconverted(model.graph)
            name_nodes(model.graph)
            (folder / "model.onnx").write_bytes(model.SerializeToString())
        reply: dict[str, Any] = {"done": True}
    except SlimlineError as error:
        reply = {"error": str(error)}
    except Exception as error:  # a converter may raise anything; the caller gets its first line
        import traceback

        traceback.print_exc()
        reply = {"error": f"cannot be converted to ONNX: {type(error).__name__}: {reason(error)}"}
    (folder / "reply.json").write_text(json.dumps(reply))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
