"""What happened in a training run."""

from dataclasses import asdict, dataclass, field
from typing import Any

WINDOW = 20
"""Steps whose mean loss is one entry."""


@dataclass
class Curve:
    """One entry per window of steps and one per judgement on held-out data."""

    planned: int = 0
    """Steps that were to be made."""
    start: float | None = None
    """The loss of the first step."""
    steps: list[int] = field(default_factory=list)
    """The last step of each window, counted from 1."""
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    sparsity: list[float] = field(default_factory=list)
    """Share of zeros among the weights of two or more axes."""
    judged: list[int] = field(default_factory=list)
    """Steps done at each judgement; 0 before training."""
    scores: list[float] = field(default_factory=list)
    """Mean score on held-out data."""
    original: float | None = None
    """The original's score on the same held-out data."""
    notes: list[str] = field(default_factory=list)
    """Sentences: why it ended early, what could not be written."""
    seconds: float = 0.0
    """Spent in the loop, interrupted parts included."""
    precision: str = "fp32"
    device: str = "cpu"
    processes: int = 1

    @property
    def done(self) -> int:
        """Steps done, up to the last whole window."""
        return self.steps[-1] if self.steps else 0

    def add(self, step: int, loss: float, rate: float, sparsity: float) -> None:
        """The entry of a window that ended with ``step``."""
        self.steps.append(step)
        self.losses.append(loss)
        self.rates.append(rate)
        self.sparsity.append(sparsity)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
