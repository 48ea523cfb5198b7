"""Patterns of zeros: which weights become zero together, and which of a few have to stay.

    any    every weight for itself                   Han et al. (2015), arXiv:1506.02626
    N:M    of M consecutive inputs of an output, at most N stay
                                                     Mishra et al. (2021), arXiv:2104.08378; Zhou et al. (2021),
                                                     arXiv:2102.04010
    RxC    blocks of R outputs by C inputs, each whole or zero
                                                     Narang et al. (2017), arXiv:1711.02782

Scores are a matrix of (outputs, inputs). The inputs of a convolution are its channels under one place of the kernel, so
that N:M and blocks never reach across two places.

Ours differs: a block counts with the sum of its scores, not with the largest. An N:M pattern can be reached step by
step: a share below (M - N) / M zeroes that many of the weights which the whole pattern would, those of the lowest
scores first, and (M - N) / M gives the whole pattern.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimline.errors import SlimlineError

EXAMPLES = ("any", "2:4", "1x4", "2x4", "4x4")
MOST = 0.999
"""The largest share of zeros that may be asked for: a layer of nothing but zeros answers nothing."""
FORM = re.compile(r"([1-9]\d{0,3})(:|x)([1-9]\d{0,3})")


@dataclass(frozen=True)
class Pattern:
    """Blocks of ``rows`` outputs by ``columns`` inputs."""

    rows: int = 1
    columns: int = 1
    kept: int = 0
    """Weights of each block that stay; 0 where a block stays or goes as a whole."""

    @property
    def unit(self) -> int:
        """Weights that become zero together."""
        return 1 if self.kept else self.rows * self.columns

    @property
    def largest_share(self) -> float:
        """Of zeros."""
        return (self.columns - self.kept) / self.columns if self.kept else 1.0

    def share(self, wanted: float) -> float:
        """The share of zeros that a method asks for: an N:M pattern says itself how many there are."""
        return self.largest_share if self.kept else wanted

    def without_effect(self, wanted: float) -> dict[str, str]:
        """The hyperparameter that does nothing with this pattern, and why."""
        if not self.kept or abs(self.share(wanted) - wanted) < 1e-9:
            return {}
        return {"sparsity": f"{self.kept}:{self.columns} zeroes {self.largest_share:.0%} of a layer whatever it says"}

    def unsuited(self, outputs: int, inputs: int) -> list[str]:
        """Why a layer cannot have this pattern; [] means it can."""
        found = []
        if outputs % self.rows:
            found.append(f"{outputs} outputs are no multiple of {self.rows}")
        if inputs % self.columns:
            found.append(f"{inputs} inputs are no multiple of {self.columns}")
        return found


def pattern_of(text: object) -> Pattern:
    """The pattern that is written like this.

    Raises:
        SlimlineError: there is none.
    """
    match = FORM.fullmatch(text) if isinstance(text, str) else None
    if text == "any":
        return Pattern()
    if match is not None and match[2] == "x":
        return Pattern(int(match[1]), int(match[3]))
    if match is not None and int(match[1]) < int(match[3]):
        return Pattern(1, int(match[3]), int(match[1]))
    raise SlimlineError(
        f"{text!r} is no pattern of zeros: use 'any'; 'N:M' with 0 < N < M, such as '2:4', where N of M consecutive "
        "inputs stay; or 'RxC', such as '1x4', for blocks of R outputs by C inputs. YAML needs the quotes."
    )


class _Examples(tuple[str, ...]):
    """A few patterns to choose from; what else is written like one belongs to them."""

    def __contains__(self, text: object) -> bool:
        return bool(pattern_of(text))


PATTERNS = _Examples(EXAMPLES)
"""The choices of a hyperparameter that is a pattern; any other one raises the sentence of `pattern_of`."""


def unit_scores(scores: Tensor, pattern: Pattern) -> Tensor:
    """The score of everything that becomes zero together, (rows of blocks, blocks of a row).

    Of an N:M pattern those are the weights themselves, and those that have to stay count as infinite.
    """
    rows, columns = scores.shape
    if pattern.kept:
        groups = scores.reshape(rows, -1, pattern.columns)
        going = lowest(groups, pattern.columns - pattern.kept)
        return groups.masked_fill(~going, torch.inf).reshape(rows, columns)
    if pattern.unit == 1:
        return scores
    return scores.reshape(rows // pattern.rows, pattern.rows, columns // pattern.columns, pattern.columns).sum((1, 3))


def weights_of(units: Tensor, pattern: Pattern) -> Tensor:
    """A mask of weights from a mask of what `unit_scores` scores."""
    if pattern.unit == 1:
        return units
    return units.repeat_interleave(pattern.rows, 0).repeat_interleave(pattern.columns, 1)


def lowest(scores: Tensor, count: int) -> Tensor:
    """A mask of the ``count`` lowest scores along the last axis; of equal ones the first."""
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    limit = scores.kthvalue(count, -1, keepdim=True).values
    below, equal = scores < limit, scores == limit
    return below | (equal & (equal.cumsum(-1) <= count - below.sum(-1, keepdim=True)))


def zeros(scores: Tensor, share: float, pattern: Pattern) -> Tensor:
    """A mask of the weights that become zero: round(share * units) units, those of the lowest scores.

    Args:
        scores: (outputs, inputs), which the pattern divides.
        share: at most ``pattern.largest_share``.
    """
    return zeros_of_all([scores], share, pattern)[0]


def zeros_of_rows(scores: Tensor, share: float, pattern: Pattern) -> Tensor:
    """The same, where each output (each row of blocks) loses round(share * units) of its own units."""
    units = unit_scores(scores, pattern)
    return weights_of(lowest(units, round(share * units.shape[1])), pattern)


def zeros_of_all(scores: Sequence[Tensor], share: float, pattern: Pattern) -> list[Tensor]:
    """The same of several layers, whose units are compared with each other."""
    units = [unit_scores(each, pattern) for each in scores]
    everything = torch.cat([each.flatten() for each in units]) if units else torch.zeros(0)
    parts = torch.split(lowest(everything, round(share * len(everything))), [each.numel() for each in units])
    return [weights_of(part.view_as(each), pattern) for part, each in zip(parts, units, strict=True)]
