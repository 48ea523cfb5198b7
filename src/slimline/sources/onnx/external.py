"""Weights that an ONNX file keeps in files beside it."""

import hashlib
import stat
from pathlib import Path

import onnx

from slimline.errors import SlimlineError
from slimline.sources.onnx.limits import quoted
from slimline.sources.onnx.tensors import stored_bytes, title

SHA1_DIGITS = 40


class ExternalFiles:
    """The files in the folder of a model that hold its weights; nothing outside the folder is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._checked: dict[Path, str] = {}

    def load_(self, tensor: onnx.TensorProto) -> None:
        """Read what a tensor keeps in another file into it.

        Raises:
            SlimlineError: the file is missing, outside the folder, no plain file, too short, or not the one meant.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        target = self._target(tensor, entries.get("location", ""))
        need, size = stored_bytes(tensor), target.stat().st_size
        offset = _number(tensor, entries, "offset", 0)
        length = _number(tensor, entries, "length", need)
        if length != need:
            raise SlimlineError(
                f"{title(tensor)} of the shape {list(tensor.dims)} needs {need:,} bytes, and {length:,} are said to be "
                f"in {target.name}: the file is damaged."
            )
        if offset + length > size:
            raise SlimlineError(
                f"{title(tensor)} ends at byte {offset + length:,} of {target.name}, which has {size:,}: it is "
                "truncated or of another model: copy it again."
            )
        self._check_sum(tensor, target, entries.get("checksum", ""))
        with target.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT

    def _target(self, tensor: onnx.TensorProto, location: str) -> Path:
        relative = Path(location)
        plain = location and "\0" not in location and not relative.is_absolute()
        try:
            target = (self.folder / relative).resolve() if plain else self.folder  # symbolic links are followed
            inside = bool(plain) and target != self.folder and target.is_relative_to(self.folder)
        except (OSError, RuntimeError) as error:  # a name too long, or links in a circle
            raise SlimlineError(f"{title(tensor)} is said to be in {quoted(location)}, which is no path.") from error
        if not inside:
            raise SlimlineError(
                f"{title(tensor)} is said to be in {quoted(location)}, outside the folder of the model: external data "
                "has to lie beside it."
            )
        try:
            mode = target.stat().st_mode
        except OSError as error:
            raise SlimlineError(
                f"{title(tensor)} is in {quoted(str(target))}, which is missing: copy it there."
            ) from error
        if not stat.S_ISREG(mode):
            raise SlimlineError(f"{title(tensor)} is said to be in {quoted(str(target))}, which is no plain file.")
        return target

    def _check_sum(self, tensor: onnx.TensorProto, target: Path, expected: str) -> None:
        """Compare with the SHA-1 of the whole file, where the model gives one (onnx.proto, external_data)."""
        if len(expected) != SHA1_DIGITS:
            return
        if target not in self._checked:
            with target.open("rb") as file:
                self._checked[target] = hashlib.file_digest(file, "sha1").hexdigest()
        if self._checked[target] != expected.lower():
            raise SlimlineError(
                f"{target.name} is not the file that {title(tensor)} was stored in (its SHA-1 differs): copy it again."
            )


def _number(tensor: onnx.TensorProto, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):  # int() also takes signs, spaces and underscores
        raise SlimlineError(f"{title(tensor)} has the external {key} {quoted(text)}, which is no number of bytes.")
    return int(text)
