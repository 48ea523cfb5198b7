"""What may be lost, what is minimised, and how long the search may take."""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from slimline.errors import SlimlineError

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
BYTES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1000.0}
MINIMISED = ("latency", "size")


@dataclass(frozen=True)
class Budget:
    """Limits of a search.

    Args:
        max_drop: largest loss of the mean score, in score units (0.01 is one point of accuracy).
        minimize: ``latency`` or ``size``.
        max_latency_ms: the result has to run in this time.
        max_size_bytes: the result has to fit into this size.
        min_speedup: against the original in its own best runtime.
        time_s: seconds of search.

    Raises:
        SlimlineError: a limit that is out of range or contradicts another.
    """

    max_drop: float = 0.01
    minimize: str = "latency"
    max_latency_ms: float | None = None
    max_size_bytes: int | None = None
    min_speedup: float | None = None
    time_s: float = 600.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 1:
            raise SlimlineError(
                f"The budget contradicts itself: max drop {self.max_drop:g} is not in [0, 1); 1% is written 0.01 or 1%."
            )
        if self.minimize not in MINIMISED:
            raise SlimlineError(f"The budget cannot minimise {self.minimize!r}: choose {' or '.join(MINIMISED)}.")
        for name, value in (
            ("max latency", self.max_latency_ms),
            ("max size", self.max_size_bytes),
            ("time", self.time_s),
        ):
            if value is not None and not 0 < value < math.inf:
                above = "above zero and finite" if value == math.inf else "above zero"
                raise SlimlineError(f"The budget contradicts itself: {name} has to be {above}, not {value:g}.")
        if self.min_speedup is not None and not 1 <= self.min_speedup < math.inf:
            raise SlimlineError(
                f"The budget contradicts itself: a minimum speed-up of {self.min_speedup:g} is not a number from 1 on; "
                "below 1 the result may be slower than the original."
            )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def parse_drop(text: str) -> float:
    """``1%`` or ``0.01`` to 0.01."""
    match = re.fullmatch(r"\s*(-?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*(%?)\s*", text)
    if not match:
        raise SlimlineError(f"--max-drop {text!r} is not a share: write 1% or 0.01.")
    return float(match[1]) / (100 if match[2] else 1)


def parse_quantity(text: str, units: dict[str, float] | dict[str, int], option: str, example: str) -> float:
    """A number with one of the units, in the base unit."""
    match = re.fullmatch(r"\s*(-?[0-9]+\.?[0-9]*)\s*([A-Za-z]+)\s*", text)
    if not match or match[2] not in units or float(match[1]) * units[match[2]] == math.inf:
        raise SlimlineError(
            f"{option} {text!r} is not understood: write a number with {', '.join(units)}, such as {example}."
        )
    return float(match[1]) * units[match[2]]
