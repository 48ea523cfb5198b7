"""The original against the best, in words: what the page and the terminal both show."""

from dataclasses import dataclass

from slimline.report import wording
from slimline.report.certificate import Certificate


@dataclass(frozen=True)
class Row:
    """One line of the table; every cell is ready to print."""

    what: str
    original: str
    best: str
    change: str


@dataclass(frozen=True)
class Interval:
    """A value, its bounds and the marks to read them by, on a line from 0 to 100."""

    low: float
    high: float
    value: float
    marks: list[tuple[float, str, bool]]
    """Where, what it is called, and whether it is a limit."""


@dataclass(frozen=True)
class Pair:
    """Two bars, before and after: their lengths as shares of the longer in per cent, and their texts."""

    before: float
    after: float
    before_text: str
    after_text: str


@dataclass(frozen=True)
class Figure:
    """One big number with its unit, what it was measured against and how often."""

    title: str
    value: str
    unit: str
    claim: str
    facts: list[str]
    drawn: Interval | Pair | None = None


def best_runtime(certificate: Certificate) -> str | None:
    """The runtime that runs the original fastest; None when it was measured in none."""
    latencies = certificate.original.latency_ms
    return min(latencies, key=lambda runtime: latencies[runtime]) if latencies else None


def headline(certificate: Certificate) -> str:
    """The verdict's sentence without the verdict, which stands beside it as a badge."""
    text = certificate.sentence.removeprefix(f"{certificate.verdict.value}: ")
    return text[:1].upper() + text[1:]


def asked(certificate: Certificate) -> str:
    """The budget in one sentence."""
    budget, kind = certificate.budget, certificate.task.score
    goal = "the lowest latency" if budget.minimize == "latency" else "the smallest size"
    limits = [f"loses at most {wording.drop(budget.max_drop, kind)} of {wording.score_name(kind) or 'score'}"]
    if budget.max_latency_ms is not None:
        limits.append(f"needs at most {wording.milliseconds(budget.max_latency_ms)}")
    if budget.max_size_bytes is not None:
        limits.append(f"takes at most {wording.size(budget.max_size_bytes)}")
    if budget.min_speedup is not None:
        limits.append(f"is at least {wording.ratio(budget.min_speedup)} as fast")
    listed = limits[0] if len(limits) == 1 else f"{', '.join(limits[:-1])} and {limits[-1]}"
    within = "" if budget.time_s is None else f", within {wording.duration(budget.time_s)}"
    return f"{goal} that {listed}{within}"


def between(low: float | None, high: float | None) -> str:
    """The interval of a ratio."""
    return "" if low is None or high is None else f"{wording.ratio(low)} to {wording.ratio(high)}"


def comparison(certificate: Certificate) -> list[Row]:
    """Score, size, parameters, MACs, memory, latency in each runtime, and the measured ratios of latency."""
    original, best, kind = certificate.original, certificate.best, certificate.task.score
    name = f"Score ({wording.score_name(kind)})" if kind else "Score"
    lost = f"{wording.drop(abs(best.drop), kind)} {'lost' if best.drop >= 0 else 'gained'}"
    rows = [
        Row(name, wording.score(original.score, kind), wording.score(best.score, kind), lost),
        Row("Size on disk", wording.size(original.size_bytes), wording.size(best.size_bytes), _times(best.size_ratio)),
        _counted("Parameters", original.parameters, best.parameters),
        _counted("MACs per sample", original.macs, best.macs),
        Row("Peak memory of the process", wording.NOT_MEASURED, wording.size(best.memory_bytes), ""),
    ]
    runtimes = [*original.latency_ms, *({best.runtime} - original.latency_ms.keys())]
    for runtime in runtimes:
        here = best.latency_ms if runtime == best.runtime else None
        before = original.latency_ms.get(runtime)
        rows.append(Row(f"Latency, {runtime}", wording.milliseconds(before), wording.milliseconds(here), ""))
    return rows


def speed_rows(certificate: Certificate) -> list[Row]:
    """The paired ratios of latency: against what, the ratio, its interval and what the comparison says."""
    best, runtime = certificate.best, best_runtime(certificate)
    whose = f"in its best runtime, {runtime}" if runtime else "in its best runtime"
    return [
        Row(
            f"the original {whose}",
            wording.ratio(best.speedup_vs_best_original),
            between(best.speedup_vs_best_original_low, best.speedup_vs_best_original_high),
            "what deploying the network unchanged would give at best",
        ),
        Row(
            "the original in PyTorch eager",
            wording.ratio(best.speedup),
            between(best.speedup_low, best.speedup_high),
            "what most networks run in before they are deployed",
        ),
        Row(
            "the original, only quantised to int8",
            wording.ratio(best.speedup_vs_int8_only),
            between(best.speedup_vs_int8_only_low, best.speedup_vs_int8_only_high),
            "what the search adds to plain quantisation",
        ),
    ]


def _counted(what: str, before: int, after: int) -> Row:
    change = _times(before / after) if after else ""
    return Row(what, wording.count(before), wording.count(after), change)


def _times(ratio: float) -> str:
    """A ratio above 1 is smaller, which is better."""
    if wording.significant(ratio) == "1.00":
        return "the same"
    return f"{wording.ratio(ratio)} smaller" if ratio > 1 else f"{wording.ratio(1 / ratio)} larger"


def figures(certificate: Certificate) -> list[Figure]:
    """Speed, size, score lost and latency, in the order of the page."""
    return [_speed(certificate), _size(certificate), _lost(certificate), _latency(certificate)]


def _conditions(certificate: Certificate) -> str:
    machine = certificate.machine
    launches = "several launches" if machine.launches is None else f"n = {machine.launches} launches"
    return f"{launches}, taking turns on batch {machine.batch} with {machine.threads} threads"


def _speed(certificate: Certificate) -> Figure:
    best, runtime = certificate.best, best_runtime(certificate)
    ratio, low, high = (
        best.speedup_vs_best_original,
        best.speedup_vs_best_original_low,
        best.speedup_vs_best_original_high,
    )
    verb = "as fast as" if ratio >= 1 else "the speed of"
    return Figure(
        "Speed",
        wording.significant(ratio),
        "\N{MULTIPLICATION SIGN}",
        f"{verb} the original in its own best runtime{f', {runtime}' if runtime else ''}",
        [f"95% interval {between(low, high)}", _conditions(certificate)],
        _interval(low, ratio, high, [(1.0, "original", False)]),
    )


def _size(certificate: Certificate) -> Figure:
    original, best = certificate.original, certificate.best
    smaller, same = best.size_ratio >= 1, wording.significant(best.size_ratio) == "1.00"
    return Figure(
        "Size",
        wording.significant(best.size_ratio if smaller else 1 / best.size_ratio),
        "\N{MULTIPLICATION SIGN}",
        "as large on disk as the original"
        if same
        else f"{'smaller' if smaller else 'larger'} on disk than the original",
        [f"n = 1 file, {best.size_bytes:,} bytes, everything counted; the original has {original.size_bytes:,}"],
        _pair(original.size_bytes, best.size_bytes, wording.size(original.size_bytes), wording.size(best.size_bytes)),
    )


def _lost(certificate: Certificate) -> Figure:
    best, kind, allowed = certificate.best, certificate.task.score, certificate.budget.max_drop
    value, _, unit = wording.drop(best.drop, kind).partition(" ")
    lower, upper = wording.drop(best.drop_lower, kind, unit=False), wording.drop(best.drop_upper, kind)
    return Figure(
        "Score lost",
        value,
        unit,
        f"at most {upper} with 95% confidence; {wording.drop(allowed, kind)} allowed",
        [
            f"one-sided 95% bounds {lower} and {upper}",
            f"n = {certificate.splits.certify:,} certify samples, each paired with the original's answer",
        ],
        _interval(best.drop_lower, best.drop, best.drop_upper, [(0.0, "0", False), (allowed, "allowed", True)]),
    )


def _latency(certificate: Certificate) -> Figure:
    best, latencies, runtime = certificate.best, certificate.original.latency_ms, best_runtime(certificate)
    value, _, unit = wording.milliseconds(best.latency_ms).partition(" ")
    listed = [f"{wording.milliseconds(ms)} in {name}" for name, ms in latencies.items()]
    drawn = None
    if runtime is not None:
        fastest = latencies[runtime]
        texts = f"{wording.milliseconds(fastest)} in {runtime}", wording.milliseconds(best.latency_ms)
        drawn = _pair(fastest, best.latency_ms, *texts)
    return Figure(
        "Latency now",
        value,
        unit,
        f"per batch of {certificate.machine.batch} in {best.runtime}, {best.precision}",
        [f"the original: {', '.join(listed) or wording.NOT_MEASURED}", _conditions(certificate)],
        drawn,
    )


def _pair(before: float, after: float, before_text: str, after_text: str) -> Pair:
    longest = max(before, after) or 1
    return Pair(round(100 * before / longest, 2), round(100 * after / longest, 2), before_text, after_text)


def _interval(low: float, value: float, high: float, marks: list[tuple[float, str, bool]]) -> Interval:
    """Scaled to hold the bounds and the marks; of two marks that would touch, only the limit keeps its text."""
    ends = [low, high, *(x for x, _, _ in marks)]
    pad = 0.08 * (max(ends) - min(ends)) or 1.0
    start, end = min(ends) - pad, max(ends) + pad

    def at(x: float) -> float:
        return round(100 * (x - start) / (end - start), 2)

    limits = [at(x) for x, _, limit in marks if limit]
    placed = [
        (at(x), "" if not limit and any(abs(at(x) - far) < 30 for far in limits) else text, limit)
        for x, text, limit in marks
    ]
    return Interval(at(low), at(high), at(value), placed)
