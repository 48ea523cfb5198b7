"""What a method is, how its hyperparameters are written, and the registry."""

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.task import Samples, Task

M = TypeVar("M", bound="type[Method]")
Progress = Callable[[int, int], None]


def param(
    default: Any, *, doc: str, low: float = -math.inf, high: float = math.inf, choices: tuple[Any, ...] = ()
) -> Any:
    """A hyperparameter: this one line is its default, its check, its range and its documentation."""
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Outcome:
    """What a method did."""

    network: Network
    changed: list[str]
    skipped: dict[str, str]
    """Layer -> why it was left alone."""
    curve: Any = None
    """`slimline.training.recover.Curve` when the method trained."""


@dataclass(frozen=True)
class Method(ABC):
    """One technique. Subclasses are final, frozen and decorated with `register`."""

    cites: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[frozenset[str]] = frozenset()
    """Of ``data`` and ``float weights``: what has to be there."""
    leaves: ClassVar[frozenset[str]] = frozenset()
    """Of ``int weights``: what later methods have to expect."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, limits = getattr(self, f.name), f.metadata
            if "low" not in limits:
                continue
            if limits["choices"] and value not in limits["choices"]:
                raise SlimlineError(
                    f"{type(self).__name__}({f.name}={value!r}): use one of {', '.join(map(repr, limits['choices']))}."
                )
            if isinstance(value, (int, float)) and not limits["low"] <= value <= limits["high"]:
                raise SlimlineError(
                    f"{type(self).__name__}({f.name}={value}) is out of range: it lies in [{limits['low']}, "
                    f"{limits['high']}]."
                )

    @abstractmethod
    def apply(self, network: Network, task: Task | None = None, progress: Progress | None = None) -> Outcome:
        """A new network; the one given is left as it was.

        Raises:
            SlimlineError: the method needs something that is not there.
        """

    def changed_fields(self) -> dict[str, Any]:
        """Hyperparameters that differ from their defaults, for a short and complete recipe."""
        found = {}
        for f in fields(self):
            made = f.default_factory
            default = made() if made is not MISSING else f.default
            if getattr(self, f.name) != default:
                found[f.name] = getattr(self, f.name)
        return found

    def line(self) -> str:
        """One line for reports: ``PruneChannels(keep=0.5)``."""
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.changed_fields().items())})"


REGISTRY: dict[str, type[Method]] = {}


def register(cls: M) -> M:
    """Put a method into the registry, and with that into the contract tests and the recipe format."""
    REGISTRY[cls.__name__] = cls
    return cls


def registry() -> dict[str, type[Method]]:
    """Every method by name. A method file that cannot be imported fails loudly here."""
    import slimline.methods

    for module in pkgutil.walk_packages(slimline.methods.__path__, "slimline.methods."):
        importlib.import_module(module.name)
    return dict(REGISTRY)


def needs_data(who: str, task: Task | None, network: Network) -> Samples:
    """The training samples of a task, or its validation samples when it has none.

    Raises:
        SlimlineError: there is no task.
    """
    if task is None:
        raise SlimlineError(f"{who} needs data: pass a Task to apply().")
    read = task.read(network.input_names)
    samples: Samples = read.train if read.train is not None else read.validate
    return samples
