"""Distillation as a method: the network learns to answer as the original does, from what the files beside this one say.

Outputs: `slimline.methods.distill.logits`, Hinton et al. (2015). Features inside: `slimline.methods.distill.features`,
Romero et al. (2015). Attention: `slimline.methods.distill.attention`, Zagoruyko & Komodakis (2017), Jiao et al. (2020).
Views: Beyer et al. (2022), Knowledge distillation: A good teacher is patient and consistent, arXiv:2106.05237.

    L = L_outputs + b L_features + c L_maps + d L_attention

Ours differs: the teacher sees exactly the view that the student sees, but each of finitely many views is answered only
once and kept, unless the answers would fill the memory, or endless views or features are asked for: then it is asked
in every step. Mixtures (`Task(augment="mix")`) are answered like any other view, and have no labels. Weights of which
a tenth or more are zeros keep these (`slimline.training.keep_zeros`).
Helps: repairs what compression broke, from the original alone, with or without labels.  Does not: exceed what the
smaller network can hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.methods.distill.attention import attention_loss, self_attention_loss
from slimline.methods.distill.features import Hints
from slimline.methods.distill.logits import Matched, OutputLoss, matched_as
from slimline.methods.method import Method, Outcome, needs_data, param, register
from slimline.methods.remembered import Remembered
from slimline.network.image_axes import image_axes
from slimline.network.network import Network
from slimline.network.shapes import node_shapes
from slimline.network.taps import attention_points, channel_axes, tap_points, with_taps, without_taps
from slimline.numerics.augment import MIX
from slimline.task import Samples, Task
from slimline.training.batch import Batch
from slimline.training.epochs import Epochs, first_answers
from slimline.training.judge import TaskJudge
from slimline.training.keep_zeros import KeepZeros, zeros_to_keep
from slimline.training.plan import OPTIMIZERS, PRECISIONS, SCHEDULES, Plan
from slimline.training.precision import fastest_plan
from slimline.training.recover import recover
from slimline.training.teacher import Teacher, teacher_outputs
from slimline.training.views import Views, without_effect
from slimline.training.workspace import Workspace

LARGEST_MEMORY = 2**32
"""Bytes of answers that are kept; an epoch of asking again costs about a third of an epoch of training."""
SCALE_SAMPLES = 256
"""Samples on which the variance of the teacher's answers is taken."""
PATIENT_JUDGEMENTS = 20
"""Judgements where patience needs some and no number is given."""
LEAST_STEPS_BETWEEN = 100
"""Judgements are at least so many steps apart, so that they take a few per cent of the time."""
MOST_JUDGED, JUDGED_BATCHES = 1024, 8
"""Samples that a judgement looks at: so many, and not more than so many batches of training."""
ENDLESS = 0


@dataclass(frozen=True)
class Weights:
    """How much the insides count beside the outputs: b, c and d."""

    features: float
    maps: float
    attention: float


@dataclass
class Points:
    """Where a student's inside is compared with the teacher's: pairs of nodes, and their channel axes."""

    features: list[tuple[str, str]] = field(default_factory=list)
    maps: list[tuple[str, str]] = field(default_factory=list)
    """Those with at least two places, whose channels lie on the axis in ``axes``."""
    axes: list[int] = field(default_factory=list)
    attention: list[tuple[str, str]] = field(default_factory=list)

    def taps(self, side: int) -> list[str]:
        """The nodes of the student (0) or the teacher (1), each once."""
        return list(dict.fromkeys(pair[side] for pair in [*self.features, *self.maps, *self.attention]))


class Imitation(nn.Module):
    """The loss of one distillation; the regressors of features are weights of it.

    The student's outputs, and the teacher's answers, are followed by the values of their taps.
    """

    def __init__(self, outputs: OutputLoss, points: Points, weights: Weights, hints: Hints | None) -> None:
        super().__init__()
        self.outputs, self.points, self.weights, self.hints = outputs, points, weights, hints

    @property
    def identity(self) -> str:
        """The hyperparameters, by which a stored training is known."""
        return f"{self.outputs} {self.points} {self.weights}"

    def forward(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """L, of the floating-point outputs of the student and their taps."""
        total: Tensor = self.outputs(outputs[0], batch.targets[0], batch.labels)
        ours, theirs = self.inside(outputs, 0), self.inside(batch.targets, 1)
        if self.hints is not None:
            pairs = self.points.features
            total = total + self.weights.features * self.hints(
                [ours[s] for s, _ in pairs], [theirs[t] for _, t in pairs]
            )
        if self.points.maps:
            places = zip(self.points.maps, self.points.axes, strict=True)
            maps = [attention_loss(ours[s], theirs[t], axis) for (s, t), axis in places]
            total = total + self.weights.maps * torch.stack(maps).mean()
        if self.points.attention:
            attended = [self_attention_loss(ours[s], theirs[t]) for s, t in self.points.attention]
            total = total + self.weights.attention * torch.stack(attended).mean()
        return total

    def inside(self, values: tuple[Tensor, ...], side: int) -> dict[str, Tensor]:
        """The taps by name, which are the last of the values."""
        names = self.points.taps(side)
        return dict(zip(names, values[len(values) - len(names) :], strict=True))


@register
@dataclass(frozen=True)
class Distill(Method):
    """Train the network against the original."""

    epochs: float = param(2.0, low=0.001, high=1000.0, doc="passes over the training samples")
    learning_rate: float = param(0.05, low=1e-6, high=10.0, doc="peak learning rate")
    optimizer: str = param("sgd", choices=OPTIMIZERS, doc="SGD with Nesterov momentum, AdamW or RMSprop")
    schedule: str = param("cosine", choices=SCHEDULES, doc="how the learning rate falls after its warm-up")
    batch: int = param(128, low=2, high=65536, doc="samples per step, those of all processes together")
    accumulate: int = param(1, low=1, high=1024, doc="parts into which a batch is split to save memory")
    temperature: float = param(4.0, low=0.1, high=100.0, doc="T: how soft the teacher's answers are")
    label_weight: float = param(
        0.0, low=0.0, high=1.0, doc="a: share of the loss that comes from labels; mixtures have none"
    )
    feature_weight: float = param(0.0, low=0.0, high=100.0, doc="b: weight of the features inside")
    map_weight: float = param(0.0, low=0.0, high=10000.0, doc="c: weight of where features are large; about 100")
    attention_weight: float = param(0.0, low=0.0, high=1000.0, doc="d: weight of transformers' attention")
    views: int = param(1, low=0, high=64, doc="views of every sample, 0 for endless ones; needs Task(augment)")
    precision: str = param("fp32", choices=(*PRECISIONS, "auto"), doc="of products and convolutions; auto measures")
    execution: str = param("eager", choices=("eager", "compiled"), doc="whether the step is compiled (torch.compile)")
    ema: float = param(0.0, low=0.0, high=0.99999, doc="decay of the moving average of the weights; 0 for none")
    judgements: int = param(10, low=0, high=1000, doc="how often the score on the validation samples is looked at")
    patience: int = param(0, low=0, high=1000, doc="judgements without a better score that end it; 0 for never")
    seed: int = param(0, low=0, doc="order of the samples and which view of each is taken")

    needs = frozenset({"data", "float weights"})
    cites = ("hinton2015distilling", "beyer2022patient", "romero2015fitnets", "zagoruyko2017paying", "jiao2020tinybert")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        if task is not None and task.original is None:
            raise SlimlineError(
                "Distill needs the original network: apply it in a Recipe, or pass task.with_original(network)."
            )
        if task is not None and task.original is not None:
            task = task.decided(task.original)
        samples = needs_data("Distillation", task, network)
        assert task is not None and task.original is not None
        workspace = workspace or Workspace()
        points, skipped = self.points(network, task.original)
        skipped |= self._without_effect(task, samples)
        batches = self.batches(task, samples, points, workspace)
        loss = self.loss(network, batches, matched_as(task), points)
        student = with_taps(network, points.taps(0)) if points.taps(0) else network
        plan = self.plan(batches)
        if self.precision == "auto":
            plan, speeds = fastest_plan(student, batches, loss, plan, workspace.folder)
            skipped |= {f"training in {way}": f"fails: {s.failed}" for way, s in speeds.items() if s.failed}
        kept = KeepZeros(zeros_to_keep(student))
        if kept.masks:
            skipped["zeros"] = kept.told()
        hooks = [*[kept] * bool(kept.masks), *workspace.hooks]
        trained, curve = recover(student, batches, loss, plan, self._judge(task), hooks, workspace)
        for note in curve.notes:
            skipped[f"training, {len(skipped) + 1}"] = note
        return Outcome(
            without_taps(trained, len(points.taps(0))), ["all trainable weights"], skipped, ((self.line(), curve),)
        )

    def plan(self, batches: Epochs) -> Plan:
        """The loop's hyperparameters."""
        steps = max(1, round(self.epochs * len(batches.views) / batches.size))
        judgements = self.judgements or (PATIENT_JUDGEMENTS if self.patience else 1)
        between = max(LEAST_STEPS_BETWEEN, -(-steps // judgements))
        return Plan(
            steps, self.learning_rate, optimizer=self.optimizer, schedule=self.schedule, accumulate=self.accumulate,
            precision="fp32" if self.precision == "auto" else self.precision, compiled=self.execution == "compiled",
            ema=self.ema, patience=self.patience, judge_every=between, seed=self.seed,
        )  # fmt: skip

    def points(self, student: Network, teacher: Network) -> tuple[Points, dict[str, str]]:
        """Where the insides are compared, and why not."""
        points, skipped = Points(), dict[str, str]()
        pairs = tap_points(student, teacher) if self.feature_weight or self.map_weight else []
        if self.feature_weight:
            points.features = pairs
            if not pairs:
                skipped["features"] = "the two networks have no values of the same places inside"
        if self.attention_weight:
            points.attention = attention_points(student, teacher)
            if not points.attention:
                skipped["attention"] = "the two networks have no attention over the same places inside"
        if self.map_weight:
            shapes, axes = node_shapes(teacher), channel_axes(teacher, [t for _, t in pairs])
            found = [(pair, axis) for pair, axis in zip(pairs, axes, strict=True) if _places(shapes[pair[1]], axis) > 1]
            points.maps, points.axes = [pair for pair, _ in found], [axis for _, axis in found]
            if not found:
                skipped["maps"] = "the two networks have no maps of the same places inside"
        return points, skipped

    def _without_effect(self, task: Task, samples: Samples) -> dict[str, str]:
        """Hyperparameters that do nothing with these data, and why."""
        found = {}
        if self.label_weight and samples.labels is None:
            found["label_weight"] = "the training samples have no labels"
        if self.views != 1 and not task.augment:
            found["views"] = "there is one view of each sample without Task(augment=...)"
        if self.views != 1 and task.original is not None:
            found |= without_effect(task.augment, task.original)
        if self.patience and task.train is None:
            found["patience"] = "there are no samples to judge by that are not trained on: give Task(train=...)"
        return found

    def batches(self, task: Task, samples: Samples, points: Points, workspace: Workspace) -> Epochs:
        """What the steps read: the views of the samples and the teacher's answers."""
        assert task.original is not None
        precision = "fp32" if self.precision == "auto" else self.precision
        views = Views(samples.tensors())
        idle = without_effect(task.augment, task.original) if self.views != 1 else task.augment
        if augment := [name for name in task.augment if name not in idle]:
            views = Views(samples.tensors(), self.views, augment=augment, axes=image_axes(task.original))
        if self.label_weight and samples.labels is not None and views.mixes:
            raise SlimlineError(
                f"label_weight={self.label_weight:g} needs a label for every view, and a mixture of two samples has "
                f"none: leave label_weight at 0, leave views at 1, or leave {MIX!r} out of Task(augment=...)."
            )
        answers = _answers(task.original, samples, views, precision, points.taps(1), workspace)
        labels = None
        if samples.labels is not None and self.label_weight:
            if samples.labels.dtype.kind not in "iub":
                raise SlimlineError(
                    f"label_weight needs labels that are class numbers, and these are {samples.labels.dtype}: number "
                    "the classes from 0, or leave label_weight at 0."
                )
            labels = torch.from_numpy(samples.labels.astype(np.int64))
        data = f"{samples.digest()} answered by {task.original.digest()} in {precision}"
        return Epochs(views, answers, data, self.batch, labels, self.seed)

    def loss(
        self, student: Network, batches: Epochs, matched: Matched | None = None, points: Points | None = None
    ) -> Imitation:
        """The criterion; without ``matched``, (batch, n) are class scores."""
        points, answers = points or Points(), first_answers(batches, SCALE_SAMPLES)
        matched = matched or Matched(answers[0].ndim == 2)
        outputs = OutputLoss(matched, self.temperature, self.label_weight, float(answers[0].var(correction=0)))
        hints = self._hints(student, batches, points, answers) if points.features else None
        weights = Weights(self.feature_weight, self.map_weight, self.attention_weight)
        return Imitation(outputs, points, weights, hints)

    def _hints(self, student: Network, batches: Epochs, points: Points, answers: Sequence[Tensor]) -> Hints:
        """The regressors of the features, at least squares of the first samples."""
        names = [s for s, _ in points.features]
        few = batches.batch(0, slice(0, len(answers[0]))).inputs
        ours = with_taps(student, names).run(few)[-len(names) :]
        theirs = dict(zip(points.taps(1), answers[1:], strict=True))
        hidden = [theirs[t].cpu() for _, t in points.features]
        hints = Hints([tuple(x.shape) for x in ours], [tuple(x.shape) for x in hidden], self.seed)
        return hints.fit(ours, hidden)

    def _judge(self, task: Task) -> TaskJudge | None:
        """Who looks at the score: only samples that are not trained on are worth looking at."""
        if not (self.judgements or self.patience) or task.train is None:
            return None
        assert task.original is not None
        most = min(MOST_JUDGED, JUDGED_BATCHES * self.batch)
        known, name = JUDGES.of(task.original, task.validate), f"{task.describe_score()} {most}"
        if name not in known or known[name].task.score != task.score:  # two functions may have one name
            known[name] = TaskJudge(task, most)
        return known[name]


def _places(shape: tuple[int, ...], axis: int) -> int:
    """Numbers per sample and channel of a value whose channels lie on ``axis``."""
    return math.prod(shape[1:axis]) * math.prod(shape[axis + 1 :])


TEACHER = Remembered[Tensor]()
"""The last teacher's answers, so that candidates of one search share them."""
JUDGES = Remembered[TaskJudge]()


def _answers(
    original: Network, samples: Samples, views: Views, precision: str, taps: list[str], workspace: Workspace
) -> Tensor | Teacher:
    """The answers to all views, or the teacher itself where they are endless, or too many to keep."""
    asked = Teacher(original, precision, taps)
    if taps or views.count == ENDLESS or asked.bytes_for(views) > LARGEST_MEMORY:
        return asked
    known, name = TEACHER.of(original, samples), f"{views.identity} {precision}"
    if name not in known:
        known.clear()  # two sets of answers at once may be too much
        known[name] = teacher_outputs(asked, views, workspace.step)
    return known[name]
