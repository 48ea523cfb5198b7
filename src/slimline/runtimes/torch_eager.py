"""PyTorch in eager mode: the slowest of the runtimes, and the one that has every operator.

It runs the traced graph itself, so a quantised network computes in floating point between its quantise/dequantise
pairs: the result is the reference, and slower than the original. Nothing is worth quantising for this runtime.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from slimline.runtimes.runtime import Array, Artifact, Runner, Runtime

if TYPE_CHECKING:
    from slimline.network.network import Network


class TorchEager(Runtime):
    """The ``torch`` runtime; its artifact is a `.slim` file."""

    name = "torch"
    file_format = "slim"
    package = "torch"

    def missing(self) -> str | None:
        """None when torch can be imported."""
        return None if find_spec(self.package) else "torch is not installed: run `pip install torch`."

    def export(self, network: "Network", folder: Path) -> Path:
        """Write ``network.slim``, for inference."""
        from slimline.network.container import save

        return save(network.copy().set_training_(False), folder / "network.slim")

    def open(self, artifact: Artifact, threads: int) -> Runner:
        """Load a `.slim` file; the number of threads holds for the whole process, as torch has no other setting."""
        import torch

        from slimline.network.container import load

        torch.set_num_threads(threads)
        return TorchRunner(load(artifact.path))


class TorchRunner(Runner):
    """A network called node by node by torch's generated code."""

    def __init__(self, network: "Network") -> None:
        import torch

        self._module = network.module
        self._names = network.input_names
        self._from_numpy = torch.from_numpy
        self._inference_mode = torch.inference_mode

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Arrays share their memory with the tensors on both sides."""
        tensors = []
        for name in self._names:
            array = inputs[name]
            # torch warns about memory it must not write to, such as a mapped file.
            tensors.append(self._from_numpy(array if array.flags.writeable else array.copy()))
        with self._inference_mode():
            outputs = self._module(*tensors)
        return [t.numpy() for t in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]
