"""An ONNX file -> Network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.sources.onnx.batch import fixed_batch, freed
from slimline.sources.onnx.file import read_model
from slimline.sources.onnx.graph import OnnxGraph, OnnxInput, build_graph
from slimline.sources.onnx.halves import widened
from slimline.sources.onnx.module import OnnxModule
from slimline.sources.onnx.rewrite import rewrite
from slimline.sources.onnx.values import TORCH_TYPES

EXAMPLES = 2
Data = Mapping[str, Tensor] | Sequence[Tensor]
"""Example inputs by name, or in the order of the file's inputs, where labels may stand behind them."""
LARGEST_BATCH = 4096
"""Samples of a fixed batch that are run to see that freeing it changes nothing."""
BATCH = 3
"""Samples in the comparison of a file whose batch is free."""
PARITY = 1e-3
"""Relative error up to which the traced network counts as the file; it catches a wrong batch axis, not rounding."""


def from_onnx(path: Path, data: Data | None = None) -> Network:
    """Read an ONNX file into a network; inputs and outputs keep their names.

    Axis 0 of every input is the batch. Where the file fixes it, it is freed if the answers to single samples stay what
    they were. Other free axes get the size that the data has. Weights in 16 bits become 32-bit ones, as what is trained
    has to be.

    Args:
        data: at least one sample of every input. Without it random numbers are made up, which needs a file that says
            every size but the batch.

    Raises:
        SlimlineError: the file cannot be read, uses operators that are not supported, or needs data to be traced.
    """
    try:
        return _imported(path, data)
    except SlimlineError as error:
        raise SlimlineError(f"{path} cannot be imported: {error}") from error


def _imported(path: Path, data: Data | None) -> Network:
    file_graph = build_graph(read_model(path))
    graph, notes = widened(file_graph)
    if not graph.inputs:
        raise SlimlineError("it has no inputs: a network has at least one.")
    examples = _examples(graph, data)
    notes += [note for item in graph.inputs for note in _fixed_axes(item, examples[item.name])]
    batch = fixed_batch(graph.inputs)
    if batch is not None and batch > LARGEST_BATCH:
        raise SlimlineError(f"it fixes a batch of {batch:,}: export it again with a free batch axis.")
    target = rewrite(graph if batch is None else freed(graph, batch))
    network = trace(OnnxModule(target), examples, tuple(graph.outputs))
    _check_batch(OnnxModule(graph), network, batch or BATCH)
    if batch is not None:
        notes.append(f"its batch of {batch} was freed")
    network.history = [", ".join([f"imported from {path.name}", *notes])]
    return network


def _examples(graph: OnnxGraph, data: Data | None) -> dict[str, Tensor]:
    names = [item.name for item in graph.inputs]
    if data is not None and not isinstance(data, Mapping):
        if len(data) not in (len(names), len(names) + 1):
            raise SlimlineError(f"it has the inputs {', '.join(names)}, but {len(data)} arrays are given.")
        data = dict(zip(names, data, strict=False))
    return {item.name: _example(item, data) for item in graph.inputs}


def _example(item: OnnxInput, data: Mapping[str, Tensor] | None) -> Tensor:
    dtype = TORCH_TYPES[item.elem_type]
    if data is not None:
        if item.name not in data:
            raise SlimlineError(f"the data has no array for its input {item.name!r}; it has {', '.join(sorted(data))}.")
        given = data[item.name]
        wanted = item.shape
        if wanted is not None and not _fits(tuple(given.shape), wanted):
            raise SlimlineError(f"its input {item.name!r} is {_shown(item)} and the data {list(given.shape)}.")
        if given.is_floating_point() != dtype.is_floating_point:
            raise SlimlineError(f"its input {item.name!r} is of type {dtype} and the data of type {given.dtype}.")
        return given[:EXAMPLES].to(dtype)
    if item.shape is None or any(not isinstance(size, int) for size in item.shape[1:]):
        raise SlimlineError(
            f"the shape of its input {item.name!r} is {_shown(item)}: give data with an example of it "
            "(--data DATA.npz)."
        )
    if not item.shape:
        raise SlimlineError(f"its input {item.name!r} is a single number: every input needs a batch axis.")
    return made_up([int(size or 1) for size in item.shape[1:]], dtype)


def _shown(item: OnnxInput) -> str:
    return "unknown" if item.shape is None else str([size or "?" for size in item.shape])


def _fits(given: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    """Whether a shape agrees with the file's, whose batch may be another."""
    if len(given) != len(wanted):
        return False
    return all(not isinstance(b, int) or a == b for a, b in zip(given[1:], wanted[1:], strict=True))


def _fixed_axes(item: OnnxInput, example: Tensor) -> list[str]:
    shape = item.shape if item.shape is not None else (None,) * example.ndim
    free = [axis for axis, size in enumerate(shape) if axis and not isinstance(size, int)]
    return [f"axis {axis} of {item.name} fixed to {example.shape[axis]} by the data" for axis in free]


def made_up(sizes: list[int], dtype: torch.dtype) -> Tensor:
    """Random numbers, or ones for integers, which are small enough for any table of embeddings."""
    if dtype.is_floating_point:
        return torch.randn((EXAMPLES, *sizes), generator=torch.Generator().manual_seed(0)).to(dtype)
    return torch.ones((EXAMPLES, *sizes), dtype=dtype)


def _check_batch(original: OnnxModule, network: Network, batch: int) -> None:
    """The network answers as the file does for a batch, also when other samples stand before it."""
    inputs = {name: torch.cat([example] * batch)[:batch] for name, example in network.examples.items()}
    with torch.no_grad():
        wanted = original(*inputs.values())
    shifted = {name: torch.cat([torch.zeros_like(value), value]) for name, value in inputs.items()}
    for name, theirs, ours in zip(network.output_names, wanted, network.run(shifted), strict=True):
        mine = ours[batch:] if ours.shape == (2 * batch, *theirs.shape[1:]) else None
        if mine is None or not _same(mine, theirs):
            raise SlimlineError(
                f"its output {name!r} for a batch of {batch} changes when other samples are put before it: "
                "axis 0 has to be the batch; export it again with a free batch axis."
            )


def _same(ours: Tensor, theirs: Tensor) -> bool:
    difference = torch.linalg.vector_norm((ours - theirs).double())
    return bool(difference <= PARITY * torch.linalg.vector_norm(theirs.double()) + 1e-9)
