"""How large the house is: lines and function lengths per folder, growth since a commit, and what is over the guidance.

    python tools/lines.py [--since REV]

It informs and always ends with 0; a file that needs its length may keep it. Only the standard library is used.
"""

import argparse
import ast
import io
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src/slimline", "tests", "benchmarks", "examples", "tools")
FILE_LINES, FUNCTION_LINES, ARGUMENTS = 400, 50, 7


@dataclass(frozen=True)
class Function:
    """Where a function stands, how many lines it has and how many arguments it takes (without self and cls)."""

    place: str
    lines: int
    arguments: int


def functions(path: str, source: str) -> Iterator[Function]:
    """Every function of a file, methods and inner functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            yield Function(
                f"{path}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1, count
            )


def percentile90(values: list[int]) -> int:
    """The smallest of ``values`` that at least 90 % of them do not exceed; 0 without values (nearest rank)."""
    return sorted(values)[-(-9 * len(values) // 10) - 1] if values else 0


def folder(path: str) -> str:
    """``src/slimline/network/trace.py`` -> ``src/slimline/network``; elsewhere the first folder."""
    parts = path.split("/")
    return "/".join(
        parts[:3] if parts[0] == "src" and len(parts) > 3 else parts[:2] if parts[0] == "src" else parts[:1]
    )


def here(root: Path) -> dict[str, str]:
    """Path -> text of the Python files of the working tree."""
    paths = sorted(p for name in FOLDERS for p in (root / name).rglob("*.py"))
    return {p.relative_to(root).as_posix(): p.read_text() for p in paths}


def then(root: Path, commit: str) -> dict[str, str] | None:
    """Path -> text of the Python files at ``commit``; None where there is no such commit."""
    tree = subprocess.run(["git", "archive", "--format=tar", commit], cwd=root, capture_output=True)
    if tree.returncode:
        return None
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(tree.stdout)) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None and member.name.endswith(".py") and member.name.startswith(FOLDERS):
                texts[member.name] = content.read().decode()
    return texts


def totals(texts: dict[str, str]) -> dict[str, int]:
    """Lines per folder."""
    lines: dict[str, int] = defaultdict(int)
    for path, text in texts.items():
        lines[folder(path)] += len(text.splitlines())
    return lines


def table(now: dict[str, str], before: dict[str, str] | None) -> list[str]:
    """One line per folder and a last one for everything."""
    lines, old = totals(now), totals(before or {})
    rows = [f"{'folder':<26}{'files':>6}{'lines':>8}{'change':>8}{'function p90':>14}{'longest':>9}"]
    for name in [*sorted(lines.keys() | old.keys()), "all"]:
        inside = {p: t for p, t in now.items() if name in (folder(p), "all")}
        sizes = [f.lines for p, t in inside.items() for f in functions(p, t)]
        count = sum(len(t.splitlines()) for t in inside.values())
        growth = "-" if before is None else f"{count - (sum(old.values()) if name == 'all' else old.get(name, 0)):+d}"
        longest = max(sizes, default=0)
        rows.append(f"{name:<26}{len(inside):>6}{count:>8}{growth:>8}{percentile90(sizes):>14}{longest:>9}")
    return rows


def over(texts: dict[str, str]) -> list[str]:
    """Files and functions beyond the guidance."""
    found = []
    for path, text in texts.items():
        if (count := len(text.splitlines())) > FILE_LINES:
            found.append(f"{path}: {count} lines")
        for function in functions(path, text):
            if function.lines > FUNCTION_LINES:
                found.append(f"{function.place}: {function.lines} lines")
            if function.arguments > ARGUMENTS:
                found.append(f"{function.place}: {function.arguments} arguments")
    return found


def main() -> None:
    """Print the table and the list."""
    parser = argparse.ArgumentParser(description="Lines and function lengths per folder.")
    parser.add_argument("--since", default="main", help="commit to compare with (default: main)")
    since = parser.parse_args().since
    now, before = here(ROOT), then(ROOT, since)
    print("\n".join(table(now, before)))
    if before is None:
        print(f"\nThere is no commit {since!r} to compare with: no change is shown.")
    if found := over(now):
        print(f"\nOver {FILE_LINES} lines a file, {FUNCTION_LINES} a function or {ARGUMENTS} arguments:")
        print("\n".join(found))


if __name__ == "__main__":
    main()
