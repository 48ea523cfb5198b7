"""Write docs/methods.md: one card for every registered method, from its docstring, its fields and its measurements.

    python -m tools.method_cards [--check]

Nothing on the page is typed by hand: the text is that of the method's file, the table that of its hyperparameters, the
figures those of benchmarks/results/methods_*.json. With ``--check`` nothing is written and a stale page ends with 1.
"""

import argparse
import inspect
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from slimline.methods.method import Method, registry

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "methods.md", ROOT / "benchmarks" / "results"
ROOMS = ("simplify", "prune", "sparsify", "factorize", "share", "quantize", "distill", "adjust")
HEAD = """# Methods

Every method is a file under `src/slimline/methods`, an entry of a recipe and a name of the package
(`sl.PruneChannels(keep=0.5)`). This page is made from those files by `make docs`.

{measured}
"""
MEASURED = """Measured are exported files against the original's (`benchmarks/methods.py`; ONNX Runtime, batch 1): speed
with its 95 % interval, bytes on disk plain and packed by gzip. Zeros are no speed-up. The networks:

{networks}"""


def page(methods: Mapping[str, type[Method]], results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page.

    Args:
        results: what benchmarks/methods.py wrote for every network, as far as it has run.
    """
    measured = "Nothing has been measured yet: run `make bench NAME=methods`."
    if results:
        measured = MEASURED.format(networks="\n".join(network(result["summary"]) for result in results))
    parts = [HEAD.format(measured=measured)]
    for room in ROOMS:
        own = [cls for cls in methods.values() if cls.__module__.split(".")[2] == room]
        if own:
            parts.append(f"## {room}\n")
            parts += [card(cls, results) for cls in sorted(own, key=lambda cls: cls.__name__)]
    return "\n".join(parts)


def network(summary: Mapping[str, Any]) -> str:
    """A line of the list of networks."""
    ends = f"`{summary['recovery']}`" if summary["recovery"] else ""
    broken = f"a recipe that ends with {ends} was recovered" if ends else "nothing is recovered"
    return f"* {summary['network']}: {summary['n']:,} test samples, {summary['original_score']:.2%}; {broken}."


def card(cls: type[Method], results: Sequence[Mapping[str, Any]]) -> str:
    """One method."""
    text = inspect.getdoc(sys.modules[cls.__module__]) or ""
    path = f"src/{cls.__module__.replace('.', '/')}.py"
    lines = [f"### {cls.__name__}\n", f"{text.strip()}\n", f"File: [`{path}`](../{path})"]
    needs = sorted(cls.needs) + ["data as its defaults stand"] * (cls().learns_from_data() and "data" not in cls.needs)
    facts = [f"needs {' and '.join(needs)}" if needs else "", _leaves(cls)]
    lines.append(f"Facts: {'; '.join(f for f in facts if f) or 'needs nothing'}.\n")
    table = hyperparameters(cls)
    if table:
        lines += ["| hyperparameter | default | range | meaning |", "|---|---|---|---|", *table, ""]
    for result in results:
        own = [row for row in result["rows"] if row["method"].partition(",")[0] == cls.__name__]
        if own:
            lines.append(f"| on {result['summary']['network']} | score lost, points | on disk | packed | speed |")
            lines += ["|---|---|---|---|---|", *map(measured, own), ""]
    return "\n".join(lines)


def _leaves(cls: type[Method]) -> str:
    return f"leaves {' and '.join(sorted(cls.leaves))}" if cls.leaves else ""


def hyperparameters(cls: type[Method]) -> list[str]:
    """Rows of the table, from `param`."""
    found = []
    for f in fields(cls):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        limits = f.metadata
        if limits["choices"]:
            allowed = ", ".join(f"`{choice}`" for choice in limits["choices"])
        elif math.isfinite(limits["low"]) and math.isfinite(limits["high"]):
            allowed = f"{limits['low']:g} to {limits['high']:g}"
        else:
            allowed = f"at least {limits['low']:g}" if math.isfinite(limits["low"]) else ""
        shown = f"`{default!r}`" if default not in ((), {}, "") else "none"
        found.append(f"| `{f.name}` | {shown} | {allowed} | {limits['doc'].replace('|', '/')} |")
    return found


def measured(row: Mapping[str, Any]) -> str:
    """One row of what benchmarks/methods.py wrote."""
    recipe = " > ".join(f"`{line}`" for line in row["recipe"])
    lost = f"{row['drop_points']:.2f}, at most {row['drop_upper_points']:.2f}"
    sizes = f"{row['size_ratio']:.2f}x smaller | {row['packed_ratio']:.2f}x smaller"
    return f"| {recipe} | {lost} | {sizes} | {row['speedup']:.2f}x ({row['low']:.2f} to {row['high']:.2f}) |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when the page is stale")
    asked = parser.parse_args(arguments)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("methods_*.json"))]
    made = page(dict(sorted(registry().items())), results)
    if asked.check:
        fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made
        if not fresh:
            print(f"{PAGE.relative_to(ROOT)} is stale: run make docs", file=sys.stderr)
        return 0 if fresh else 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
