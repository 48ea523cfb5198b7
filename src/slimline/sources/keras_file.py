"""Looking into a `.keras` file before Keras does: its members, their sizes, and every class that its config names."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimline.errors import SlimlineError

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LARGEST_CONFIG = 2**26
"""Bytes; the config of a network of a thousand layers has less than one million."""
LARGEST_RATIO = 100
"""Bytes unpacked per byte of the file. Keras stores members without compression; noise in weights does not shrink."""
CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")
"""Classes that hold code, or load it, as Keras' own safe mode sees it."""
ROOMS = (
    "activations", "constraints", "distribution", "dtype_policies", "initializers", "layers", "losses", "metrics",
    "models", "ops", "optimizers", "quantizers", "random", "regularizers",
)  # fmt: skip
"""Modules of Keras whose objects a config may name; others, such as keras.utils, do more than compute."""


def check_keras_file(path: Path, allow_code: bool = False) -> dict[str, Any]:
    """The config of a `.keras` file that is safe to hand to Keras.

    Raises:
        SlimlineError: it is no such file, holds anything unexpected, unpacks to an absurd size, or needs code
            that is not Keras' own.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive.infolist())
            config = json.loads(archive.read(CONFIG))
    except SlimlineError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        # ValueError is text that is no JSON; RuntimeError an encrypted member, or JSON nested without end
        raise SlimlineError(f"{path} is not a readable .keras file ({error}): save the model again.") from error
    if not isinstance(config, dict):
        raise SlimlineError(f"{path} is not a .keras file: its {CONFIG} holds no model; save the model again.")
    without_training = {key: value for key, value in config.items() if key != "compile_config"}
    _check_classes(path, without_training, allow_code)
    return config


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    absent = [name for name in (CONFIG, METADATA, WEIGHTS) if names.count(name) != 1]
    if absent:
        raise SlimlineError(
            f"{path} is not a .keras file: it has no {absent[0]}, or has it twice; save the model again."
        )
    others = [name for name in names if name not in (CONFIG, METADATA, WEIGHTS) and name != "assets/"]
    if others:
        raise SlimlineError(
            f"{path} holds {others[0]!r} beside its weights: layers with files of their own, such as a "
            "vocabulary, cannot be converted; save the model without them."
        )
    sizes = {member.filename: member.file_size for member in members}
    if sizes[CONFIG] > LARGEST_CONFIG or sum(sizes.values()) > LARGEST_RATIO * max(path.stat().st_size, 2**10):
        raise SlimlineError(
            f"{path} unpacks to {sum(sizes.values()):,} bytes from {path.stat().st_size:,}: it is refused as a "
            "decompression bomb; save the model again."
        )


def _check_classes(path: Path, config: dict[str, Any], allow_code: bool) -> None:
    for item in objects(config):
        kind, module = str(item["class_name"]), item.get("module")
        name = item.get("config", {}).get("name") if isinstance(item.get("config"), dict) else None
        if kind in CODE or str(item.get("registered_name")).rpartition(">")[2] in CODE:
            if allow_code:
                continue
            raise SlimlineError(
                f"{path} holds code: the {kind} {name or ''!r} runs Python from the file. If you trust its author, "
                "allow it with allow_code=True; else replace it by layers of Keras."
            )
        if kind == "function":
            kind = str(item.get("config"))  # the function's name
        if "." in kind or not _is_of_keras(module, item.get("registered_name")):
            raise SlimlineError(
                f"{path} needs the class {kind} of {module or 'its author'}, which is not in the file: export the "
                "model with model.export(FOLDER) where the class is defined, and give that SavedModel folder."
            )


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every serialised object of a config, without recursion: it may be nested as deep as its author likes."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(item.get("class_name"), str):
                yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _is_of_keras(module: Any, registered_name: Any) -> bool:
    if module is None:  # __tensor__, __tuple__ and the like are data; a custom class would say where it is from
        return not isinstance(registered_name, str) or ">" not in registered_name
    parts = str(module).split(".")  # "keras", "keras.layers" or "keras.src.models.functional"
    if parts in (["builtins"], ["keras"]):
        return True
    return parts[0] == "keras" and [*parts[2 if parts[1] == "src" else 1 :], ""][0] in ROOMS
