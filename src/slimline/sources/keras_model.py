"""Keras 3 models, in memory or as `.keras` files -> Network, through TensorFlow and tf2onnx.

Keras' own ``model.export(format="onnx")`` is tf2onnx under the TensorFlow backend; under torch it unrolls every LSTM.
The worker calls tf2onnx itself, always with the TensorFlow backend: a `.keras` file does not know which one wrote it,
the batch stays free, batch norms are folded, and an LSTM stays one operator.
"""

import tempfile
from pathlib import Path
from typing import Any

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.sources.conversion import Conversion, import_converted, require
from slimline.sources.keras_file import check_keras_file
from slimline.sources.onnx.network import Data


def from_keras(source: Path | Any, data: Data | None = None, allow_code: bool = False) -> Network:
    """Read a Keras 3 model or a `.keras` file into a network.

    Inputs are named as the model's Input layers, outputs as the layers, or the keys of a dict, that give them. A model
    in memory may use any backend: it is saved and read again.

    Args:
        data: at least one sample of every input, by name or in order, axis 0 the batch.
        allow_code: let Lambda layers run; their code comes from the file.

    Raises:
        SlimlineError: Keras is not installed, or the model cannot be read, needs code, or cannot be converted or
            imported.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise SlimlineError(f"{path} does not exist: check the path.")
        check_keras_file(path, allow_code)
        return import_converted(Conversion("keras", path, "keras", {"allow_code": allow_code}), data)
    shown = f"the Keras model {getattr(source, 'name', '')!r}"
    require("keras", shown)
    with tempfile.TemporaryDirectory(prefix="slimline-") as folder:
        path = Path(folder) / "model.keras"
        try:
            source.save(path)
        except Exception as error:  # Keras raises whatever a layer's get_config raises
            raise SlimlineError(f"{shown} cannot be saved: {type(error).__name__}: {error}") from error
        try:
            check_keras_file(path, allow_code)
        except SlimlineError as error:
            raise SlimlineError(str(error).replace(str(path), shown)) from error
        return import_converted(Conversion("keras", path, "keras", {"allow_code": allow_code}, shown), data)
