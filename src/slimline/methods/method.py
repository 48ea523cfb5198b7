"""What a method is, how its hyperparameters are written, and the registry."""

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

from slimline.errors import SlimlineError, near_names
from slimline.network.network import Network
from slimline.task import Samples, Task
from slimline.training.curve import Curve
from slimline.training.workspace import Workspace

M = TypeVar("M", bound="type[Method]")


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
    curves: tuple[tuple[str, Curve], ...] = ()
    """The line of each method that trained, and what happened."""

    @property
    def curve(self) -> Curve | None:
        """What happened in the last training."""
        return self.curves[-1][1] if self.curves else None


@dataclass(frozen=True)
class Method(ABC):
    """One technique. Subclasses are final, frozen and decorated with `register`."""

    cites: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[frozenset[str]] = frozenset()
    """Of ``data`` and ``float weights``: what has to be there, whatever the hyperparameters."""
    leaves: ClassVar[frozenset[str]] = frozenset()
    """Of ``int weights``: what later methods have to expect."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, limits = getattr(self, f.name), f.metadata
            if "low" not in limits:
                continue
            default = _default(f)
            wanted = _kind_needed(default, value)
            if wanted:
                raise SlimlineError(f"{type(self).__name__}({f.name}={value!r}) is not {wanted}.")
            if isinstance(default, (int, float, tuple)):  # YAML knows no tuples and no numbers of numpy
                value = type(default)(value)
                object.__setattr__(self, f.name, value)
            if limits["choices"] and value not in limits["choices"]:
                raise SlimlineError(
                    f"{type(self).__name__}({f.name}={value!r}): use one of {', '.join(map(repr, limits['choices']))}."
                )
            if isinstance(value, (int, float)) and not limits["low"] <= value <= limits["high"]:
                raise SlimlineError(
                    f"{type(self).__name__}({f.name}={value}) is out of range: it lies in [{limits['low']}, "
                    f"{limits['high']}]."
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise SlimlineError(f"{type(self).__name__}({f.name}={value}) is no finite number.")

    @abstractmethod
    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        """A new network; the one given is left as it was.

        Raises:
            SlimlineError: the method needs something that is not there.
        """

    def learns_from_data(self) -> bool:
        """Whether samples decide what comes out, so that these cannot judge it."""
        return "data" in self.needs

    def changed_fields(self) -> dict[str, Any]:
        """Hyperparameters that differ from their defaults, for a short and complete recipe."""
        found = {}
        for f in fields(self):
            if getattr(self, f.name) != _default(f):
                found[f.name] = getattr(self, f.name)
        return found

    def line(self) -> str:
        """One line for reports: ``PruneChannels(keep=0.5)``."""
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.changed_fields().items())})"


def _default(f: Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default


def _kind_needed(default: Any, value: Any) -> str:
    """What a hyperparameter with this default has to be, when the value is something else; else nothing."""
    if isinstance(default, (int, float)):
        if isinstance(value, bool) or not isinstance(value, Real):
            return "a number"
        return "a whole number" if isinstance(default, int) and not isinstance(value, Integral) else ""
    if isinstance(default, dict):
        return "" if isinstance(value, Mapping) else "a mapping"
    if isinstance(default, tuple):
        return "" if isinstance(value, (list, tuple)) else "a list"
    return ""


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


def check_names(option: str, names: Iterable[str], known: Iterable[str], kind: str) -> None:
    """Every name that an option gives is known.

    Args:
        option: where it was given, for the sentence.
        kind: what it should name: ``layer``.

    Raises:
        SlimlineError: one that is not, with those near it.
    """
    known = list(known)
    for name in names:
        if name not in known:
            near = near_names(name, known)
            raise SlimlineError(f"{option} names {name!r}, which is no {kind}; near names: {near}.")


def needs_data(who: str, task: Task | None, network: Network) -> Samples:
    """The training samples of a task, or its validation samples when it has none.

    Raises:
        SlimlineError: there is no task.
    """
    if task is None:
        raise SlimlineError(f"{who} needs data: pass a Task to apply().")
    if task.wants_synthetic:
        raise SlimlineError(f"{who} needs samples, and train='synthetic' are not made yet: apply it in a Recipe.")
    read = task.read(network.input_names)
    samples: Samples = read.train if read.train is not None else read.validate
    return samples
