"""The program we work on: a traced graph with its weights, example inputs, names and history."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from slimline.errors import SlimlineError

RUNNING_MEAN_ARGUMENT, BATCH_NORM_TRAINING_ARGUMENT = 3, 5
DROPOUT_TRAINING_ARGUMENT = 2


@dataclass
class Network:
    """A trainable ATen-level graph; the first axis of every input is the batch and may have any length."""

    module: GraphModule
    examples: dict[str, Tensor]
    """Example inputs by input name, in the order of the graph's placeholders, with at least 2 samples each."""
    output_names: tuple[str, ...]
    history: list[str] = field(default_factory=list)
    """One line per step that made this network, oldest first."""

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(self.examples)

    def run(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Outputs for named inputs, without gradients."""
        with torch.no_grad():
            outputs = self.module(*(inputs[name] for name in self.input_names))
        return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)

    def copy(self) -> "Network":
        """A network that shares nothing with this one."""
        return replace(
            self,
            module=copy.deepcopy(self.module),
            examples={name: example.clone() for name, example in self.examples.items()},
            history=list(self.history),
        )

    def twin(self, training: bool) -> "Network":
        """Another graph over the very same weights, with batch norm and dropout in the mode given."""
        graph = copy.deepcopy(self.module.graph)
        return replace(self, module=GraphModule(self.module, graph), history=list(self.history)).set_training_(training)

    def weights(self) -> dict[str, Tensor]:
        """Every tensor the graph reads, by its dotted name."""
        found: dict[str, Tensor] = {}
        for node in self.module.graph.nodes:
            if node.op == "get_attr":
                found[str(node.target)] = get_tensor(self.module, str(node.target))
        return found

    def digest(self) -> str:
        """A hash of the graph's code and of the weights: that of a copy is the same."""
        found = hashlib.sha256(self.module.code.encode())
        for name, tensor in self.weights().items():
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
        return found.hexdigest()

    def parameter_count(self) -> int:
        return sum(t.numel() for t in self.weights().values())

    def set_training_(self, training: bool) -> "Network":
        """Switch batch norm and dropout, whose mode is a constant in the graph; edits this network."""
        for node in self.module.graph.nodes:
            if node.target is torch.ops.aten.dropout.default:
                node.update_arg(DROPOUT_TRAINING_ARGUMENT, training)
            elif _keeps_statistics(node):
                node.update_arg(BATCH_NORM_TRAINING_ARGUMENT, training)
        self.module.recompile()
        return self

    def is_training(self) -> bool:
        """Whether a batch norm uses, and would change, the statistics of the batch."""
        norms = (n for n in self.module.graph.nodes if _keeps_statistics(n))
        return any(n.args[BATCH_NORM_TRAINING_ARGUMENT] for n in norms)

    def tidy_(self) -> "Network":
        """Drop dead nodes and the weights that the graph no longer reads; edits this network."""
        self.module.graph.eliminate_dead_code()
        read = set(self.weights())
        for name in [n for n, _ in [*self.module.named_parameters(), *self.module.named_buffers()] if n not in read]:
            path, _, leaf = name.rpartition(".")
            owner = self.module.get_submodule(path)
            owner._parameters.pop(leaf, None)
            owner._buffers.pop(leaf, None)
        self.module.recompile()
        return self

    def verify(self) -> "Network":
        """Check the invariants (`slimline.network.invariants.verify`) and return this network."""
        from slimline.network.invariants import verify

        verify(self)
        return self


def _keeps_statistics(node: Node) -> bool:
    """A batch norm that has statistics of its own; one without always uses those of what it reads."""
    return node.target is torch.ops.aten.batch_norm.default and node.args[RUNNING_MEAN_ARGUMENT] is not None


def get_tensor(module: torch.nn.Module, name: str) -> Tensor:
    """The parameter, buffer or constant with a dotted name."""
    *path, leaf = name.split(".")
    for part in path:
        module = getattr(module, part)
    tensor = getattr(module, leaf)
    assert isinstance(tensor, Tensor), f"{name} is not a tensor"
    return tensor


def first_floating(outputs: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """The first output of floating-point numbers: what can be compared, and learnt from.

    Raises:
        SlimlineError: every output holds whole numbers.
    """
    for output in outputs:
        if output.is_floating_point():
            return output
    raise SlimlineError(
        f"No output of the network ({', '.join(names)}) holds floating-point numbers, so there is nothing to learn "
        "from: take the network without its last step, such as an argmax."
    )
