"""What holds for every network after every method."""

import torch

from slimline.errors import SlimlineError
from slimline.network.network import Network, get_tensor


def verify(network: Network) -> None:
    """Check shapes, dead weights and a run at batch 1, 2 and 3.

    Raises:
        SlimlineError: an invariant is broken; the sentence names it.
    """
    network.module.graph.lint()
    runnable = network.copy().set_training_(False) if network.is_training() else network
    read = {str(n.target) for n in network.module.graph.nodes if n.op == "get_attr"}
    stored = {name for name, _ in network.module.named_parameters()} | {n for n, _ in network.module.named_buffers()}
    if stored - read:
        raise SlimlineError(f"The network stores weights that its graph never reads: {sorted(stored - read)}.")
    for name in read:
        if not get_tensor(network.module, name).is_contiguous():
            raise SlimlineError(f"The weight {name} is not contiguous: store it with .contiguous().")
    placeholders = [n.name for n in network.module.graph.nodes if n.op == "placeholder"]
    if len(placeholders) != len(network.examples):
        raise SlimlineError(f"The graph has {len(placeholders)} inputs but {len(network.examples)} example inputs.")
    for batch in (1, 2, 3):
        inputs = {name: _resize(value, batch) for name, value in network.examples.items()}
        outputs = _run(runnable, inputs, batch)
        if len(outputs) != len(network.output_names):
            raise SlimlineError(f"The graph has {len(outputs)} outputs but {len(network.output_names)} names.")
        for name, output in zip(network.output_names, outputs, strict=True):
            if output.ndim == 0 or len(output) != batch:
                raise SlimlineError(
                    f"Output {name} has shape {tuple(output.shape)} for a batch of {batch}: "
                    "the first axis of every output has to be the batch."
                )


def _run(network: Network, inputs: dict[str, torch.Tensor], batch: int) -> tuple[torch.Tensor, ...]:
    try:
        return network.run(inputs)
    except Exception as error:  # an operator raises what it raises, such as for numbers outside a table
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise SlimlineError(f"The network cannot run a batch of {batch} of its example inputs ({reason}).") from error


def _resize(example: torch.Tensor, batch: int) -> torch.Tensor:
    copies = -(-batch // len(example))
    return torch.cat([example] * copies)[:batch]
