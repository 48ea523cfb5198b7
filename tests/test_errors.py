"""The one exception a user meets, and that every place in the source raises it with a whole sentence."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import slimline as sl
from slimline import errors
from slimline.cli import main

SRC = Path(__file__).parents[1] / "src" / "slimline"


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SRC.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def test_a_message_is_what_str_gives() -> None:
    assert str(errors.SlimlineError("The file is empty: write it again.")) == "The file is empty: write it again."
    assert sl.SlimlineError is errors.SlimlineError
    assert issubclass(errors.SlimlineError, Exception) and not issubclass(errors.SlimlineError, (ValueError, OSError))


def test_there_is_one_exception_class() -> None:
    names = [
        (path.name, node.name)
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any("Error" in ast.unparse(b) or "Exception" in ast.unparse(b) for b in node.bases)
    ]
    assert names == [("errors.py", "SlimlineError")]


def test_the_source_raises_nothing_else() -> None:
    """What the command line, a module's __getattr__ and a helper that builds the exception need is listed here."""
    known = {"SlimlineError", "AttributeError", "typer.Exit", "self._failure", "_cannot", "ours"}
    raised = {
        ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        for _, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None
    }
    assert "SlimlineError" in raised
    assert raised <= known


def test_the_command_line_prints_the_sentence_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["slimline", "inspect", str(tmp_path / "absent.slim")])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = "".join(capsys.readouterr())
    assert caught.value.code == 2
    assert "absent.slim does not exist" in " ".join(printed.split()) and "Traceback" not in printed
