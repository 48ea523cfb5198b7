"""Hints: the features inside the student predict those inside the teacher.

Romero, Ballas, Kahou, Chassang, Gatta, Bengio (2015). FitNets: Hints for Thin Deep Nets. arXiv:1412.6550, equation 3.
For tokens: Jiao et al. (2020). TinyBERT: Distilling BERT for Natural Language Understanding. arXiv:1909.10351,
equation 8.

    L = 1/2 || u(x) - r(v(x)) ||^2        u: the teacher's features, v: the student's, r: a regressor

Ours differs: L is the mean square in units of the variance of the teacher's features over the entries of a first batch
(`Hints.fit`), so that every point counts alike: 0 is equal, 1 is what the mean alone would cost. That variance is taken
once, so that L is a mean over samples, the same however processes share them. The regressor mixes channels and never
places (a 1x1 convolution, or the linear map of TinyBERT), and there is none where the widths agree: a pruned copy keeps
the order of its channels, and without a regressor the student itself has to come closer. Several points are matched at
once, together with the outputs, instead of one before them. The regressors can start at least squares on the first
batch instead of at random, so that the first gradients say what the student lacks, not what they lack.

Helps: by the paper, students of another architecture, whose outputs say little to early layers; not measured here.
Does not: help a pruned copy, which starts from the teacher's own features. There (the demo network at a quarter of its
MACs, 1,000 images) half the weight of the logits changed little, with fitted regressors or random ones, and five times
their weight lost accuracy. Maps of attention (`slimline.methods.distill.attention`) did help.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.distill.logits import regression_loss

Shape = Sequence[int]
MOST_ROWS = 2**16
"""Rows that the regressors are fitted to, spread evenly over samples and places."""
RIDGE = 1e-8
"""Relative to the mean square of the features; channels that are always zero need it."""


def feature_loss(student: Tensor, teacher: Tensor, variance: float | Tensor) -> Tensor:
    """mean((student - teacher)^2) / variance, in float32 or better; any shape.

    The variance is one number: that of many of the teacher's features, the same for every batch and process.
    """
    return regression_loss(_precise(student), _precise(teacher), variance)


def least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """W, b with the least sum of |W x + b - y|^2 over the rows.

    Args:
        x: (rows, inputs).
        y: (rows, outputs).

    Returns:
        (outputs, inputs) and (outputs,), in float64.
    """
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    moments = x.T @ x
    moments.diagonal().add_(RIDGE * moments.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny))
    weight = torch.linalg.solve(moments, x.T @ y).T
    return weight, mean_y - weight @ mean_x


class Regressor(nn.Module):
    """y = W x + b on the channel axis of every place."""

    def __init__(self, inputs: int, outputs: int, axis: int, generator: torch.Generator) -> None:
        super().__init__()
        self.axis = axis
        weight = nn.init.orthogonal_(torch.empty(outputs, inputs), generator=generator)
        if outputs > inputs:  # orthonormal columns keep the length of x, which now spreads over more channels
            weight *= (outputs / inputs) ** 0.5
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.movedim(self.axis, -1), self.weight, self.bias).movedim(-1, self.axis)

    def fit_(self, student: Tensor, teacher: Tensor) -> None:
        """Become the least-squares regressor of these features."""
        x, y = (f.detach().movedim(self.axis, -1).flatten(0, -2) for f in (student, teacher))
        every = -(-len(x) // MOST_ROWS)
        weight, bias = least_squares(x[::every], y[::every])
        with torch.no_grad():
            self.weight.copy_(weight)
            self.bias.copy_(bias)


class Hints(nn.Module):
    """The loss of several points and the regressors it needs, which train along with the student.

    Until `fit` has seen the teacher's features, their variances count as 1.

    Args:
        shapes_student, shapes_teacher: shapes of the features at every point, batch axis first; its length does not
            matter, and at most one other axis may differ: the channels.
        seed: of the regressors; the global random numbers stay as they are.

    Raises:
        SlimlineError: there is no point, or the shapes at one cannot be compared.
    """

    variances: Tensor
    """(points,): of the teacher's features; a buffer, so that checkpoints hold it and processes share it."""

    def __init__(self, shapes_student: Sequence[Shape], shapes_teacher: Sequence[Shape], seed: int = 0) -> None:
        super().__init__()
        if not shapes_student or len(shapes_student) != len(shapes_teacher):
            raise SlimlineError(
                f"Features are to be compared at {len(shapes_student)} points of the student and "
                f"{len(shapes_teacher)} of the teacher: give the same points of both, at least one."
            )
        generator = torch.Generator().manual_seed(seed)
        pairs = zip(shapes_student, shapes_teacher, strict=True)
        self.regressors = nn.ModuleList(_regressor(tuple(s), tuple(t), generator) for s, t in pairs)
        self.register_buffer("variances", torch.ones(len(shapes_teacher)))

    def forward(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
        """The mean of `feature_loss` over the points."""
        found = zip(self.regressors, student_features, teacher_features, self.variances, strict=True)
        return torch.stack([feature_loss(_upcast(regressor, s), t, v) for regressor, s, t, v in found]).mean()

    def fit(self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> "Hints":
        """Start the regressors at least squares on one batch of features, and take the teacher's variances there."""
        self.variances.copy_(torch.stack([_precise(t).var(correction=0) for t in teacher_features]))
        for regressor, s, t in zip(self.regressors, student_features, teacher_features, strict=True):
            if isinstance(regressor, Regressor):
                regressor.fit_(s, t)
        return self


def _precise(features: Tensor) -> Tensor:
    return features if features.dtype is torch.float64 else features.float()


def _regressor(student: tuple[int, ...], teacher: tuple[int, ...], generator: torch.Generator) -> nn.Module:
    both = zip(student, teacher, strict=False)
    differing = [axis for axis, (s, t) in enumerate(both) if axis > 0 and s != t]
    if len(student) != len(teacher) or len(differing) > 1:
        raise SlimlineError(
            f"Features of shape {student} cannot be compared with features of shape {teacher}: "
            "only their numbers of channels may differ."
        )
    if not differing:
        return nn.Identity()
    (axis,) = differing
    return Regressor(student[axis], teacher[axis], axis, generator)


def _upcast(regressor: nn.Module, features: Tensor) -> Tensor:
    """What a regressor makes of features that may come in less precision than its weights."""
    result: Tensor = regressor(features.float() if features.dtype in (torch.bfloat16, torch.float16) else features)
    return result
