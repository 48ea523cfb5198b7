"""A compressed network back into a `.keras` file, where its change is one that Keras' own layers can hold."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.sources.conversion import Conversion, convert
from slimline.sources.keras_file import check_keras_file, objects
from slimline.sources.keras_match import Array, Match, Norm, match
from slimline.sources.keras_model import from_keras
from slimline.sources.onnx.network import from_onnx

WIDTHS = {
    "Dense": ("units", "kernel", -1),
    "Conv1D": ("filters", "kernel", -1),
    "Conv2D": ("filters", "kernel", -1),
    "Conv3D": ("filters", "kernel", -1),
    "Conv1DTranspose": ("filters", "kernel", -2),
    "Conv2DTranspose": ("filters", "kernel", -2),
    "SeparableConv1D": ("filters", "pointwise_kernel", -1),
    "SeparableConv2D": ("filters", "pointwise_kernel", -1),
    "Embedding": ("output_dim", "embeddings", -1),
}
"""Layer -> the entry of its config that says how wide it is, and the axis of the variable that has this width."""
PARITY = 1e-3
"""Relative error up to which the written model counts as the network."""


def write_keras(original: Path, network: Network, path: Path, allow_code: bool = False) -> None:
    """Write a network that was imported from a `.keras` file, and changed, as a `.keras` file.

    Weights may have other values (trained, shared, set to zero) and layers other widths (channels removed); the layers
    are those of the original. The written file is read again and must answer as the network does, else nothing is left.

    Args:
        original: the file that the network was imported from.
        path: the file to write.
        allow_code: as in `slimline.sources.keras_model.from_keras`.

    Raises:
        SlimlineError: the change is not one that the original's layers can hold; the sentence says which weight, and
            that ONNX can.
    """
    config = check_keras_file(original, allow_code)
    options: dict[str, Any] = {"allow_code": allow_code, "variables": True}
    with tempfile.TemporaryDirectory(prefix="slimline-") as name:
        folder = Path(name)
        convert(Conversion("keras", original, "keras", options), folder)
        variables = _read_variables(folder)
        before = from_onnx(folder / "model.onnx", network.examples)
        values = _new_values(original, before, network, variables, config)
        arrays: dict[str, Any] = {f"v{i}": values[p] for i, p in enumerate(variables) if p in values}
        np.savez(folder / "values.npz", **arrays)
        widths = _widths(config, {**variables, **values})
        options |= {"values": str(folder / "values.npz"), "widths": widths, "target": str(folder / "written.keras")}
        convert(Conversion("keras_write", original, "keras", options), folder)
        _check_parity(original, folder / "written.keras", network, allow_code)
        shutil.copyfile(folder / "written.keras", path)


def _read_variables(folder: Path) -> dict[str, Array]:
    paths = json.loads((folder / "variables.json").read_text())
    with np.load(folder / "variables.npz", allow_pickle=False) as arrays:
        return {path: arrays[f"v{i}"] for i, path in enumerate(paths)}


def _new_values(
    original: Path, before: Network, network: Network, variables: Mapping[str, Array], config: Mapping[str, Any]
) -> dict[str, Array]:
    """What the variables whose weights changed become, by path."""
    old = {name: tensor.detach() for name, tensor in before.weights().items()}
    new = {name: tensor.detach() for name, tensor in network.weights().items()}
    added = [name for name in new if name not in old or new[name].dtype != old[name].dtype]
    if added:
        raise _cannot(original, f"the network's weight {added[0]} has no place in it")
    arrays = {name: tensor.numpy() for name, tensor in old.items() if tensor.is_floating_point()}
    found = match(variables, arrays, _norms(config, variables))
    values: dict[str, Array] = {}
    for name in old:
        if name in found.inverses and name in new:
            values |= _back(original, name, old[name], new[name], found)
        elif name not in new or not torch.equal(old[name], new[name]):
            raise _cannot(original, f"the network's weight {name} changed and is not one of its variables alone")
    return values


def _back(original: Path, name: str, old: torch.Tensor, new: torch.Tensor, found: Match) -> dict[str, Array]:
    if name in found.fixed_shape and new.shape != old.shape:
        raise _cannot(original, f"the network's weight {name} has another width, which its layer cannot have")
    return found.inverses[name](new.cpu().numpy())


def _norms(config: Mapping[str, Any], variables: Mapping[str, Array]) -> list[Norm]:
    epsilons = {
        item["config"]["name"]: float(item["config"].get("epsilon", 1e-3))
        for item in objects(config)
        if item["class_name"] == "BatchNormalization"
    }
    folders = [path.rpartition("/")[0] for path in variables if path.endswith("/moving_variance")]
    return [Norm(f, epsilons[f.rpartition("/")[2]]) for f in folders if f.rpartition("/")[2] in epsilons]


def _widths(config: Mapping[str, Any], variables: Mapping[str, Array]) -> dict[str, dict[str, int]]:
    """The new width of every layer whose config says one, by the layer's name."""
    found = {}
    for item in objects(config):
        entry, leaf, axis = WIDTHS.get(item["class_name"], ("", "", 0))
        name = item["config"].get("name") if isinstance(item.get("config"), dict) else None
        held = [value for path, value in variables.items() if path.split("/")[-2:] == [name, leaf]]
        if entry and len(held) == 1:
            found[str(name)] = {entry: held[0].shape[axis]}
    return found


def _check_parity(original: Path, written: Path, network: Network, allow_code: bool) -> None:
    try:
        again = from_keras(written, network.examples, allow_code)
    except SlimlineError as error:
        raise _cannot(original, f"what was written is no valid model: {error}") from error
    for got, want in zip(again.run(network.examples), network.run(network.examples), strict=True):
        error_ = (got - want).abs().max() / want.abs().max().clamp_min(1e-30) if got.shape == want.shape else 1.0
        if error_ > PARITY:
            raise _cannot(original, "a model of its layers with the new weights answers something else")


def _cannot(original: Path, why: str) -> SlimlineError:
    return SlimlineError(
        f"The network cannot be written as a .keras file with the layers of {original}: {why.rstrip('.')}. Write it as "
        "ONNX instead."
    )
