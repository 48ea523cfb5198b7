"""Write what a benchmark found to benchmarks/results, together with what a reader needs to judge it."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimline.errors import SlimlineError
from slimline.measure.machine import machine, versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CHANGES = "+changes"


def write(
    name: str, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], seeds: Sequence[int], seconds: float
) -> Path:
    """Write ``results/NAME.json`` and return its path.

    Args:
        summary: the figures that README and docs quote; units are in the keys (``seconds``, ``latency_ms``).
        rows: every single result that the summary was made from, at least one.
        seeds: the seeds that were run.
        seconds: wall time of the whole benchmark.

    Raises:
        SlimlineError: there are no rows, or a value is not finite or has no form in JSON.
    """
    if not rows:
        raise SlimlineError(f"The benchmark {name!r} has no rows: a summary needs the results it was made from.")
    result = {
        "summary": summary,
        "rows": list(rows),
        "seeds": list(seeds),
        "seconds": round(seconds, 1),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(ROOT),
    }
    try:
        text = json.dumps(result, indent=2, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SlimlineError(
            f"The results of the benchmark {name!r} cannot be written as JSON ({error}): give finite plain values."
        ) from error
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def kept(
    path: Path, known: Mapping[str, Any], code: str, make: Callable[[], Mapping[str, Any]]
) -> tuple[dict[str, Any], bool]:
    """What ``make`` finds, and whether an earlier call had found it: it is kept in ``path``.

    It is made anew where that holds something else, and always while the code has changes, which no commit names.

    Args:
        known: plain values by which it is recognised.
        code: the `commit` with which the benchmark began.
    """
    expected = {**known, "commit": code}
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if expected.items() <= stored.items() and not code.endswith(CHANGES):
        return stored["found"], True
    found = dict(make())
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps({**expected, "found": found}, default=_plain), encoding="utf-8")
    whole.rename(path)
    return found, False


def _plain(value: object) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"a {type(value).__name__} is not a plain value")


def commit(root: Path) -> str:
    """The git commit of ``root``, with `CHANGES` when the code differs from it, or ``unknown`` outside git."""
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        return "unknown"
    # The result files themselves change while benchmarks run.
    changed = _git(root, "status", "--porcelain", "--", "src", "benchmarks", ":(exclude)benchmarks/results")
    return f"{head}{CHANGES}" if changed else head


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where git is missing or refuses."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
