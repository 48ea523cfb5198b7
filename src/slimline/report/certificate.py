"""`certificate.json`: everything a result claims, in the form that DESIGN.md section 8 fixes.

Ratios are above 1 when ours is better; latencies are milliseconds per batch of ``machine.batch``; drops are original
minus candidate in score units (0.01 = 1 point), their bounds one-sided at 95 % each on the certify split.
"""

import os
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, Strict, StrictStr, ValidationError, model_validator

from slimline.errors import SlimlineError
from slimline.measure.statistics import Verdict

Measured = TypeVar("Measured")
Shape = Annotated[list[int], Strict(False)]
"""A weight's shape; a tuple is taken too."""
Count = Annotated[int, Field(ge=0, le=2**53)]
"""Every number that a float holds exactly."""


class Part(BaseModel):
    """Exactly the listed fields, exactly the listed types, never changed after reading; no NaN and no infinity."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Budget(Part):
    """What could be lost and what was minimised; null where nothing was asked."""

    max_drop: float
    minimize: Literal["latency", "size"]
    max_latency_ms: float | None = None
    max_size_bytes: int | None = None
    min_speedup: float | None = None
    time_s: float | None = None


class TaskFacts(Part):
    """What the score is."""

    score: str
    labels: bool
    """Whether the samples had labels; without them the original's answers are the reference."""
    what: str
    """The score in words."""


class Original(Part):
    """The network as it came."""

    score: float
    size_bytes: int
    macs: int
    parameters: int
    latency_ms: dict[str, float]


class Result(Part, Generic[Measured]):
    """A certified trial. `best` has every measurement (``Result[float]``); on the `front` some are null."""

    trial: int
    runtime: str
    precision: str
    recipe: list[str]
    artifact: str
    sha256: str
    score: Measured
    drop: Measured
    drop_upper: Measured
    drop_lower: Measured
    size_bytes: int
    size_ratio: float
    macs: int
    parameters: int
    memory_bytes: int | None
    latency_ms: Measured
    speedup: Measured
    """Against the original in PyTorch eager."""
    speedup_low: Measured
    speedup_high: Measured
    speedup_vs_best_original: Measured
    """Against the original in whichever runtime ran it fastest."""
    speedup_vs_best_original_low: Measured
    speedup_vs_best_original_high: Measured
    speedup_vs_int8_only: float | None
    """Against the original, only quantised; null when no such trial was measured."""
    speedup_vs_int8_only_low: float | None
    speedup_vs_int8_only_high: float | None


class SplitSizes(Part):
    """Samples in each split."""

    calibrate: int
    search: int
    certify: int


class Noise(Part):
    """The interval of the latency ratio that one file shows against itself."""

    aa_ratio_low: float
    aa_ratio_high: float


class Machine(Part):
    """Where the latencies were measured. Facts beyond the listed ones are kept."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    os: str
    batch: int
    launches: int | None = None
    """Launches behind each reported latency ratio, the n of its interval."""


class Hashes(Part):
    """SHA-256 of the original network and of the data."""

    network: str
    data: str


class StudyTrial(Part):
    """One trial; ``score`` is on the search split, null where it was not measured."""

    trial: int
    stage: str
    runtime: str
    precision: str
    recipe: list[str]
    score: float | None
    drop: float | None
    latency_ms: float | None
    size_bytes: int | None
    macs: int | None
    seconds: float
    status: Literal["original", "kept", "dropped", "finalist", "best"]
    why: str | None


class LayerChange(Part):
    """One layer before and after; the values after are null when it is gone, its shape also when it was split."""

    name: str
    kind: str
    shape_before: Shape
    shape_after: Shape | None
    macs_before: int
    macs_after: int | None
    bytes_before: int
    bytes_after: int | None
    note: str | None


class Option(Part):
    """Channels kept and the damage that this alone did on the calibration data."""

    width: int
    damage: float


class GroupSensitivity(Part):
    """What narrowing one group costs and brings."""

    group: str
    width: int
    layers: list[str]
    options: list[Option]
    ms_per_channel: float | None


class TrainingCurve(Part):
    """One training run: a loss per logged window of steps, and the scores that were measured on the way."""

    name: str
    """What a legend shows: ``with labels``."""
    trial: int | None = None
    method: str
    samples: Count
    device: str
    precision: str
    seconds: float
    planned: Count
    """Steps that were planned; fewer are in ``steps`` where the run stopped early."""
    steps: list[Count]
    """The last step of each window."""
    losses: list[float]
    rates: list[float]
    """Learning rates."""
    sparsity: list[float]
    """Share of weights that were zero."""
    judged: list[Count] = []
    """Steps after which the score was measured; 0 is before the training."""
    scores: list[float] = []
    """Mean score on samples of the search split."""
    original: float | None = None
    """The original's score on the same samples."""
    notes: list[str] = []

    @model_validator(mode="after")
    def _equally_long(self) -> "TrainingCurve":
        for first, *others in (("steps", "losses", "rates", "sparsity"), ("judged", "scores")):
            length = len(getattr(self, first))
            for other in others:
                if len(getattr(self, other)) != length:
                    raise SlimlineError(
                        f"The training curve {self.name!r} has {len(getattr(self, other))} {other} "
                        f"and {length} {first}, and there has to be one of each for every entry."
                    )
        return self


class Certificate(Part):
    """The JSON that proves a result."""

    verdict: Annotated[Verdict, Strict(False)]
    sentence: str
    limits: list[str]
    budget: Budget
    seed: int
    seconds: float
    trials: int
    task: TaskFacts
    original: Original
    best: Result[float]
    front: list[Result[float | None]]
    splits: SplitSizes
    noise: Noise
    machine: Machine
    versions: dict[str, str]
    hashes: Hashes
    discarded: list[Annotated[tuple[int, StrictStr], Strict(False)]]
    study: list[StudyTrial]
    layers: list[LayerChange]
    sensitivity: list[GroupSensitivity]
    training: list[TrainingCurve] = []
    """Empty in certificates that are older than this field."""

    @staticmethod
    def read(path: Path) -> "Certificate":
        """The certificate in the file ``path``.

        Raises:
            SlimlineError: the file is missing, cannot be read or is not a certificate.
        """
        try:
            text = path.read_bytes()
        except FileNotFoundError as error:
            raise SlimlineError(f"There is no certificate at {path}: give the folder of a finished run.") from error
        except OSError as error:
            raise SlimlineError(f"The certificate {path} cannot be read: {error.strerror}.") from error
        try:
            return Certificate.model_validate_json(text)
        except (ValidationError, SlimlineError) as error:
            wrong = f"{path} is not a complete certificate ({_what_is_wrong(error)})"
            raise SlimlineError(f"{wrong}: run the optimisation again with --resume.") from error

    def write(self, path: Path) -> None:
        """Write the JSON to ``path``; a crash leaves the old file or the new one, never half of one.

        Raises:
            SlimlineError: the file cannot be written.
        """
        replace_file(path, self.model_dump_json(indent=2) + "\n")


def _what_is_wrong(error: ValidationError | SlimlineError) -> str:
    if isinstance(error, SlimlineError):
        return str(error).removesuffix(".")
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"


def replace_file(path: Path, text: str) -> None:
    """Put ``text`` (as UTF-8) into ``path`` in one step, through a file beside it.

    Raises:
        SlimlineError: the file cannot be written.
    """
    beside = path.with_name(f"{path.name}.part")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise SlimlineError(f"{path} cannot be written: {error.strerror}.") from error
