"""Axes, thinning and labels of a plot of lines, as plain data.

A plot is a box `WIDTH` wide and so many pixels high. The page stretches it sideways, never upwards, so that heights are
real pixels while a place along the box is a share of whatever width there is; texts lie over it and keep their size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isclose, log, log1p, log10

from slimline.report import wording

WIDTH = 1000.0
NOMINAL_WIDTH = 600
"""Pixels that the box has on a wide screen; labels inside the box are left out where it is narrower."""
LETTER = 7.0
LABEL_HEIGHT = 16.0
LABEL_WIDTH = 132.0
LONGEST_SHIFT = 26.0
"""A label further than this from the end of its line says nothing any more."""
NEAR_TICKS = 0.14
"""Ticks along the box keep at least this share of it between them: room for a number on a telephone."""
SUPERSCRIPTS = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")

Place = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Numbers to shares of the axis: linear, logarithmic or, with a ``bend``, log(1 + value / bend), which has a 0."""

    low: float
    high: float
    logarithmic: bool = False
    bend: float = 0.0

    def share(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``; what lies outside is put on the edge."""
        low, high = self._bent(self.low), self._bent(self.high)
        return min(1.0, max(0.0, (self._bent(value) - low) / (high - low))) if high > low else 0.5

    def _bent(self, value: float) -> float:
        if self.bend:
            return log1p(max(value, 0.0) / self.bend)
        return log(max(value, self.low)) if self.logarithmic else value

    def ticks(self, most: int) -> list[float]:
        """About ``most`` round numbers at most."""
        if self.bend:
            return self._apart([0.0, *decades(self.bend / 2, self.high)])
        found = decades(self.low, self.high) if self.logarithmic else []
        if len(found) < 3:
            return steps(self.low, self.high, most)
        if len(found) > most:
            found = [v for v in found if isclose(round(log10(v)), log10(v), abs_tol=1e-6)]
        return found[:: -(-len(found) // most)]

    def _apart(self, values: Sequence[float]) -> list[float]:
        """From both ends inwards, those that have room: the ends tell the most."""
        kept: list[float] = []
        inside = [v for v in values if self.low <= v <= self.high]
        for value in inside[:1] + inside[:0:-1]:
            if all(abs(self.share(value) - self.share(other)) >= NEAR_TICKS for other in kept):
                kept.append(value)
        return sorted(kept)


def decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two positive numbers."""
    exponents = range(floor(log10(low)), floor(log10(high)) + 1)
    return [v for v in (m * 10.0**e for e in exponents for m in (1, 2, 5)) if low <= v <= high]


def step_size(low: float, high: float, most: int) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that fits at most ``most`` times between two numbers."""
    raw = (high - low) / most
    base = 10.0 ** floor(log10(raw))
    return next(m * base for m in (1, 2, 5, 10, 20) if m * base >= raw)


def steps(low: float, high: float, most: int) -> list[float]:
    """Multiples of one round number."""
    if not high > low:
        return [low]
    step = step_size(low, high, most)
    first, last = -floor(-low / step + 1e-9), floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def number(value: float) -> str:
    """Three significant digits, with a power of ten only where zeros would have to be counted: 0.0123, 4.56·10⁻⁷."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return wording.significant(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{wording.significant(float(mantissa))}\N{MIDDLE DOT}10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def round_number(value: float) -> str:
    """A tick: as few digits as it has."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:,.10f}".rstrip("0").rstrip(".").replace("-", wording.MINUS)
    mantissa, exponent = f"{value:.0e}".split("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return power if mantissa == "1" else f"{mantissa.replace('-', wording.MINUS)}\N{MIDDLE DOT}{power}"


def thin(values: Sequence[float], most: int) -> list[int]:
    """Indices of at most about ``most`` points that still show every peak: ends, the first few, extremes of buckets."""
    count = len(values)
    if count <= most:
        return list(range(count))
    kept = {*range(min(8, count)), count - 1}
    buckets = max(1, (most - len(kept)) // 2)
    for bucket in range(buckets):
        inside = range(bucket * count // buckets, (bucket + 1) * count // buckets)
        kept |= {min(inside, key=values.__getitem__), max(inside, key=values.__getitem__)}
    return sorted(kept)


def spread(wanted: Sequence[float], low: float, high: float) -> dict[int, float]:
    """Heights of labels, each as near as can be to where it wants to be, none closer than a line of text to another.

    A label that would end up further away than `LONGEST_SHIFT` is left out.
    """
    left = sorted(range(len(wanted)), key=lambda k: wanted[k])
    while left:
        places = _pushed_apart([min(max(wanted[k], low), high) for k in left], low, high)
        shifts = [abs(place - wanted[k]) for k, place in zip(left, places, strict=True)]
        if max(shifts) <= LONGEST_SHIFT:
            return dict(zip(left, places, strict=True))
        # Of a crowd the middle is the least missed: the first and the last mark its extent.
        worst = shifts.index(max(shifts))
        del left[min(max(worst, 1), len(left) - 2) if len(left) > 2 else worst]
    return {}


def _pushed_apart(rising: Sequence[float], low: float, high: float) -> list[float]:
    """Neighbours that come too close form a block around the mean of their places."""
    blocks: list[tuple[float, int]] = []  # the middle of a block, and how many labels it holds
    for place in rising:
        middle, count = place, 1
        while blocks and middle - (count - 1) * LABEL_HEIGHT / 2 < _end(*blocks[-1]) + LABEL_HEIGHT:
            other, more = blocks.pop()
            middle, count = (middle * count + other * more) / (count + more), count + more
            half = (count - 1) * LABEL_HEIGHT / 2
            middle = max(min(middle, high - half), low + half)
        blocks.append((middle, count))
    return [m + (k - (count - 1) / 2) * LABEL_HEIGHT for m, count in blocks for k in range(count)]


def _end(middle: float, count: int) -> float:
    return middle + (count - 1) * LABEL_HEIGHT / 2


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of a box `NOMINAL_WIDTH` wide."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def crossed_by(self, line: Sequence[Place]) -> bool:
        """Whether a line through ``line``, from left to right, enters the rectangle."""
        for (x0, y0), (x1, y1) in zip(line, line[1:], strict=False):
            start, stop = max(x0, self.left), min(x1, self.right)
            if start > stop:
                continue
            slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
            ends = (y0 + slope * (start - x0), y0 + slope * (stop - x0)) if x1 > x0 else (y0, y1)
            if max(ends) >= self.top and min(ends) <= self.bottom:
                return True
        return False


def text_width(text: str) -> float:
    """Pixels of a label, at most what the page gives it."""
    return min(LABEL_WIDTH, LETTER * len(text) + 8)
