"""The `.slim` file: a zip of graph.json, weights.safetensors and network.json.

Loading builds a graph from data and never executes code from the file: operators come from an allowed list, every
name is checked before a graph is built from it, sizes are checked before anything is read, and every part is hashed.
"""

import hashlib
import importlib
import json
import keyword
import math
import operator
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import put_tensor

VERSION = 1
NAMESPACES = ("aten", "quantized_decomposed")
FORBIDDEN = {"from_file", "set_", "set_data", "_print", "save"}
PLAIN = (operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg, operator.mod)
OPERATORS: dict[str, Callable[..., Any]] = {f"operator.{function.__name__}": function for function in PLAIN}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
PARTS = ("network.json", "graph.json", "weights.safetensors")
LARGEST_TEXT = 256 * 2**20
MALFORMED = (
    zipfile.BadZipFile, SafetensorError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError,
    AttributeError, RuntimeError, zlib.error, AssertionError, ArithmeticError, MemoryError, NameError, struct.error,
)  # fmt: skip
"""What reading damaged content can raise: everything of it becomes one sentence."""


def save(network: Network, path: Path) -> Path:
    """Write a network to ``path``; the file appears whole or not at all."""
    graph = [_encode_node(n) for n in network.module.graph.nodes]
    parameters = {name for name, _ in network.module.named_parameters()}
    tensors = {name: t.detach().contiguous() for name, t in network.weights().items()}
    examples = {f"input:{name}": t.contiguous() for name, t in network.examples.items()}
    parts = {
        "graph.json": json.dumps(graph, separators=(",", ":")).encode(),
        "weights.safetensors": save_tensors(tensors | examples),
    }
    head = {
        "version": VERSION,
        "inputs": list(network.examples),
        "outputs": list(network.output_names),
        "parameters": sorted(parameters),
        "history": network.history,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()},
    }
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {"network.json": json.dumps(head).encode(), **parts}.items():
            compression = zipfile.ZIP_DEFLATED if name == "graph.json" else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    partial.replace(path)
    return path


def load(path: Path) -> Network:
    """Read a network from a `.slim` file.

    Raises:
        SlimlineError: the file is missing, is not a `.slim` file, is damaged, or asks for something not allowed.
    """
    if not path.is_file():
        raise SlimlineError(f"{path} does not exist or is not a file: give the path of a .slim file.")
    try:
        parts = _read_parts(path)
        head = json.loads(parts["network.json"])
        if head["version"] != VERSION:
            raise SlimlineError(f"it has version {head['version']!r} and this slimline reads version {VERSION}.")
        digests = {name: hashlib.sha256(parts[name]).hexdigest() for name in PARTS[1:]}
        if head["sha256"] != digests:
            raise SlimlineError("its checksums do not match its content: it is damaged, copy it again.")
        tensors = load_tensors(parts["weights.safetensors"])
        module = _decode_graph(json.loads(parts["graph.json"]), tensors, set(head["parameters"]))
        examples = {str(name): tensors[f"input:{name}"] for name in head["inputs"]}
        return Network(module, examples, tuple(head["outputs"]), list(head["history"])).verify()
    except SlimlineError as error:
        raise SlimlineError(f"{path} cannot be loaded: {error}") from error
    except MALFORMED as error:
        raise SlimlineError(
            f"{path} is not a readable .slim file ({type(error).__name__}: {str(error)[:120]}): "
            "it may be truncated or not made by slimline; save it again."
        ) from error


def _read_parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if set(infos) != set(PARTS):
            raise SlimlineError(f"it holds {sorted(infos)} instead of {sorted(PARTS)}.")
        for name, info in infos.items():
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise SlimlineError(f"its {name} is packed in a way that slimline does not write.")
            if info.compress_type != zipfile.ZIP_STORED and info.file_size > LARGEST_TEXT:
                raise SlimlineError(f"its {name} would unpack to {info.file_size} bytes.")
        return {name: archive.read(info) for name, info in infos.items()}


def _encode_node(node: Node) -> dict[str, Any]:
    return {
        "op": node.op,
        "name": node.name,
        "target": _target_name(node.target) if node.op == "call_function" else str(node.target),
        "args": [_encode(a) for a in node.args],
        "kwargs": {k: _encode(v) for k, v in node.kwargs.items()},
    }


def _target_name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    for name, function in OPERATORS.items():
        if function is target:
            return name
    raise SlimlineError(f"The operator {target} cannot be stored in a .slim file.")


def _encode(value: Any) -> Any:
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, (list, tuple)):
        return {"list": [_encode(v) for v in value]} if isinstance(value, list) else [_encode(v) for v in value]
    if isinstance(value, slice):
        return {"slice": [_encode(value.start), _encode(value.stop), _encode(value.step)]}
    if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": value.type}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise SlimlineError(f"An argument of type {type(value).__name__} cannot be stored in a .slim file.")


def _decode(value: Any, nodes: dict[str, Node]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v, nodes) for v in value)
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return nodes[content]
    if kind == "list":
        return [_decode(v, nodes) for v in content]
    if kind == "slice":
        return slice(*(_decode(v, nodes) for v in content))
    if kind == "float":
        return float(content)
    if kind == "device":
        return torch.device("cpu") if content == "cpu" else torch.device(content)
    found = getattr(torch, content) if NAME.fullmatch(content) else None
    if kind != "torch" or not isinstance(found, (torch.dtype, torch.memory_format, torch.layout)):
        raise SlimlineError(f"it holds an unknown argument {value!r}.")
    return found


def _decode_target(name: str) -> Any:
    if name in OPERATORS:
        return OPERATORS[name]
    namespace, _, rest = name.partition(".")
    operator_name, _, overload = rest.partition(".")
    if namespace == "quantized_decomposed":
        importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers the operators
    known = NAME.fullmatch(operator_name) and NAME.fullmatch(overload) and operator_name not in FORBIDDEN
    packet = getattr(getattr(torch.ops, namespace), operator_name, None) if namespace in NAMESPACES and known else None
    found = getattr(packet, overload, None) if isinstance(packet, torch._ops.OpOverloadPacket) else None
    if not isinstance(found, torch._ops.OpOverload):  # torch.ops.aten has attributes that are no operators
        raise SlimlineError(f"it asks for the operator {name!r}, which is not allowed.")
    return found


def _is_identifier(name: str) -> bool:
    return NAME.fullmatch(name) is not None and not keyword.iskeyword(name)


def _decode_graph(items: list[dict[str, Any]], tensors: dict[str, Tensor], parameters: set[str]) -> GraphModule:
    graph, root = Graph(), nn.Module()
    nodes: dict[str, Node] = {}
    for item in items:
        op, name, target = item["op"], item["name"], item["target"]
        if not _is_identifier(name) or not PATH.fullmatch(target):
            raise SlimlineError(f"it holds the name {name!r} or {target!r}, which is not a plain identifier.")
        args = tuple(_decode(a, nodes) for a in item["args"])
        if not all(map(_is_identifier, item["kwargs"])):
            raise SlimlineError(f"it holds the arguments {sorted(item['kwargs'])!r}, which are not plain identifiers.")
        kwargs = {k: _decode(v, nodes) for k, v in item["kwargs"].items()}
        if op == "get_attr":
            tensor = tensors[target]
            trainable = tensor.is_floating_point()
            put_tensor(root, target, nn.Parameter(tensor, trainable) if target in parameters else tensor)
            nodes[name] = graph.create_node("get_attr", target, name=name)
        elif op == "call_function":
            nodes[name] = graph.create_node(op, _decode_target(target), args, kwargs, name=name)
        elif op == "placeholder" and _is_identifier(target):
            nodes[name] = graph.create_node("placeholder", target, name=name)
        elif op == "output":
            graph.output(args[0])
        else:
            raise SlimlineError(f"it holds a node of kind {op!r}, which is not allowed.")
    return GraphModule(root, graph)
