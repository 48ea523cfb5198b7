"""Fill README.md and docs/*.md with the figures of benchmarks/results.

    python -m tools.readme_figures [--check] [FILE ...]

A block between ``<!-- figures:NAME -->`` and ``<!-- /figures -->`` is replaced by a table made from
``benchmarks/results/NAME.json``. With ``--check`` nothing is written and a stale file ends the program with 1.
"""

import argparse
import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimline.errors import SlimlineError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
OPEN, CLOSE = "<!-- figures:{} -->", "<!-- /figures -->"
MARK = re.compile(r"^<!-- (?:figures:(?P<name>[\w-]+)|/figures) -->$", re.MULTILINE)

Result = Mapping[str, Any]


def filled(text: str, results: Path) -> str:
    """``text`` with every block made anew; text outside the blocks stays as it is.

    Raises:
        SlimlineError: a mark without its partner, a result file that is missing, or one that lacks a key.
    """
    marks = list(MARK.finditer(text))
    if text.count("<!-- figures:") + text.count(CLOSE) != len(marks):
        raise SlimlineError(f"a mark is misspelt: write {OPEN.format('NAME')} and {CLOSE}, each on a line of its own")
    pieces, end = [], 0
    for opening, closing in zip(marks[::2], [*marks[1::2], None], strict=False):
        name = opening["name"]
        if name is None or closing is None or closing["name"] is not None:
            raise SlimlineError(f"the mark {opening.group()} has no partner: {OPEN.format('NAME')} ends with {CLOSE}")
        pieces += [text[end : opening.end()], "\n\n", table(name, results), "\n"]
        end = closing.start()
    return "".join([*pieces, text[end:]])


def table(name: str, results: Path) -> str:
    """The Markdown table of one benchmark."""
    path = results / f"{name}.json"
    if not path.is_file():
        raise SlimlineError(f"benchmarks/results/{name}.json is missing: run make bench NAME={name}")
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = FORMATS.get(name, any_rows)
    try:
        lines = [*rows(result), ("machine", machine_line(result)), ("file", f"`benchmarks/results/{name}.json`")]
    except KeyError as error:
        raise SlimlineError(f"benchmarks/results/{name}.json has no {error}: run make bench NAME={name}") from error
    return "\n".join(["| | |", "|---|---|", *(f"| {left} | {right} |" for left, right in lines)]) + "\n"


def demo_rows(result: Result) -> list[tuple[str, str]]:
    """What `slimline demo` achieved; drops are shares of the score, shown in points (0.01 = 1 point)."""
    s = result["summary"]
    return [
        ("verdict", f"**{s['verdict']}**"),
        ("speed against the original in PyTorch eager", ratio(s, "speedup")),
        ("speed against the original in its own best runtime", ratio(s, "speedup_vs_best_original")),
        ("speed against int8 quantisation alone", ratio(s, "speedup_vs_int8_only")),
        ("size against the original", f"{s['size_ratio']:.1f} times smaller"),
        ("loss of score", f"{100 * s['drop']:.2f} points, at most {100 * s['drop_upper']:.2f} (one-sided 95 %)"),
        ("measured on", f"{s['n']:,} samples that the search never read"),
        ("time of the whole run", f"{s['seconds']:.0f} s"),
    ]


def ratio(summary: Result, key: str, digits: int = 2) -> str:
    """``3.21x``, with its 95 % interval where the summary has one."""
    text = f"{summary[key]:.{digits}f}x"
    if f"{key}_low" in summary:
        low, high = summary[f"{key}_low"], summary[f"{key}_high"]
        text += f" (95 % interval {low:.{digits}f} to {high:.{digits}f})"
    return text


def any_rows(result: Result) -> list[tuple[str, str]]:
    """The summary as it is, for benchmarks without a format of their own."""
    return [(key.replace("_", " "), value(item)) for key, item in result["summary"].items()]


def value(item: object) -> str:
    """Floats to four significant digits; a bar would end the cell."""
    return (f"{item:.4g}" if isinstance(item, float) else str(item)).replace("|", "\\|")


def machine_line(result: Result) -> str:
    """The machine in one line."""
    machine = result["machine"]
    return f"{machine['cpu']}, {machine['threads']} thread{'s' * (machine['threads'] != 1)}"


def onnx_backend_rows(result: Result) -> list[tuple[str, str]]:
    """Tests passed, failed and out of scope: in all, and by operator with the reasons."""
    s = result["summary"]
    rows = [
        ("**all operators**", f"**{s['passed']:,} passed, {s['failed']} failed, {s['out_of_scope']} out of scope**"),
        ("passed of those in scope", f"{100 * s['rate']:.1f} %"),
    ]
    for row in result["rows"]:
        parts = [f"{row[key]} {key.replace('_', ' ')}" for key in ("passed", "failed", "out_of_scope") if row[key]]
        why = f" ({'; '.join(row['reasons'])})" if row["out_of_scope"] else ""
        rows.append((row["operator"], value(", ".join(parts) + why)))
    return rows


def sources_rows(result: Result) -> list[tuple[str, str]]:
    """One row per source; the loss is in the score that the row names."""
    rows = []
    for r in result["rows"]:
        text = (
            f"**{r['verdict']}**, {ratio(r, 'speedup_vs_best_original')} against its best runtime, "
            f"{r['size_ratio']:.1f} times smaller, {100 * r['drop']:.2f} points lost, "
            f"at most {100 * r['drop_upper']:.2f} (n = {r['n']:,}; {r['score']}); "
            f"relative error of the import {r['relative_error']:.1e}"
        )
        if "speedup_vs_given_in_onnxruntime" in r:
            text += f"; {ratio(r, 'speedup_vs_given_in_onnxruntime')} against the given file in ONNX Runtime"
        rows.append((f"{r['source']} (`{r['file']}`)", value(text)))
    return rows


def recovery_rows(result: Result) -> list[tuple[str, str]]:
    """What training brings back, how fast a step is and what memory it takes."""
    s = result["summary"]
    rows = [("MACs left", f"{100 * s['macs_left']:.1f} %")]
    for way in ("with labels", "without labels", "without data"):
        key = f"points_lost_{way.replace(' ', '_')}"
        rows.append(
            (f"points lost, recovered {way}", f"{s[key]:.2f}, at most {s[f'{key}_upper']:.2f} (one-sided 95 %)")
        )
    steps = {f"{count} process{'es' * (count > 1)}": s[f"steps_per_second_{count}_processes"] for count in (1, 2, 4)}
    return [
        *rows,
        ("time of a step against a plain PyTorch loop's", ratio(s, "step_time_against_plain", 3)),
        ("speed of a step in bf16 against fp32", ratio(s, "bf16_speedup")),
        ("compiled, fp32", ratio(s, "compiled_speedup")),
        ("compiled, bf16", ratio(s, "bf16_compiled_speedup")),
        ("steps per second", ", ".join(f"{speed:.2f} with {name}" for name, speed in steps.items())),
        (
            "peak memory of distillation",
            f"{s['peak_memory_ratio']:.2f} of what the original and the student take, each on its own, added up",
        ),
    ]


def augmentation_rows(result: Result) -> list[tuple[str, str]]:
    """Accuracy and divergence for every way of showing a few images, means over the seeds."""
    s = result["summary"]
    rows = [("the original", f"{s['accuracy_original']:.1f} %")]
    for key in [k.removesuffix(": accuracy") for k in s if k.endswith(": accuracy")]:
        kl, spread = [s[f"{key}: kl_{part}"] for part in ("train", "test")], s[f"{key}: accuracy spread"]
        rows.append(
            (key, f"{s[f'{key}: accuracy']:.1f} % (± {spread:.1f}), kl {kl[0]:.4f} trained on, {kl[1]:.4f} unseen")
        )
    return rows


def structure_rows(result: Result) -> list[tuple[str, str]]:
    """One row per side: score, speed and what is left, means over the seeds with their standard deviations."""
    rows = [
        ("the original", f"{100 * result['rows'][0]['original_score']:.2f} % of {result['rows'][0]['n']:,} samples")
    ]
    for who, side in result["summary"]["sides"].items():
        left = [f"{spread(side[f'{key}_left'], 100, 1)} % of the {key}" for key in ("macs", "parameters")]
        if side["not_zero_left"]["mean"] < side["parameters_left"]["mean"] - 0.01:
            left.append(f"{spread(side['not_zero_left'], 100, 1)} % not zero")
        seeds = side["score"]["seeds"]
        rows.append(
            (
                who,
                f"**{spread(side['score'], 100, 2)} %** ({spread(side['drop_points'], 1, 2)} points lost), "
                f"**{spread(side['speedup'], 1, 2)}x** the speed, {', '.join(left)}; {seeds} seed{'s' * (seeds > 1)}",
            )
        )
    recipes = "; ".join(
        f"{who}: {' > '.join(map(short, lines))}" for who, lines in result["summary"]["recipes"].items()
    )
    return [
        *rows,
        ("recovery, on every side", f"{result['summary']['steps']} steps of `{result['summary']['recovery']}`"),
        ("recipes", value(recipes)),
    ]


def patience_rows(result: Result) -> list[tuple[str, str]]:
    """One row per kind of views and number of steps."""
    summary = result["summary"]
    rows = [("the original", f"{100 * summary['original_score']:.2f} % of {summary['n']:,} samples")]
    for name, side in summary["sides"].items():
        lost = side["drop_points"]
        seeds = f"{lost['seeds']} seed{'s' * (lost['seeds'] > 1)}"
        rows.append((name, f"{spread(lost, 1, 2)} points lost ({100 * side['score']:.2f} %, {seeds})"))
    left = [f"{100 * side['parameters_left']:.1f} %" for side in summary["sides"].values()]
    macs = [f"{100 * side['macs_left']:.1f} %" for side in summary["sides"].values()]
    rows.append(("left", f"{several(left)} of the parameters, {several(macs)} of the macs"))
    return rows


def several(texts: list[str]) -> str:
    """The one text that all are, or the first and the last in order."""
    found = sorted(set(texts))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def short(line: str) -> str:
    """A method's line with its widths counted: ``widths={12 groups: 32}``; the names stand in the results file."""

    def counted(found: re.Match[str]) -> str:
        widths = Counter(ast.literal_eval(found[0]).values())
        return "{" + ", ".join(f"{n} group{'s' * (n > 1)}: {width}" for width, n in widths.items()) + "}"

    return re.sub(r"\{'.*?\}", counted, line)


def spread(side: Mapping[str, float], factor: float, digits: int) -> str:
    """``92.81 ± 0.12``; the mean alone where there is one seed, or all are equal."""
    text = f"{factor * side['mean']:.{digits}f}"
    deviation = factor * side.get("sd", 0.0)
    return f"{text} ± {deviation:.{digits}f}" if deviation >= 0.5 * 10**-digits else text


FORMATS = {
    "demo": demo_rows,
    "demo_xeon": demo_rows,
    "onnx_backend": onnx_backend_rows,
    "sources": sources_rows,
    "recovery": recovery_rows,
    "augmentation": augmentation_rows,
    "patience": patience_rows,
    "structure_fashion": structure_rows,
    "structure_cifar": structure_rows,
    "structure_minilm": structure_rows,
}


def main(arguments: list[str] | None = None) -> int:
    """Fill or check the files; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fill Markdown files with the figures of benchmarks/results.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: README.md and docs/*.md")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a file is stale")
    options = parser.parse_args(arguments)
    stale = False
    for path in options.files or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        before = path.read_text(encoding="utf-8")
        try:
            after = filled(before, RESULTS)
        except SlimlineError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 2
        if after == before:
            continue
        stale = True
        if options.check:
            print(f"{path}: the figures are stale; run make docs", file=sys.stderr)
        else:
            path.write_text(after, encoding="utf-8")
            print(f"{path}: figures renewed")
    return int(stale and options.check)


if __name__ == "__main__":
    sys.exit(main())
