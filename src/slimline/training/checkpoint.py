"""A training run on disk: one file that is always whole, and holds no code."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from slimline.errors import SlimlineError

FILE = "checkpoint.safetensors"
FACTS = "facts"


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """Replace the checkpoint of a folder; a crash at any moment leaves the old one or the new one.

    Returns:
        Nothing, or why the file cannot be written, such as a disk that is full; then the old one is still there.
    """
    partial = folder / f"{FILE}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_apart(tensors), partial, metadata={FACTS: json.dumps(facts)})
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(folder / FILE)
    except (SafetensorError, OSError) as error:
        _remove(partial)
        return str(getattr(error, "strerror", None) or error)
    return ""


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the order of their axes; those that share memory get their own, as the format wants it."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        kept = kept.clone() if kept.untyped_storage().data_ptr() in seen else kept
        result[name] = kept
        seen.add(kept.untyped_storage().data_ptr())
    return result


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and facts of a folder's checkpoint; None when there is none.

    Raises:
        SlimlineError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as stored:
            facts = dict(json.loads((stored.metadata() or {})[FACTS]))
            return {name: stored.get_tensor(name) for name in stored.keys()}, facts  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise SlimlineError(
            f"The training checkpoint {path} is damaged ({error}): delete it, and training begins anew."
        ) from error


def remove_checkpoint(folder: Path) -> None:
    """Forget a run that has ended."""
    _remove(folder / FILE)


def _remove(path: Path) -> None:
    """Remove a file if that can be done; one that stays is no reason to lose what was learnt."""
    with suppress(OSError):
        path.unlink()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, by the parameter's place."""
    found = {}
    for place, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                found[f"{place}.{key}"] = value
    return found


def restore_optimizer_(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, in the memory layout of the parameters."""
    parameters = _parameters(optimizer)
    for name, tensor in tensors.items():
        place, _, key = name.partition(".")
        parameter = parameters[int(place)]
        like = parameter.shape == tensor.shape and tensor.ndim > 0
        optimizer.state[parameter][key] = torch.empty_like(parameter).copy_(tensor).detach() if like else tensor


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
