"""How long and how fast to train: every hyperparameter of the loop, once."""

import math
from dataclasses import dataclass

import torch

from slimline.errors import SlimlineError

OPTIMIZERS = ("sgd", "adamw", "rmsprop")
SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("fp32", "bf16", "fp16")
MOMENTUM = 0.9
WARMUP_SHARE = 0.1
STEP_AT, STEP_FACTOR = (0.5, 0.75), 0.1
"""The step schedule multiplies the rate by the factor at these shares of the run (He et al. 2015)."""


@dataclass(frozen=True)
class Plan:
    """One training run.

    Raises:
        SlimlineError: a value out of its range.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 1e-4
    optimizer: str = "sgd"
    """``sgd`` (Nesterov momentum), ``adamw`` or ``rmsprop``."""
    schedule: str = "cosine"
    """``cosine`` to zero, ``step`` (a tenth at half and at three quarters) or ``constant``; each after a warm-up."""
    precision: str = "fp32"
    """``fp32``, or autocast to ``bf16`` or ``fp16``; weights and their updates stay in fp32."""
    accumulate: int = 1
    """Parts into which a batch is split to save memory; the gradient is that of the whole batch, but for dropout and
    for batch norm, which sees the parts."""
    gradient_norm: float = 5.0
    """Longer gradients are scaled down to this length."""
    ema: float = 0.0
    """Decay per step of the average of the weights that is handed back; 0 for the last weights themselves."""
    judge_every: int = 0
    """Steps between judgements on held-out data; 0 for at most twenty judgements."""
    patience: int = 0
    """Judgements without a better one after which training ends; 0 for never. The best weights are handed back."""
    compiled: bool = False
    """Compile the network's forward and backward pass (torch.compile)."""
    seed: int = 0
    """Whatever the network draws at random, such as dropout."""

    def __post_init__(self) -> None:
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise SlimlineError(f"Plan({name}={getattr(self, name)!r}) is unknown: use {', '.join(choices)}.")
        for name, low in (
            ("steps", 1),
            ("accumulate", 1),
            ("judge_every", 0),
            ("patience", 0),
            ("weight_decay", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < low:
                raise SlimlineError(f"Plan({name}={getattr(self, name)}) is out of range: it is at least {low}.")
        if not 0 <= self.ema < 1 or not self.learning_rate > 0 or not self.gradient_norm > 0:
            raise SlimlineError(
                f"Plan(ema={self.ema}, learning_rate={self.learning_rate}, gradient_norm={self.gradient_norm}): ema "
                "lies in [0, 1), the other two are above 0."
            )

    def judgement_after(self, step: int) -> bool:
        """Whether the network is judged when ``step`` steps are done; always at the end."""
        every = self.judge_every or -(-self.steps // 20)
        return step % every == 0 or step == self.steps

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.learning_rate * schedule(step, self.steps, self.schedule)

    def make_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Weights decay; biases and the scales of norms do not."""
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, self.learning_rate)
        if self.optimizer == "rmsprop":
            return torch.optim.RMSprop(groups, self.learning_rate, momentum=MOMENTUM)
        return torch.optim.SGD(groups, self.learning_rate, momentum=MOMENTUM, nesterov=True)


def schedule(step: int, steps: int, name: str = "cosine") -> float:
    """Linear warm-up, then the schedule: a factor in (0, 1]."""
    warmup = max(1, int(steps * WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    if name == "constant":
        return 1.0
    if name == "step":
        return float(STEP_FACTOR ** sum(step >= share * steps for share in STEP_AT))
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
