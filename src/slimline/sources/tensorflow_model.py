"""TensorFlow SavedModel folders and frozen graphs -> Network, through tf2onnx."""

from pathlib import Path

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.sources.conversion import Conversion, import_converted
from slimline.sources.onnx.network import Data


def from_saved_model(folder: Path, data: Data | None = None) -> Network:
    """Read a SavedModel into a network; inputs and outputs are named as the arguments and keys of its signature.

    The signature ``serving_default`` is taken, or the only one. Operators that run code or touch files are refused
    before TensorFlow loads anything.

    Args:
        data: at least one sample of every input, by name or in order, axis 0 the batch.

    Raises:
        SlimlineError: TensorFlow is not installed, or the folder cannot be read, converted or imported.
    """
    if not (folder / "saved_model.pb").is_file():
        raise SlimlineError(f"{folder} is not a SavedModel: it has no saved_model.pb; give the folder that holds it.")
    return import_converted(Conversion("saved_model", folder, "tensorflow"), data)


def from_frozen_graph(path: Path, data: Data | None = None) -> Network:
    """Read a frozen GraphDef (`.pb`) into a network.

    Its placeholders are the inputs, and what nobody reads are the outputs; both keep their nodes' names.

    Args:
        data: at least one sample of every input, by name or in order, axis 0 the batch.

    Raises:
        SlimlineError: TensorFlow is not installed, or the file cannot be read, converted or imported.
    """
    if not path.is_file():
        raise SlimlineError(f"{path} does not exist: check the path.")
    if path.name == "saved_model.pb":
        return from_saved_model(path.parent, data)
    return import_converted(Conversion("frozen_graph", path, "tensorflow"), data)
