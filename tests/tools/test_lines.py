"""The counts of `make lines`, on files whose counts are known by hand."""

import subprocess
from pathlib import Path

import pytest

from tools.lines import folder, functions, over, percentile90, table, then

SOURCE = """
class Thing:
    def method(self, a, /, b, *, c=1):
        def inner(x):
            return x
        return inner

async def last(): ...
"""


def test_functions_counts_lines_and_arguments_without_self() -> None:
    found = {f.place.split()[1]: (f.lines, f.arguments) for f in functions("a.py", SOURCE)}
    assert found == {"method": (4, 3), "inner": (2, 1), "last": (1, 0)}


@pytest.mark.parametrize(("values", "expected"), [([], 0), ([7], 7), (list(range(1, 11)), 9), (list(range(1, 12)), 10)])
def test_percentile90_is_the_smallest_value_that_nine_of_ten_do_not_exceed(values: list[int], expected: int) -> None:
    assert percentile90(values) == expected
    if values:
        assert sum(v <= expected for v in values) >= 0.9 * len(values) > sum(v < expected for v in values)


def test_folder_is_the_room_inside_the_package_and_the_first_folder_elsewhere() -> None:
    paths = [
        "src/slimline/task.py",
        "src/slimline/methods/prune/l1.py",
        "tests/network/test_trace.py",
        "tools/lines.py",
    ]
    assert [folder(p) for p in paths] == ["src/slimline", "src/slimline/methods", "tests", "tools"]


def test_table_shows_growth_and_folders_that_are_gone() -> None:
    rows = table({"tests/a.py": "x = 1\n" * 5}, {"tests/a.py": "x = 1\n" * 2, "tools/b.py": "x = 1\n"})
    cells = {row.split()[0]: row.split()[1:4] for row in rows}
    assert cells["tests"] == ["1", "5", "+3"]
    assert cells["tools"] == ["0", "0", "-1"]
    assert cells["all"] == ["1", "5", "+2"]


def test_over_names_long_files_long_functions_and_many_arguments() -> None:
    long = "def f(a, b, c, d, e, f, g, h):\n" + "    a = 1\n" * 400
    assert over({"x.py": long}) == ["x.py: 401 lines", "x.py:1 f: 401 lines", "x.py:1 f: 8 arguments"]
    assert over({"x.py": "def f(a, b, c, d, e, f, g):\n" + "    a = 1\n" * 49}) == []


def test_then_reads_a_commit_and_knows_when_there_is_none(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    assert then(tmp_path, "main") is None
    for name in ("tests/a.py", "docs/b.py", "tests/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old\n")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "tests/a.py").write_text("new\n")
    assert then(tmp_path, "main") == {"tests/a.py": "old\n"}
