"""From a torch module to a `Network`, through `torch.export`."""

import contextlib
import dataclasses
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
CHECK = torch.ops.aten._assert_tensor_metadata.default
"""Written by torch.export where a module says ``.float()``. It has no result, and autocast breaks what it asserts."""
LEAST_BATCH = 2  # torch.export treats a batch of 0 or 1 as a constant


def trace(
    module: nn.Module, inputs: Sequence[Tensor] | Mapping[str, Tensor], output_names: tuple[str, ...] = ()
) -> Network:
    """Trace a module in eval mode with a dynamic batch axis (axis 0 of every input).

    Args:
        module: any module that `torch.export` can trace; it is left as it was.
        inputs: example inputs in the order of ``forward``, or by its parameter names.
        output_names: names of the outputs in order. When left out they are the keys of the dict, the fields of the
            dataclass or the named tuple that ``forward`` returns, otherwise ``output``, or ``output_0`` and so on.

    Of what ``forward`` returns under a name only tensors are kept; other entries, such as None and nested tuples, are
    dropped and told in the history.

    Raises:
        SlimlineError: the module cannot be traced; the sentence names the line of the user's code.
    """
    names = _input_names(module, inputs)
    _check_call(module, inputs)
    values = tuple(inputs.values()) if isinstance(inputs, Mapping) else tuple(inputs)
    examples = {name: _at_least_two(value) for name, value in zip(names, values, strict=True)}
    training = {m: m.training for m in module.modules()}
    if not isinstance(module, GraphModule):  # an exported program's refuses; its mode stands in its graph
        module.eval()
    named = _NamedOutputs()
    hook = module.register_forward_hook(named)
    try:
        exported = _export(module, examples)
    finally:
        hook.remove()
        for m, mode in training.items():
            m.training = mode
    graph_module = _plain(exported.module(check_guards=False))
    outputs = next(n for n in graph_module.graph.nodes if n.op == "output").args[0]
    if not outputs or not all(isinstance(output, Node) for output in outputs):
        raise SlimlineError(f"{type(module).__name__} returns something that is no tensor: return tensors only.")
    made_up = ("output",) if len(outputs) == 1 else tuple(f"output_{i}" for i in range(len(outputs)))
    network = Network(graph_module, examples, output_names or named.names or made_up, [_origin(module, named)])
    return network.set_training_(False).verify()


class _NamedOutputs:
    """A forward hook that turns outputs with names into a plain dict of the tensors among them."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.dropped: tuple[str, ...] = ()

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if dataclasses.is_dataclass(output) and not isinstance(output, Mapping):
            output = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
        elif isinstance(output, tuple) and hasattr(output, "_fields"):
            output = dict(zip(output._fields, output, strict=True))
        if not isinstance(output, Mapping):
            return None  # as it was
        tensors = {str(name): value for name, value in output.items() if isinstance(value, Tensor)}
        self.names = tuple(tensors)
        present = (str(name) for name, value in output.items() if value is not None)
        self.dropped = tuple(name for name in present if name not in tensors)
        return tensors


def _origin(module: nn.Module, named: _NamedOutputs) -> str:
    """The first line of the history."""
    dropped = f" without its outputs {', '.join(named.dropped)}, which are no tensors" if named.dropped else ""
    return f"traced from {type(module).__name__}{dropped}"


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
    by_name = set(parameters) >= set(examples) and _may_be_named(module)
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


def _may_be_named(module: nn.Module) -> bool:
    """An exported program takes only those inputs by name that were given by name when it was exported."""
    specification = getattr(module, "_in_spec", None)
    return specification is None or specification.child(1).num_children > 0


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
    copies: dict[Node, Any] = {}
    first_name: dict[int, str] = {}
    outputs = _copy_nodes(exported, graph, copies, first_name)
    graph.output(tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,))
    _functionalise(graph)
    graph.eliminate_dead_code()
    root = nn.Module()
    for node in graph.nodes:
        if node.op == "get_attr":
            put_tensor(root, str(node.target), get_tensor(exported, str(node.target)))
    return GraphModule(root, graph)


def _copy_nodes(
    exported: GraphModule, graph: Graph, copies: dict[Node, Any], first_name: dict[int, str], prefix: str = ""
) -> Any:
    """Append the nodes of a module to a graph and return what its output node holds there.

    Args:
        copies: what stands for a node of the module: a node of the graph, or a tuple of them; its placeholders may be
            there before.
        first_name: the name that a tensor got when it was met first, by its id.
        prefix: where the module hangs in the one that is traced.
    """
    outputs: Any = ()
    for node in exported.graph.nodes:
        if node in copies or node.op == "call_module" or node.target is CHECK:
            continue  # the shape guards that torch.export adds are modules; they have no result
        if node.op == "output":
            outputs = torch.fx.map_arg(node.args[0], copies.__getitem__)
        elif node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(exported)
            if isinstance(value, Tensor):  # else a part of the graph, copied where it is called
                name = first_name.setdefault(id(value), prefix + str(node.target))
                copies[node] = graph.create_node("get_attr", name, name=node.name)
        elif isinstance(node.target, torch._ops.HigherOrderOperator):
            part, values = _called_part(node)
            inner = exported.get_submodule(str(part.target))
            assert isinstance(inner, GraphModule)
            placeholders = [n for n in inner.graph.nodes if n.op == "placeholder"]
            given = torch.fx.map_arg(tuple(values), copies.__getitem__)
            known = dict(zip(placeholders, given, strict=True))
            copies[node] = _copy_nodes(inner, graph, known, first_name, f"{prefix}{part.target}.")
        elif node.target is operator.getitem and isinstance(copies[node.args[0]], (tuple, list)):
            copies[node] = copies[node.args[0]][node.args[1]]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta = {}
    return outputs


def _called_part(node: Node) -> tuple[Node, tuple[Any, ...]]:
    """The part of the graph that a node calls and the values it gets, where the call itself changes nothing.

    A part under ``torch.no_grad()``, or where mixed precision is switched off, computes the same outside it.
    """
    name, args = str(node.target), node.args
    if name == "wrap_with_set_grad_enabled":
        part, values = args[1], args[2:]
    elif name == "wrap_with_autocast" and not args[2]:
        part, values = args[4], args[5:]
    else:
        raise SlimlineError(
            f"The network uses {name}, which slimline has no form for: write it with plain tensor operations."
        )
    assert isinstance(part, Node)
    return part, values


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
