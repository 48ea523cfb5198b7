"""What a runtime is: it exports a network to an artifact and opens the artifact for running."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:  # a runner's process must not pay for importing torch
    from slimline.network.network import Network

Array = NDArray[Any]
SIDECAR = ".data"
"""Ending of the second file that holds the weights of a network too large for one ONNX file."""


@dataclass(frozen=True)
class Facts:
    """What a runtime runs fast, as measured or documented by its authors."""

    quantized_ops: frozenset[str] = frozenset()
    """Names of the ATen operators (``aten.conv2d``) whose inputs are worth quantising."""
    spared_ops: frozenset[str] = frozenset()
    """Those of the quantised operators that some networks are faster without; both ways are measured."""
    absorbed_ops: frozenset[str] = frozenset({"aten.relu", "aten.relu6"})
    """Operators that become part of the quantised one before them, so that no pair may stand between the two."""
    activation: str = "uint8"
    """Format of quantised activations (`slimline.numerics.formats`)."""
    weight: str = "int8"
    """Format of quantised weights, symmetric, one scale per output channel."""
    channel_multiple: int = 8
    """Channel counts that are a multiple of this fill the vector registers."""


@dataclass(frozen=True)
class Artifact:
    """A file (or folder) that a runtime loads, and the settings it is loaded with."""

    path: Path
    runtime: str
    variant: str = ""
    """A named set of settings of the runtime, such as ``bf16``."""

    @property
    def label(self) -> str:
        """``openvino`` or ``openvino[bf16]``."""
        return f"{self.runtime}[{self.variant}]" if self.variant else self.runtime

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file the runtime reads: the file and its ``.data`` sidecar if it has one, or all files of a folder."""
        if self.path.is_dir():
            return tuple(sorted(p for p in self.path.rglob("*") if p.is_file()))
        sidecar = self.path.with_name(self.path.name + SIDECAR)
        return (self.path, sidecar) if sidecar.is_file() else (self.path,)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, everything counted."""
        return sum(p.stat().st_size for p in self.files)


class Runner(ABC):
    """An artifact opened for running in this process."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """One call: named input arrays (batch first) to the list of output arrays.

        Copy what you keep: a runner may use the memory of its outputs again in the next call.
        """


class Runtime(ABC):
    """One execution engine. Subclasses are final; `slimline.runtimes.registry` lists them."""

    name: str
    file_format: str
    """Ending of its artifacts; runtimes that read the same format share one file of a network."""
    package: str
    """The import that has to be there, also the name of the extra that installs it."""
    facts: Facts = Facts()
    variants: Mapping[str, Mapping[str, Any]] = MappingProxyType({"": MappingProxyType({})})
    """Settings by variant name; the plain variant is the empty string."""

    @abstractmethod
    def missing(self) -> str | None:
        """None when the runtime can be used here, else why not and what to install."""

    @abstractmethod
    def export(self, network: "Network", folder: Path) -> Path:
        """Write the artifact into ``folder`` and return its path.

        Raises:
            SlimlineError: the network has an operator that the runtime's file cannot express.
        """

    @abstractmethod
    def open(self, artifact: Artifact, threads: int) -> Runner:
        """Load an artifact; ``threads`` is how many cores it may use.

        Raises:
            SlimlineError: the file is not one that the runtime can load.
        """

    def offered_variants(self) -> tuple[str, ...]:
        """The variants that are worth trying on this machine, the plain one first."""
        return tuple(self.variants)
