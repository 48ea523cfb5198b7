"""Numbers as a person reads them: three significant digits, a unit, never an exponent where a unit will do."""

from collections.abc import Sequence
from math import floor, isfinite, log10

NOT_MEASURED = "not measured"
SHARE_SCORES = ("accuracy", "agreement", "cosine", "relative")
"""Scores of which 1 is the best there is, shown in per cent and points."""
SHORT = {
    "agreement": "agreement with the original",
    "cosine": "cosine similarity to the original",
    "relative": "1 \N{MINUS SIGN} relative error to the original",
}
"""Scores that read no labels, in few words; the certificate's ``task.what`` says too that they are not accuracy."""
MINUS = "\N{MINUS SIGN}"


def significant(value: float, digits: int = 3) -> str:
    """``value`` to so many significant digits, without an exponent: 0.112, 4.93, 12,300."""
    if not isfinite(value):
        return "unbounded"
    rounded = float(f"{value:.{digits - 1}e}")  # 9.996 is 10.0, not 10.00
    decimals = 0 if rounded == 0 else max(0, digits - 1 - floor(log10(abs(rounded))))
    return _signed(f"{rounded:,.{decimals}f}")


def _signed(text: str) -> str:
    """With a real minus sign, and none before zero."""
    if text.startswith("-"):
        return text[1:] if not text.strip("-0.,") else MINUS + text[1:]
    return text


def milliseconds(value: float | None) -> str:
    """0.112 ms."""
    return NOT_MEASURED if value is None else f"{significant(value)} ms"


def size(value: float | None) -> str:
    """Bytes in decimal units: 432 B, 61.2 kB, 4.93 MB."""
    return NOT_MEASURED if value is None else _scaled(value, (" B", " kB", " MB", " GB", " TB"))


def count(value: float | None) -> str:
    """A number of things: 960, 304 k, 40.8 M, 1.2 G."""
    return NOT_MEASURED if value is None else _scaled(value, ("", " k", " M", " G", " T"))


def _scaled(value: float, units: Sequence[str]) -> str:
    step = 0
    while step < len(units) - 1 and float(f"{value:.2e}") >= 1000:
        value, step = value / 1000, step + 1
    whole = step == 0 and float(value).is_integer()
    return f"{value:.0f}{units[0]}" if whole else f"{significant(value)}{units[step]}"


def ratio(value: float | None) -> str:
    """11.4 times, with the sign."""
    return NOT_MEASURED if value is None else f"{significant(value)}\N{MULTIPLICATION SIGN}"


def score_name(kind: str) -> str:
    """What a score is called: of one that reads no labels also what it compares with."""
    return SHORT.get(kind, kind)


def score(value: float | None, kind: str) -> str:
    """91.42% for scores of which 1 is the best, else four significant digits."""
    if value is None:
        return NOT_MEASURED
    return f"{_signed(f'{value * 100:.2f}')}%" if kind in SHARE_SCORES else significant(value, 4)


def drop(value: float | None, kind: str, unit: bool = True) -> str:
    """A loss of score: 0.21 points where 1 is the best score, else four significant digits; negative is a gain."""
    if value is None:
        return NOT_MEASURED
    if kind not in SHARE_SCORES:
        return significant(value, 4)
    text = _signed(f"{value * 100:.2f}")
    return f"{text} {'point' if text == '1.00' else 'points'}" if unit else text


def duration(seconds: float) -> str:
    """48 s, 9 min 41 s, 10 min, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{significant(seconds, 2) if seconds < 10 else whole} s"
    large, small, names = (
        (whole // 60, whole % 60, (" min", " s"))
        if whole < 3600
        else (whole // 3600, whole % 3600 // 60, (" h", " min"))
    )
    return f"{large}{names[0]}" + (f" {small:02d}{names[1]}" if small else "")


def shape(values: Sequence[int] | None) -> str:
    """64 x 32 x 3 x 3, with the sign; what has no shape is a removed layer."""
    return "removed" if values is None else " \N{MULTIPLICATION SIGN} ".join(map(str, values)) or "no weights"
