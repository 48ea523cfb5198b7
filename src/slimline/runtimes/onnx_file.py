"""From a `Network` to one small ONNX file."""

import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxscript import ir
from onnxscript.optimizer import optimize_ir
from onnxscript.rewriter.onnx_fusions import fuse

from slimline.errors import SlimlineError
from slimline.network.network import Network, get_tensor
from slimline.runtimes.onnx_operators import OPSET, TRANSLATIONS
from slimline.runtimes.runtime import SIDECAR

ONE_FILE_AT_MOST = 1_500_000_000
"""Bytes of weights above which they get a file of their own: protobuf ends at 2 GiB."""
ALWAYS_FOLDED = 1024
"""Bytes up to which a constant that is computed from others is stored in their place whatever it costs: shapes."""
BATCH = "batch"
"""Name of the free first axis in the file."""
OPERATOR = re.compile(r"op='([\w.]+)'|target=torch\.ops\.([\w.]+?)(?:\.default)?\]")


def write_onnx(network: Network, path: Path) -> None:
    """Write a network as an ONNX file (opset 18) with a free batch axis and the network's input and output names.

    Quantise/dequantise pairs become QuantizeLinear and DequantizeLinear, and integer weights stay integers. Notes for
    debugging that exporters leave behind (stack traces, types and long names of intermediate values) are removed, as
    they can outweigh a small network. More than 1.5 GB of weights are stored beside the file, in ``NAME.data``.

    Raises:
        SlimlineError: an operator has no ONNX form, or an int32 constant has a zero point, which ONNX does not know.
    """
    plain = network.copy().set_training_(False).tidy_()
    plain.module.requires_grad_(False)  # torch.export decomposes attention in another way where a bias has a gradient
    _check_zero_points(plain)
    model = _translate(plain)
    _pad_with_minus_zero(model)
    _strip(model)
    weights = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    path.with_name(path.name + SIDECAR).unlink(missing_ok=True)  # of an earlier network
    ir.save(model, path, external_data=path.name + SIDECAR if weights > ONE_FILE_AT_MOST else None)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SlimlineError(
            f"{path} is not valid ONNX after the export: {' '.join(str(error).split())[:200]}."
        ) from error


def _check_zero_points(network: Network) -> None:
    for node in network.module.graph.nodes:
        if node.target is torch.ops.quantized_decomposed.dequantize_per_channel.default and node.args[6] == torch.int32:
            name = str(node.args[2].target)
            if get_tensor(network.module, name).any():
                raise SlimlineError(
                    f"The int32 constant of {node.name} has zero points ({name}); ONNX needs them to be 0."
                )


def _translate(network: Network) -> ir.Model:
    examples = tuple(network.examples.values())
    batch = tuple({0: torch.export.Dim.DYNAMIC} for _ in examples)
    with _quiet():
        try:
            exported = torch.export.export(network.module, examples, dynamic_shapes=batch, strict=False)
            program = torch.onnx.export(
                exported,
                dynamo=True,
                verbose=False,
                input_names=list(network.input_names),
                output_names=list(network.output_names),
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                optimize=False,
            )
            assert program is not None
            optimize_ir(program.model, should_fold=_should_fold)
            fuse(program.model)
        except Exception as error:  # the exporter raises what its many parts raise; told as one sentence
            raise SlimlineError(_sentence(error)) from error
    for node in program.model.graph.all_nodes():
        if (
            node.op_type == "GRU"
        ):  # torch multiplies by the reset gate after the product; onnxscript 0.7 leaves that out
            node.attributes["linear_before_reset"] = ir.AttrInt64("linear_before_reset", 1)
    return program.model


def _should_fold(node: ir.Node) -> bool | None:
    """No where the file would grow; else what the optimiser thinks best.

    Folding a transpose stores a weight that others read too a second time, and folding a look-up undoes a codebook.
    The runtimes fold such constants themselves when they load the file.
    """
    folded = node.outputs[0]
    if len(node.outputs) > 1 or folded.shape is None or folded.dtype is None or not folded.shape.is_static():
        return None
    size = folded.dtype.itemsize * math.prod(folded.shape.numpy())
    stored = {value for value in node.inputs if value is not None and all(use.node is node for use in value.uses())}
    freed = sum(value.const_value.nbytes for value in stored if value.const_value is not None)
    return False if size > max(freed, ALWAYS_FOLDED) else None


def _pad_with_minus_zero(model: ir.Model) -> None:
    """Before a max pooling, pad with -0.0, which is zero; edits the model.

    ONNX Runtime 1.31 merges a padding with 0.0 into a max pooling that follows, which pads with the lowest number
    instead: the borders of negative values come out wrong. It leaves one with -0.0 alone.
    """
    for node in model.graph.all_nodes():
        if node.op_type != "Pad" or not any(use.node.op_type == "MaxPool" for use in node.outputs[0].uses()):
            continue
        value = node.inputs[2] if len(node.inputs) > 2 else None
        if node.attributes.get_string("mode", "constant") != "constant" or node.outputs[0].dtype is None:
            continue
        if value is not None and (value.const_value is None or value.const_value.numpy().any()):
            continue
        name = f"{node.outputs[0].name}_padding"
        zero = ir.tensor(np.array(-0.0, node.outputs[0].dtype.numpy()), name=name)
        padding = ir.Value(name=name, const_value=zero, type=ir.TensorType(zero.dtype), shape=ir.Shape([]))
        model.graph.register_initializer(padding)
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, padding)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes about optional packages and deprecations; its errors are raised, not logged."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _sentence(error: BaseException) -> str:
    """The operator at fault and the innermost reason."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    found = next((match for e in reversed(chain) if (match := OPERATOR.search(str(e)))), None)
    operator = (found[1] or found[2]) if found else "an operator"
    reason = next(iter(str(chain[-1]).strip().splitlines()), type(chain[-1]).__name__)[:200]
    return f"{operator} cannot be written as ONNX ({reason}): replace it in the network, or use the torch runtime."


def _strip(model: ir.Model) -> None:
    """Remove what no runtime reads; edits the model."""
    graph = model.graph
    batches = {str(value.shape[0]) for value in graph.inputs if value.shape is not None}
    kept = {*graph.inputs, *graph.outputs, *graph.initializers.values()}
    taken = {value.name for value in kept}
    fresh = (name for number in count() if (name := f"v{number}") not in taken)
    model.doc_string = graph.doc_string = None
    graph.name = "network"
    model.metadata_props.clear()
    graph.metadata_props.clear()
    for value in kept:
        value.metadata_props.clear()
    for value in graph.initializers.values():
        if not value.is_graph_input() and not value.is_graph_output():
            value.type = value.shape = None  # the tensor itself says both
    for node in graph.all_nodes():
        node.doc_string = node.name = None
        node.metadata_props.clear()
        _drop_defaults(node)
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in kept and value.name:
                value.name, value.type, value.shape = next(fresh), None, None
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None:
            sizes = [BATCH if str(size) in batches else size for size in value.shape]
            value.shape = ir.Shape(sizes)


def _drop_defaults(node: ir.Node) -> None:
    """Remove attributes that say what ONNX assumes without them."""
    if node.domain != "":
        return
    schema = onnx.defs.get_schema(node.op_type, OPSET)
    for name, attribute in list(node.attributes.items()):
        default = schema.attributes[name].default_value
        if (
            default.type != onnx.AttributeProto.UNDEFINED
            and ir.serde.deserialize_attribute(default).value == attribute.value
        ):
            del node.attributes[name]
