"""From a torch module to a `Network`, through `torch.export`."""

import contextlib
import inspect
import io
import logging
import operator
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from slimline.errors import SlimlineError
from slimline.network.network import Network, get_tensor

NOISY = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes", "torch.export._trace")
LEAST_BATCH = 2  # torch.export treats a batch of 0 or 1 as a constant


def trace(
    module: nn.Module, inputs: Sequence[Tensor] | Mapping[str, Tensor], output_names: tuple[str, ...] = ()
) -> Network:
    """Trace a module in eval mode with a dynamic batch axis (axis 0 of every input).

    Args:
        module: any module that `torch.export` can trace; it is left as it was.
        inputs: example inputs in the order of ``forward``, or by its parameter names.
        output_names: names of the outputs in order; ``output``, or ``output_0`` and so on, when left out.

    Raises:
        SlimlineError: the module cannot be traced; the sentence names the line of the user's code.
    """
    names = _input_names(module, inputs)
    _check_call(module, inputs)
    values = tuple(inputs.values()) if isinstance(inputs, Mapping) else tuple(inputs)
    examples = {name: _at_least_two(value) for name, value in zip(names, values, strict=True)}
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        exported = _export(module, examples)
    finally:
        for m, mode in training.items():
            m.training = mode
    graph_module = _plain(exported.module(check_guards=False))
    outputs = next(n for n in graph_module.graph.nodes if n.op == "output").args[0]
    if not outputs or not all(isinstance(output, Node) for output in outputs):
        raise SlimlineError(f"{type(module).__name__} returns something that is no tensor: return tensors only.")
    made_up = ("output",) if len(outputs) == 1 else tuple(f"output_{i}" for i in range(len(outputs)))
    return Network(graph_module, examples, output_names or made_up, [f"traced from {type(module).__name__}"]).verify()


def _input_names(module: nn.Module, inputs: Sequence[Tensor] | Mapping[str, Tensor]) -> list[str]:
    if isinstance(inputs, Mapping):
        return list(inputs)
    parameters = [
        p.name
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(parameters) >= len(inputs):
        return parameters[: len(inputs)]
    return [f"input_{i}" for i in range(len(inputs))]


def _check_call(module: nn.Module, inputs: Sequence[Tensor] | Mapping[str, Tensor]) -> None:
    signature = inspect.signature(module.forward)
    named = isinstance(inputs, Mapping) and all(p.kind is not p.VAR_POSITIONAL for p in signature.parameters.values())
    try:
        signature.bind(**inputs) if named else signature.bind(*inputs)  # type: ignore[arg-type]
    except TypeError as error:
        raise SlimlineError(
            f"{type(module).__name__}.forward{signature} cannot take the example inputs: {error}."
        ) from error


def _at_least_two(example: Tensor) -> Tensor:
    if not isinstance(example, Tensor):
        raise SlimlineError(f"An example input is a {type(example).__name__}: give a torch tensor.")
    if example.ndim == 0 or len(example) == 0:
        raise SlimlineError("An example input has no samples: give at least one sample, batch axis first.")
    return example if len(example) >= LEAST_BATCH else torch.cat([example] * LEAST_BATCH)


def _export(module: nn.Module, examples: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    parameters = inspect.signature(module.forward).parameters
    by_name = set(parameters) >= set(examples)
    args, kwargs = ((), dict(examples)) if by_name else (tuple(examples.values()), None)
    batch = {0: torch.export.Dim.DYNAMIC}
    plain = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters.values())
    collected = max(0, len(examples) - plain)  # by a parameter such as *args, which counts as one
    positional = (*[batch] * (len(examples) - collected), *([(batch,) * collected] if collected else []))
    shapes: Any = {name: batch for name in examples} if by_name else positional
    try:
        with _quiet():
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever the user's forward or the tracer raises becomes one sentence
        ours = _ours(error)
        if ours is not None:
            raise ours from error
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        if reason.startswith("Constraints violated"):  # the batch is the only free size
            reason = "it works for one batch size only, as x.view(2, -1) does."
        raise SlimlineError(
            f"{type(module).__name__} cannot be traced by torch.export{_user_line(error)}: {reason} "
            "Rewrite that line with tensor operations whose shapes do not depend on values or on a fixed batch size."
        ) from error


def _ours(error: BaseException | None) -> SlimlineError | None:
    """The sentence that a source's own module raised while it was traced."""
    while error is not None:
        if isinstance(error, SlimlineError):
            return error
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the graphs and tracebacks that torch.export prints before it raises."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _user_line(error: BaseException) -> str:
    """`` at FILE:LINE (`code`)`` of the innermost frame outside torch and this package."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*ours, "<")):
            return f" at {frame.filename}:{frame.lineno} (`{frame.line}`)"
    return ""


def _plain(exported: GraphModule) -> GraphModule:
    """The same graph with plain arguments, no dead nodes, no in-place operators and one name per tensor."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    first_name: dict[int, str] = {}
    for node in exported.graph.nodes:
        if node.op == "output":
            outputs = torch.fx.map_arg(node.args[0], copies.__getitem__)
            flat = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
            graph.output(tuple(flat))
        elif node.op == "get_attr":
            tensor = get_tensor(exported, str(node.target))
            name = first_name.setdefault(id(tensor), str(node.target))
            copies[node] = graph.create_node("get_attr", name, name=node.name)
        elif node.op == "call_module":
            continue  # the shape guards that torch.export adds; they have no result
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta = {}
    _functionalise(graph)
    graph.eliminate_dead_code()
    root = nn.Module()
    for node in graph.nodes:
        if node.op == "get_attr":
            put_tensor(root, str(node.target), get_tensor(exported, str(node.target)))
    return GraphModule(root, graph)


def put_tensor(root: nn.Module, name: str, tensor: Tensor) -> None:
    """Store a copy of a tensor under a dotted name, as a parameter when it was one."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if leaf in root._parameters:
        del root._parameters[leaf]
    root._buffers.pop(leaf, None)
    value = tensor.detach().clone().contiguous()
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(leaf, nn.Parameter(value, requires_grad=tensor.requires_grad))
    else:
        root.register_buffer(leaf, value)


def _functionalise(graph: Graph) -> None:
    """``relu_(x)`` becomes ``relu(x)``, and what read ``x`` afterwards reads the result."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = node.target._schema.name.split("::")[1]
        if not name.endswith("_") or name.endswith("__"):
            continue
        packet = getattr(getattr(torch.ops, node.target.namespace), name[:-1], None)
        target = getattr(packet, node.target._overloadname, None)
        if target is None:
            raise SlimlineError(f"The in-place operator {node.target} has no functional form: write it without '_'.")
        source = node.args[0]
        assert isinstance(source, Node)
        others = _same_memory(source) - {source, node}
        if any(order.get(user, 0) > order[node] for other in others for user in other.users):
            raise SlimlineError(
                f"The in-place operator {node.target} writes into a view of a tensor that is read later: "
                "write it without changing a tensor in place (torch.where, torch.cat, or x = x * mask)."
            )
        later = [user for user in source.users if order.get(user, 0) > order[node]]
        for user in later:
            user.replace_input_with(source, node)
        node.target = target


def _same_memory(node: Node) -> set[Node]:
    """Every value that may share memory with a node's: views of it, what it is a view of, and views of that."""
    found, waiting = set(), [node]
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        found.add(value)
        if _is_view(value):
            waiting += value.all_input_nodes[:1]
        waiting += [user for user in value.users if _is_view(user) and user.all_input_nodes[:1] == [value]]
    return found


def _is_view(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target is operator.getitem  # of the views that chunk and split return
    marks = [result.alias_info for result in node.target._schema.returns]
    return any(mark is not None and not mark.is_write for mark in marks)
