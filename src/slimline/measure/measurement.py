"""A number with its papers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One measured quantity and what a reader needs to judge it."""

    value: float
    unit: str
    """``ms``, ``bytes``."""
    how: str
    """One sentence: what was run, how often, how it was summarised."""
    n: int
    """Independent repetitions: launches of a process, not calls inside one."""
    low: float
    high: float
    """The interval that ``how`` describes; both equal ``value`` where there was one repetition."""
    machine: Mapping[str, Any] = field(hash=False)
    """`slimline.measure.machine.machine`, with the threads and the batch size that were used."""
