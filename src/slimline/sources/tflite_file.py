"""TFLite files -> Network, through tf2onnx."""

from pathlib import Path

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.sources.conversion import Conversion, import_converted
from slimline.sources.onnx.network import Data

IDENTIFIER = b"TFL3"
"""At bytes 4 to 8 of every TFLite file."""


def from_tflite(path: Path, data: Data | None = None) -> Network:
    """Read a TFLite file into a network; inputs and outputs are named as in its signature.

    A file without a signature gives its tensors' names without TensorFlow's ``serving_default_`` and ``:0``. Quantised
    files become Q/DQ networks.

    Args:
        data: at least one sample of every input, by name or in order, axis 0 the batch.

    Raises:
        SlimlineError: TensorFlow is not installed, or the file is no TFLite file, is damaged, uses custom operators, or
            cannot be imported.
    """
    if not path.is_file():
        raise SlimlineError(f"{path} does not exist: check the path.")
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:] != IDENTIFIER:
        raise SlimlineError(f"{path} is not a TFLite file: bytes 4 to 8 are not {IDENTIFIER.decode()!r}.")
    return import_converted(Conversion("tflite", path, "tensorflow"), data)
